"""compare(): the same problems and budgets through several backends, every answer verified."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from allocator import registry
from allocator.budgets import apply_budgets
from allocator.comparison_rows import Row as Row
from allocator.comparison_rows import judged
from allocator.comparison_runs import Cell, RunLimits, in_own_process, in_process
from allocator.errors import UsageError
from allocator.listing import solvers
from allocator.problem import Problem
from allocator.progress import Progress
from allocator.protocols import Solver
from allocator.solution import Solution
from allocator.statement import Number

_SPEC = re.compile(r"^([A-Za-z0-9_-]+)(?:\[(.*)\])?$")


def compare(
    problems: Mapping[str, Problem] | Sequence[str | Path],
    solvers: Sequence[str | Solver] | str = "all",
    *,
    budgets: Sequence[str | Number] | None = None,
    resource: str | None = None,
    time_limit: float | None = None,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    threads: int | None = None,
    isolate: bool = False,
    memory_limit: int | None = None,
    known: Iterable[Row] = (),
    progress: Progress | None = None,
    keep: Callable[[Row, Solution], None] | None = None,
    each: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Run backends side by side.

    Args:
        problems: name → problem, or paths of problem files.
        solvers: names (with options: "ortools_mip[engine=highs]"), instances, or "all" that are available.
        budgets: each in turn replaces the budget; None keeps the files' own.
        resource: what the budgets limit; default the only budgeted resource.
        time_limit: seconds per run.
        seed: of whatever is random.
        seeds: each in turn, instead of `seed`.
        threads: at most so many per run.
        isolate: each run in a process of its own, killed at twice its time limit + 10 s, or at its memory limit.
        memory_limit: bytes resident per run, with all its processes; needs `isolate`.
        known: rows of an earlier comparison; a run that is among them is not made again.
        progress: called as progress(what, done, total).
        keep: called with each row and its solution; not with `isolate`.
        each: called with each new row as soon as it is there, before it is compared with the others.

    Returns:
        Rows in the order problems × budgets × seeds × solvers; a backend that fails is a row that says so.

    Raises:
        UsageError: an unknown solver, option or budget; a limit that cannot be held.
        ProblemError: a file is not valid.
    """
    if memory_limit is not None and not isolate:
        raise UsageError("a memory limit needs each run in its own process; add isolate=True")
    if keep is not None and isolate:
        raise UsageError("keep wants solutions, which stay in the runs' own processes; leave isolate out")
    stated = problems if isinstance(problems, Mapping) else _named(problems)
    backends = parse_solvers(solvers)
    drawn = [seed] if seeds is None else list(seeds)
    runs = [RunLimits(time_limit, s, threads, isolate, memory_limit) for s in drawn]
    cells = [(name, p, b) for name, p in stated.items() for b in (budgets if budgets is not None else [None])]
    total = len(cells) * len(backends) * len(drawn)
    known = list(known)
    earlier = {row.key: row for row in known}
    rows: list[Row] = []
    for name, problem, budget in cells:
        cell = Cell(name, problem if budget is None else apply_budgets(problem, [str(budget)], resource), budget)
        for limits in runs:
            for text, backend in backends:
                empty = cell.row(text, backend, limits)
                what = " ".join(filter(None, (name, str(budget or ""), text)))

                def tick(what: str = what) -> None:
                    if progress is not None:
                        progress(what, len(rows), total)

                tick()
                row, solution = earlier.get(empty.key), None
                if row is None:
                    make = in_process if not isolate else in_own_process
                    row, solution = make(cell, backend, limits, empty, tick)
                    row = judged([row])[0]
                    if each is not None:
                        each(row)
                rows.append(row if row.problem == name else replace(row, problem=name))
                if keep is not None and solution is not None:
                    keep(row, solution)
    if progress is not None:
        progress("done", total, total)
    return judged(rows, known)


def parse_solvers(solvers_: Sequence[str | Solver] | str) -> list[tuple[str, Solver]]:
    """Instances by the text that names them: "a,b[k=v;l=w]" or a list.

    Raises:
        UsageError: an unknown name or option.
    """
    if isinstance(solvers_, str):
        if solvers_ == "all":
            solvers_ = [s.name for s in solvers() if s.available]
        else:
            solvers_ = [t for t in re.findall(r"[^,\[]+(?:\[[^\]]*\])?", solvers_) if t.strip()]
    return [(s.strip(), solver_from_text(s)) if isinstance(s, str) else (repr(s), s) for s in solvers_]


def solver_from_text(text: str) -> Solver:
    """An instance for "name" or "name[option=value,…]"."""
    name, options = split_spec(text)
    backend: Solver = registry.make("solvers", name, options)
    return backend


def split_spec(text: str) -> tuple[str, dict[str, str]]:
    """Name and options of "name[option=value,…]"."""
    match = _SPEC.match(text.strip())
    if match is None:
        raise UsageError(f"{text!r}: write name or name[option=value]")
    options = {}
    for part in filter(None, re.split(r"[,;]", match[2] or "")):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"{text!r}: option {part!r} must be option=value")
        options[key.strip()] = value.strip()
    return match[1], options


def _named(paths: Sequence[str | Path]) -> dict[str, Problem]:
    """Problems by the stems of their files, by whole paths where two stems are alike."""
    from allocator.formats.problems import load_problem

    stems = [Path(p).stem for p in paths]
    return {
        stem if stems.count(stem) == 1 else str(path): load_problem(path)
        for stem, path in zip(stems, paths, strict=True)
    }
