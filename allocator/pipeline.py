"""solve(): reduce, hand to a backend, recompute, check the certificate, and say only what was proved."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator import registry
from allocator.budgets import apply_budgets
from allocator.choosing import choose_solver
from allocator.errors import AllocatorError, SolverError, UnavailableError, UnsupportedError, UsageError
from allocator.features import MEANING
from allocator.formats.digest import Identity
from allocator.problem import Problem
from allocator.protocols import Limits, Report, Solver, options_of
from allocator.reduce import Reduced, reduce
from allocator.solution import Answer, Solution
from allocator.statement import Number
from allocator.verification import verify

COUPLED_SEARCH = "annealing"
"""What `auto` takes for couplings and dense interactions: its moves seldom change many coupled groups at once."""
FIRST = 0.25
"""Of a time limit: for the optimum without interactions, from which that search begins."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a solve; `solution` is made of the best allocation seen so far."""

    def __init__(self, solution: Solution) -> None:
        super().__init__("interrupted")
        self.solution = solution


def solve(
    problem: Problem | Mapping[str, Any] | str | Path,
    solver: str | Solver = "auto",
    *,
    budgets: Mapping[str, Number | str] | Sequence[str] | str | Number | None = None,
    time_limit: float | None = None,
    gap: float = 0.0,
    seed: int = 0,
    threads: int | None = None,
    start: Mapping[str, str] | Sequence[int] | Solution | None = None,
    report: Report | None = None,
    **options: Any,
) -> Solution:
    """Allocate: choose one choice per group so that every budget holds and the objective is least.

    Args:
        problem: a `Problem`, the path of a problem.json, or its row form as plain data.
        solver: a registry name, "auto", or an instance.
        budgets: replace the unscoped rows of their resources (see `allocator.budgets`).
        time_limit: seconds, counted from when the backend is ready.
        gap: relative gap at which a backend may stop.
        seed: of whatever is random.
        threads: at most so many.
        start: an allocation to begin from: a solution, group → choice, or indices [G].
        report: called with each better allocation [G] found.
        options: fields of the named solver.

    Returns:
        A solution in which everything is recomputed from the raw columns; it never raises for an infeasible
        problem or a backend that found nothing.

    Raises:
        ProblemError: the file is not valid.
        UsageError: an unknown solver, option or budget.
        UnsupportedError: a feature that the solver does not take.
        UnavailableError: the backend's package is missing.
        SolverError: the backend failed.
        Interrupted: Ctrl-C; carries the best solution so far.
    """
    given, file_sha256 = _load(problem)
    stated = apply_budgets(given, budgets)
    limits = Limits(time=time_limit, threads=threads, seed=seed, gap=gap)
    wall, cpu = time.perf_counter(), time.process_time()
    reduced = reduce(stated)
    backend, why = _backend(solver, options, reduced)
    overrides = _overrides(given, stated)
    identity: dict[str, Any] = {
        "solver": _describe(backend, why, limits),
        "problem": Identity(given, file_sha256, overrides),
    }

    def finish(answer: Answer) -> Solution:
        solution = verify(stated, reduced, answer)
        run = {
            "wall_s": round(time.perf_counter() - wall, 6),
            "cpu_s": round(time.process_time() - cpu, 6),
            "host": os.uname().nodename if hasattr(os, "uname") else "",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "statistics": dict(answer.statistics),
        }
        return dataclasses.replace(solution, **identity, run=run)

    if reduced.problem is None:
        return finish(Answer(claim="infeasible"))
    _refuse_unsupported(backend, reduced.problem)
    seen: list[NDArray[np.int64]] = []

    def note(choice: NDArray[np.int64]) -> None:
        seen[:] = [np.array(choice)]  # a copy: the backend may go on in the same array
        if report is not None:
            told = reduced.expand(choice)
            try:
                report(told)
            except Exception as error:
                callers.append(error)
                raise

    callers: list[Exception] = []
    try:
        told = dataclasses.replace(limits, report=note, expand=reduced.expand)
        begun = _start(reduced, start)
        if begun is None and why is not None and backend.name == COUPLED_SEARCH:
            begun = _without_interactions(reduced.problem, limits)
            if limits.time is not None:
                told = dataclasses.replace(told, time=(1 - FIRST) * limits.time)
        answer = run_backend(backend, reduced.problem, told, begun)
    except KeyboardInterrupt:
        raise Interrupted(finish(Answer(choice=seen[-1] if seen else None, limit="interrupt"))) from None
    except AllocatorError:
        raise
    except Exception as error:  # a plug-in may raise anything
        if error in callers:
            raise
        raise SolverError(f"solver {backend.name!r} failed: {type(error).__name__}: {error}; try another") from error
    if not isinstance(answer, Answer):
        raise SolverError(f"solver {backend.name!r} returned {type(answer).__name__!r}, which is not an Answer")
    return finish(answer)


def run_backend(backend: Solver, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
    """One call of a backend, in the worker process if it asks for that."""
    if backend.isolate:
        from allocator.isolation import solve_isolated

        return solve_isolated(backend, problem, limits, start)
    return backend.solve(problem, dataclasses.replace(limits, started=time.monotonic()), start)


def _without_interactions(problem: Problem, limits: Limits) -> NDArray[np.int64] | None:
    """The optimum of what is left without interactions; None where none is found."""
    plain = problem.replace(interactions=())
    few = None if limits.time is None else FIRST * limits.time
    try:
        backend = _make(choose_solver(plain)[0], {})
        return run_backend(backend, plain, dataclasses.replace(limits, time=few, report=None)).choice
    except UnavailableError:
        return None


def _load(problem: Problem | Mapping[str, Any] | str | Path) -> tuple[Problem, str | None]:
    if isinstance(problem, Problem):
        return problem, problem.file_sha256
    if isinstance(problem, Mapping):
        return Problem.from_rows(problem), None
    from allocator.formats.problems import load_problem

    loaded = load_problem(problem)
    return loaded, loaded.file_sha256


def _backend(solver: str | Solver, options: Mapping[str, Any], reduced: Reduced) -> tuple[Solver, str | None]:
    if not isinstance(solver, str):
        if options:
            raise UsageError(f"options {', '.join(options)} belong to a solver's name; this is already {solver!r}")
        return solver, None
    if solver == "auto":
        name, why = choose_solver(reduced.problem)
        return _make(name, options), why
    return _make(solver, options), None


def _make(name: str, options: Mapping[str, Any]) -> Solver:
    backend: Solver = registry.make("solvers", name, options)
    return backend


def _describe(backend: Solver, why: str | None, limits: Limits) -> dict[str, Any]:
    from allocator import __version__

    settings: dict[str, Any] = {"seed": limits.seed, "gap": limits.gap, "time_limit": limits.time}
    if limits.threads is not None:
        settings["threads"] = limits.threads
    described = {
        "name": backend.name,
        "version": __version__,
        "options": options_of(backend),
        "limits": settings,
    }
    return described | ({"chosen_because": why} if why else {})


def _overrides(given: Problem, stated: Problem) -> dict[str, Any]:
    rows = [b for b in stated.budgets if b not in given.budgets]
    return {str(b.resource): {side: v for side, v in (("max", b.max), ("min", b.min)) if v is not None} for b in rows}


def _refuse_unsupported(backend: Solver, problem: Problem) -> None:
    missing = problem.features - backend.features
    if not missing:
        return
    able = []
    for name, entry in registry.entries("solvers").items():
        try:
            if problem.features <= entry.load().features:
                able.append(name)
        except Exception:
            continue
    what = "; ".join(f"{f} ({MEANING[f]})" for f in sorted(missing))
    way = f"use {', '.join(sorted(able))}" if able else "no backend takes all of it; take that part out of the problem"
    raise UnsupportedError(f"solver {backend.name!r} does not take {what}; {way}")


def _start(reduced: Reduced, start: Mapping[str, str] | Sequence[int] | Solution | None) -> NDArray[np.int64] | None:
    """The start on the reduced problem; one that pins or couplings forbid is left out."""
    if start is None:
        return None
    original = reduced.original
    if isinstance(start, Solution):
        if start.allocation is None:
            return None
        start = start.choices
    if isinstance(start, Mapping):
        try:
            rows = np.array([original.row(g, start[g]) for g in original.group_names], np.int64)
        except KeyError as error:
            raise UsageError(f"start: there is no {error.args[0]!r} (every group and choice must be named)") from None
        choice = rows - original.indptr[:-1]
    else:
        try:
            choice = np.asarray(start)
            original.evaluate(choice)
        except ValueError as error:
            raise UsageError(f"start: {error}") from None
    return reduced.contract(choice)
