"""The LP format of CPLEX, which most solvers read: the program as formulas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from allocator.exporters.program import Program, program_of
from allocator.formats.files import write_bytes
from allocator.problem import Problem

WIDTH = 200  # readers take 510 characters to a line


@dataclass(frozen=True, kw_only=True)
class Lp:
    """Write the problem's mixed-integer program in the LP format."""

    name: ClassVar[str] = "lp"
    suffixes: ClassVar[tuple[str, ...]] = (".lp",)

    def write(self, problem: Problem, path: str | Path) -> None:
        """Write it to a file, or to standard output for "-".

        Raises:
            UnsupportedError: see `allocator.exporters.program.program_of`.
        """
        write_bytes(path, "".join(line + "\n" for line in lp_lines(program_of(problem))).encode("ascii"))


def lp_lines(program: Program) -> Iterator[str]:
    """The lines of the file. The constant of the objective stands in a comment: not every reader takes one."""
    names = [variable.name for variable in program.variables]
    yield from (f"\\ {comment}" for comment in program.comments)
    yield "Minimize"
    costly = [i for i, v in enumerate(program.variables) if v.cost != "0"] or [0]
    yield from _wrapped("objective", _terms(names, costly, [program.variables[i].cost for i in costly]))
    yield "Subject To"
    for row in program.rows:
        yield from _wrapped(row.name, [*_terms(names, row.index, row.coefficients), f"{row.sense} {row.limit}"])
    yield "Bounds"
    yield from (f" 0 <= {v.name} <= 1" for v in program.variables if not v.integer)
    yield "Binary"
    yield from (f" {v.name}" for v in program.variables if v.integer)
    yield "End"


def _terms(names: Sequence[str], index: Sequence[int], coefficients: Sequence[str]) -> list[str]:
    return [
        f"{'-' if c.startswith('-') else '+'} {c.lstrip('-')} {names[i]}"
        for i, c in zip(index, coefficients, strict=True)
    ]


def _wrapped(name: str, pieces: Sequence[str]) -> Iterator[str]:
    line = f" {name}:"
    for piece in pieces:
        if len(line) + len(piece) >= WIDTH:
            yield line
            line = "   "
        line += " " + piece
    yield line
