"""`allocator diff A B`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.console import print_json, table

if TYPE_CHECKING:
    from allocator.difference import Moved, ProblemDifference, SolutionDifference
    from allocator.formats.types import SolutionFile
    from allocator.problem import Problem


def diff_command(
    a: Annotated[str, typer.Argument(help="solution.json or problem.json.")],
    b: Annotated[str, typer.Argument(help="Another of the same kind.")],
    most: Annotated[int, typer.Option(help="How many groups are shown; all are counted.")] = 40,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """What differs between two solutions or two problems, by the names of groups and choices: exit 0 either way."""
    from allocator.difference import SolutionDifference, between_problems, between_solutions
    from allocator.errors import UsageError
    from allocator.formats.types import SolutionFile
    from allocator.problem import Problem

    one, other = _read(a), _read(b)
    found: SolutionDifference | ProblemDifference
    if isinstance(one, Problem) and isinstance(other, Problem):
        found = between_problems(one, other)
    elif isinstance(one, SolutionFile) and isinstance(other, SolutionFile):
        found = between_solutions(one, other)
    else:
        kinds = ["problem" if isinstance(read, Problem) else "solution" for read in (one, other)]
        raise UsageError(f"{a} is a {kinds[0]}, and {b} a {kinds[1]}: compare two of a kind")
    if json:
        print_json(found.to_json())
    elif found.same:
        print("the same")
    elif isinstance(found, SolutionDifference):
        _tell_solutions(found, most)
    else:
        _tell_problems(found, most)


def _read(path: str) -> SolutionFile | Problem:
    import msgspec

    from allocator.errors import UsageError
    from allocator.formats.decode import decode
    from allocator.formats.files import read_bytes
    from allocator.formats.problems import parse_problem
    from allocator.formats.solutions import load_solution
    from allocator.formats.types import SolutionFile

    if path.endswith(".npz"):
        return load_solution(path)
    data = read_bytes(path)
    try:
        kind = msgspec.json.decode(data)["format"]
    except (msgspec.DecodeError, TypeError, KeyError, UnicodeDecodeError):
        kind = None
    if kind == "allocation-solution":
        return decode(data, SolutionFile, "solution")
    if kind == "allocation-problem":
        return parse_problem(data, None if path == "-" else Path(path).parent)
    raise UsageError(
        f"{path} is neither a solution nor a problem: its format would be allocation-solution or allocation-problem"
    )


def _tell_solutions(found: SolutionDifference, most: int) -> None:
    print(f"{len(found.choices)} of {found.groups} groups differ")
    if found.choices:
        table(("group", "first", "second"), [(g, *map(_shown, pair)) for g, pair in [*found.choices.items()][:most]])
    if len(found.choices) > most:
        print(f"{most} of {len(found.choices)} shown; --most N shows more")
    for name, pair in {**found.totals, **found.fields}.items():
        print(f"{name}: {_shown(pair[0])} → {_shown(pair[1])}{_share(*pair)}")


def _tell_problems(found: ProblemDifference, most: int) -> None:
    if found.fields:
        print(f"differ: {', '.join(found.fields)}")
    for which, names in zip(("first", "second"), found.only, strict=True):
        if names:
            more = f" and {len(names) - most} more" if len(names) > most else ""
            print(f"only in the {which}: {', '.join(names[:most])}{more}")
    if found.columns:
        table(
            ("column", "choices that differ", "farthest apart", "first", "second"),
            [(name, f"{m.differ} of {m.of}", _where(m), *map(_shown, m.pair)) for name, m in found.columns.items()],
        )


def _where(moved: Moved) -> str:
    far = "" if moved.deviations is None else f" ({moved.deviations:.1f} s.e.)"
    return f"{moved.group}: {moved.choice}{far}"


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _share(before: Any, after: Any) -> str:
    """How much more or less."""
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (before, after))
    return f" ({(after - before) / before:+.1%})" if numbers and before else ""
