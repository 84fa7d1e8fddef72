"""Free-format MPS: what every mixed-integer solver reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from allocator.exporters.program import Program, program_of
from allocator.formats.files import write_bytes
from allocator.problem import Problem

SENSES = {"<=": "L", ">=": "G", "=": "E"}


@dataclass(frozen=True, kw_only=True)
class Mps:
    """Write the problem's mixed-integer program in free MPS (names without blanks, fields split by blanks)."""

    name: ClassVar[str] = "mps"
    suffixes: ClassVar[tuple[str, ...]] = (".mps",)

    def write(self, problem: Problem, path: str | Path) -> None:
        """Write it to a file, or to standard output for "-".

        Raises:
            UnsupportedError: see `allocator.exporters.program.program_of`.
        """
        write_bytes(path, "".join(line + "\n" for line in mps_lines(program_of(problem))).encode("ascii"))


def mps_lines(program: Program) -> Iterator[str]:
    """The lines of the file. The constant of the objective stands in a comment: readers differ on its sign."""
    yield from (f"* {comment}" for comment in program.comments)
    yield "NAME allocation"
    yield "ROWS"
    yield " N objective"
    yield from (f" {SENSES[row.sense]} {row.name}" for row in program.rows)
    columns: list[list[tuple[str, str]]] = [[] for _ in program.variables]
    for row in program.rows:
        for i, coefficient in zip(row.index, row.coefficients, strict=True):
            columns[i].append((row.name, coefficient))
    yield "COLUMNS"
    integer = False
    for variable, entries in zip(program.variables, columns, strict=True):
        if variable.integer != integer:
            integer = variable.integer
            yield f" MARKER 'MARKER' '{'INTORG' if integer else 'INTEND'}'"
        yield f" {variable.name} objective {variable.cost}"
        yield from (f" {variable.name} {name} {coefficient}" for name, coefficient in entries)
    if integer:
        yield " MARKER 'MARKER' 'INTEND'"
    yield "RHS"
    yield from (f" RHS {row.name} {row.limit}" for row in program.rows if row.limit != "0")
    yield "BOUNDS"
    yield from (f" UP BND {variable.name} 1" for variable in program.variables)
    yield "ENDATA"
