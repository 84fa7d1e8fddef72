"""All cases of the comparison, and how to pick some of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from allocator import save_problem
from benchmarks.solvers import classical, hard, realistic
from benchmarks.solvers.case import Case

ROWS = 2_000  # groups up to which a file is written in rows, for people to read


def all_cases() -> list[Case]:
    """Realistic, hard and classical, in that order."""
    return [*realistic.cases(), *hard.cases(), *classical.cases()]


def pick(patterns: str | None = None, quick: bool = False) -> list[Case]:
    """Cases whose name or name@seed matches one of the comma-separated shell patterns; with quick the short list.

    Raises:
        ValueError: nothing matches.
    """
    found = [c for c in all_cases() if c.quick or not quick]
    if patterns is not None:
        wanted = [p.strip() for p in patterns.split(",") if p.strip()]
        found = [c for c in found if any(fnmatchcase(c.name, p) or fnmatchcase(c.key, p) for p in wanted)]
    if not found:
        names = ", ".join(dict.fromkeys(c.name.partition("-")[0] for c in all_cases()))
        raise ValueError(
            f"no case matches {patterns!r}{' in the short list' if quick else ''}; they begin with {names}"
        )
    return found


def find(key: str) -> Case:
    """The case name@seed; a seed that is in no list is made as well."""
    name, _, seed = key.partition("@")
    for case in all_cases():
        if case.name == name:
            return Case(name, int(seed or case.seed), case.groups, case.meaning, case.make, case.quick)
    raise ValueError(f"there is no case {name!r}")


def write(cases: Iterable[Case], folder: Path) -> Iterator[Path]:
    """Each case as the problem file name@seed.json (and .npz beyond 2,000 groups); yields the paths once written."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        path = folder / f"{case.key}.json"
        save_problem(case.build(), path, columns=case.groups > ROWS)
        yield path
