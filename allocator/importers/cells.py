"""A table as a header and rows of cells, whatever file it came from; what a cell says as a number, a flag, text."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allocator.errors import Fault, ProblemError, UnavailableError
from allocator.formats.files import read_bytes

SEPARATORS = (",", ";", "\t")
FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
LARGEST = 2**1000  # beyond it an integer has no float


@dataclass(frozen=True)
class Cells:
    """rows: where each stands, in words, and its cells; "" and None are empty."""

    header: Sequence[str]
    rows: Iterable[tuple[str, Sequence[Any]]]


class CellError(ValueError):
    """A cell that does not say what its column asks for."""


def read_cells(path: str | Path) -> Cells:
    """A table from a .parquet file, or else from comma, semicolon or tab separated text in utf-8.

    Raises:
        ProblemError: the file cannot be read as a table.
        UnavailableError: Parquet without pyarrow.
    """
    return _parquet(path) if Path(path).suffix.lower() == ".parquet" else _text(path)


def _text(path: str | Path) -> Cells:
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise fault(path, f"byte {error.start + 1}", "is not utf-8; save the table as utf-8") from None
    first = text.partition("\n")[0]
    separator = max(SEPARATORS, key=first.count)  # the first of them where none occurs
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise fault(path, "line 1", f"cannot be read: {error}") from None

    def rows() -> Iterator[tuple[str, Sequence[Any]]]:
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise fault(path, f"line {line}", f"cannot be read: {error}") from None
            if row is None:
                return
            if any(cell.strip() for cell in row):
                yield f"line {line}", [cell.strip() for cell in row]

    return Cells(header, rows())


def _parquet(path: str | Path) -> Cells:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UnavailableError(
            f"{path}: Parquet needs pyarrow; pip install 'compression-allocator[parquet]', or write the table as CSV"
        ) from None
    try:
        table = parquet.read_table(io.BytesIO(read_bytes(path)))
    except (ArrowException, OSError) as error:
        raise fault(path, "the file", f"cannot be read as Parquet: {error}") from None
    columns = [column.to_pylist() for column in table.columns]
    rows = ((f"row {i}", row) for i, row in enumerate(zip(*columns, strict=True), 1))
    return Cells([str(name) for name in table.column_names], rows)


def fault(path: str | Path, where: str, message: str) -> ProblemError:
    """One thing that is wrong with a table, as an error."""
    return ProblemError([Fault(f"{path}, {where}", message)], "table")


def empty(cell: Any) -> bool:
    """Whether nothing stands there."""
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def number(cell: Any) -> int | float:
    """A finite number; an integer where it is written as one.

    Raises:
        CellError: it is not.
    """
    if empty(cell):
        raise CellError("is empty; give a number")
    value: Any = cell
    if isinstance(cell, str):
        try:
            value = int(cell)
        except ValueError:
            try:
                value = float(cell)
            except ValueError:
                raise CellError(f"{cell!r} is not a number (the decimal mark is a point)") from None
    elif hasattr(cell, "as_tuple"):  # decimal.Decimal, of Parquet's decimal columns
        value = int(cell) if cell == cell.to_integral_value() else float(cell)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CellError(f"{cell!r} is not a number")
    if (isinstance(value, int) and abs(value) > LARGEST) or not math.isfinite(value):
        raise CellError(f"{str(cell)[:40]!r} is not a finite number of ordinary size")
    return value


def flag(cell: Any) -> bool:
    """true, yes, 1 or false, no, 0.

    Raises:
        CellError: none of them.
    """
    found = cell if isinstance(cell, bool) else FLAGS.get(str(cell).lower())
    if found is None:
        raise CellError(f"{cell!r} is neither true nor false")
    return found


def words(cell: Any) -> list[str]:
    """A list as it is, or text with ; between."""
    parts = cell if isinstance(cell, list | tuple) else str(cell).split(";")
    return list(dict.fromkeys(text(part) for part in parts if not empty(part) and text(part)))


def text(cell: Any) -> str:
    """A name: text as it stands, whole numbers without a point (a column of bits may be read as 4.0)."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
