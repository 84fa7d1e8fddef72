"""A plain table, one row per choice: CSV or Parquet, its columns named or mapped to the parts of a problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from allocator.errors import Fault, ProblemError, UsageError
from allocator.formats.rows import numbers, problem_from_rows
from allocator.importers import cells
from allocator.importers.cells import CellError, Cells, read_cells
from allocator.problem import Problem
from allocator.validation import MOST_FAULTS

NAMED = ("score", "cost", "stderr", "remainder")
PLAIN = ("group", "choice", "label", "allowed", "tags", "weights", "action")
UNITS = {"bytes": "byte", "byte": "byte", "bits": "bit", "bit": "bit", "ms": "ms"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Read a table of choices.

    Parts of a problem, each from one column: `group`; `choice`, `label`, `allowed`, `tags` (with ; between), `weights`
    (of the group: the same in all its rows), `action` (a JSON object); `cost.<resource>`, `score.<score>`,
    `stderr.<score>`, `remainder.<score>`. Columns of these names are read without being asked for, others are left
    out. `group`, a cost and a score are needed. Rows of a group may stand anywhere; groups and choices keep the
    order of their first rows.

    columns: other names of columns, part → column, or as text "group=layer,cost.bytes=size".
    units: of resources, as mapping or "bytes=byte"; by default byte, bit or ms where the name ends in it.
    loss: terms of the loss, as mapping or "kl=1,ggn=0.5"; by default the first score alone.
    """

    name: ClassVar[str] = "table"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".parquet")

    columns: str | Mapping[str, str] = ""
    units: str | Mapping[str, str] = ""
    loss: str | Mapping[str, float] = ""

    def read(self, path: str | Path) -> Problem:
        """The problem without budgets that a table states.

        Raises:
            ProblemError: each fault with its line and column.
            UsageError: a column, resource or score that is not there.
            UnavailableError: Parquet without pyarrow.
        """
        table = read_cells(path)
        if not any(table.header):
            raise cells.fault(path, "line 1", "is empty; a table begins with the names of its columns")
        parts = _parts(table.header, assignments(self.columns, "columns"), path)
        found = _Rows(path, table, parts)
        for where, row in table.rows:
            found.add(where, row)
        return problem_from_rows(found.problem(assignments(self.units, "units"), assignments(self.loss, "loss")))


def assignments(text: str | Mapping[str, Any], what: str) -> dict[str, str]:
    """ "a=b,c=d" as a mapping; a mapping as it is.

    Raises:
        UsageError: a piece without "=", or two for one name.
    """
    if not isinstance(text, str):
        return {str(k): str(v) for k, v in text.items()}
    found: dict[str, str] = {}
    for piece in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = piece.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise UsageError(f"{what} {piece!r}: write name=value, with commas between")
        if name.strip() in found:
            raise UsageError(f"{what}: two values for {name.strip()!r}; give one")
        found[name.strip()] = value.strip()
    return found


def _parts(header: Sequence[str], wanted: Mapping[str, str], path: str | Path) -> dict[str, int]:
    """Part of a problem → place of its column."""
    double = [name for name in dict.fromkeys(header) if name and header.count(name) > 1]
    if double:
        raise cells.fault(path, "the header", f"names {double[0]!r} twice; columns need different names")
    for part, column in wanted.items():
        if not _is_part(part):
            raise UsageError(f"columns {part}={column}: there is no part {part!r}; known: {', '.join(PLAIN)}, "
                             + ", ".join(f"{n}.NAME" for n in NAMED))  # fmt: skip
        if column not in header:
            raise UsageError(f"{path}: there is no column {column!r}; its columns are {', '.join(header)}")
    taken = set(wanted.values())
    parts = {name: i for i, name in enumerate(header) if name not in taken and name not in wanted and _is_part(name)}
    parts |= {part: header.index(column) for part, column in wanted.items()}
    for need in ("group", "cost.", "score."):
        if not any(part == need or (need[-1] == "." and part.startswith(need)) for part in parts):
            shown = need + "NAME" if need[-1] == "." else need
            raise UsageError(
                f"{path}: no column for {shown}; its columns are {', '.join(header)}: say which, "
                f"as in --columns {shown}=COLUMN"
            )
    scores = {part.partition(".")[2] for part in parts if part.startswith("score.")}
    for part in parts:
        kind, _, name = part.partition(".")
        if kind in ("stderr", "remainder") and name not in scores:
            raise UsageError(f"{path}: {part} is of no score; scores are {', '.join(sorted(scores))}")
    order = {part: i for part, i in parts.items() if "." not in part}
    return order | dict(sorted(((p, i) for p, i in parts.items() if "." in p), key=lambda item: item[1]))


def _is_part(name: str) -> bool:
    kind, dot, rest = name.partition(".")
    return name in PLAIN or (kind in NAMED and bool(dot) and bool(rest))


@dataclass
class _Rows:
    """Collects groups in the row form."""

    path: str | Path
    table: Cells
    parts: Mapping[str, int]
    faults: list[Fault] = field(default_factory=list)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: dict[tuple[str, str], str] = field(default_factory=dict)
    where: str = ""

    def add(self, where: str, row: Sequence[Any]) -> None:
        self.where = where
        if len(row) != len(self.table.header):
            self.fault(None, f"has {len(row)} cells, the header {len(self.table.header)}")
            return
        group = self.cell(row, "group", cells.text)
        if group is None:
            self.fault("group", "is empty; name the group")
            return
        into = self.groups.setdefault(group, {"name": group, "choices": []})
        choice: dict[str, Any] = {"name": self.cell(row, "choice", cells.text) or f"c{len(into['choices'])}"}
        if (group, choice["name"]) in self.seen:
            first = self.seen[group, choice["name"]]
            self.fault("choice", f"group {group!r} has a choice {choice['name']!r} already, in {first}")
        self.seen[group, choice["name"]] = where
        for part, i in self.parts.items():
            kind, _, name = part.partition(".")
            if kind in ("cost", "score"):
                choice.setdefault(kind, {})[name] = self.read(part, row[i], cells.number) or 0
            elif kind in NAMED and not cells.empty(row[i]):
                choice.setdefault(kind, {})[name] = self.read(part, row[i], _not_negative) or 0
        for part, read in (("label", cells.text), ("allowed", cells.flag), ("action", _action)):
            value = self.cell(row, part, read)
            if value is not None:
                choice[part] = value
        into["choices"].append(choice)
        self.of_group(row, into)

    def of_group(self, row: Sequence[Any], into: dict[str, Any]) -> None:
        """What belongs to the group: tags add up, weights must agree."""
        tags = self.cell(row, "tags", cells.words)
        if tags:
            into["tags"] = list(dict.fromkeys([*into.get("tags", []), *tags]))
        weights = self.cell(row, "weights", _count)
        if weights is not None and into.setdefault("weights", weights) != weights:
            self.fault("weights", f"{weights} differs from {into['weights']} in an earlier row of {into['name']!r}")

    def cell(self, row: Sequence[Any], part: str, read: Callable[[Any], Any]) -> Any:
        """What an optional part's cell says; None where there is none or it is empty."""
        if part not in self.parts or cells.empty(row[self.parts[part]]):
            return None
        return self.read(part, row[self.parts[part]], read)

    def read(self, part: str, cell: Any, read: Callable[[Any], Any]) -> Any:
        try:
            return read(cell)
        except CellError as error:
            self.fault(part, str(error))
            return None

    def fault(self, part: str | None, message: str) -> None:
        place = self.parts.get(part or "")
        column = "" if place is None else f", column {self.table.header[place]!r}"
        self.faults.append(Fault(f"{self.path}, {self.where}{column}", message))
        if len(self.faults) >= MOST_FAULTS:
            raise ProblemError(self.faults, "table")

    def problem(self, units: Mapping[str, str], loss: Mapping[str, str]) -> dict[str, Any]:
        """The row form.

        Raises:
            ProblemError: the faults found.
            UsageError: units or a loss that name what is not there.
        """
        if not self.groups and not self.faults:
            self.fault(None, "there are no rows; a problem needs at least one choice")
        if self.faults:
            raise ProblemError(self.faults, "table")
        resources, scores = (self.names(kind) for kind in ("cost", "score"))
        for name in units.keys() - set(resources):
            raise UsageError(f"units: there is no resource {name!r}; known: {', '.join(resources)}")
        for name in loss.keys() - set(scores):
            raise UsageError(f"loss: there is no score {name!r}; known: {', '.join(scores)}")
        for resource in resources:
            self.whole(resource)
        known = {r: units.get(r) or UNITS.get(r.rpartition("_")[2].lower()) for r in resources}
        return {
            "format": "allocation-problem",
            "version": 1,
            "resources": {r: {"unit": unit} for r, unit in known.items() if unit},
            "loss": {"terms": {s: _weight(s, w) for s, w in loss.items()} or {scores[0]: 1.0}},
            "groups": list(self.groups.values()),
            "provenance": {
                "importer": Table.name,
                "file": Path(self.path).name,
                "columns": {part: self.table.header[i] for part, i in self.parts.items()},
                "columns_left_out": [n for i, n in enumerate(self.table.header) if i not in self.parts.values()],
            },
        }

    def names(self, kind: str) -> list[str]:
        return [part.partition(".")[2] for part in self.parts if part.startswith(kind + ".")]

    def whole(self, resource: str) -> None:
        """Spell a cost column in integers where all of it is whole, as `4.0` may stand for."""
        costs = [choice["cost"] for group in self.groups.values() for choice in group["choices"]]
        for cost, value in zip(costs, numbers([c[resource] for c in costs]).tolist(), strict=True):
            cost[resource] = value


def _not_negative(cell: Any) -> int | float:
    value = cells.number(cell)
    if value < 0:
        raise CellError(f"{cell!r} is below 0")
    return value


def _count(cell: Any) -> int:
    value = cells.number(cell)
    if value != int(value) or not 0 <= value < 2**63:
        raise CellError(f"{cell!r} is not a count")
    return int(value)


def _action(cell: Any) -> Any:
    try:
        found = cell if isinstance(cell, dict) else msgspec.json.decode(str(cell))
    except msgspec.DecodeError as error:
        raise CellError(f"is not JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
        raise CellError("is not an action: a JSON object with its kind")
    return {key: value for key, value in found.items() if value is not None}


def _weight(score: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"loss {score}={text}: the weight is not a number") from None
