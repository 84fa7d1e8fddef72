"""One call of `allocator.solve` under a clock, with the course of its incumbents."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import allocator
from allocator import Problem
from allocator.comparison import solver_from_text
from benchmarks.interactions.pieces import Finding
from benchmarks.solvers.clock import CLOCK, Clock, Clocked, cpu_seconds

SAME = 1e-9
"""Of the objective: allocations as near as that are the same one, but for the order of sums."""


def solved(problem: Problem, text: str, *, limit: float | None = None, seed: int = 0) -> Finding:
    """One backend, "name" or "name[option=value]"; imports come before the clock, nothing else does.

    ``whole``: CPU seconds of `allocator.solve`, with the core's check and the worker process where there is one.
    ``call``: of the backend alone. ``library``: of the MIP library inside it. ``optimal``: 1 if the core proved it;
    ``claims``: 1 if the backend says so. ``objective``, ``bound`` (proved by the core) and ``claimed``, where there are
    any. ``no_useful_bound``: 1 if the backend says that its bound is worth nothing. ``killed``: 1 if the worker ran
    over its limit and its CPU seconds are lost; the limit stands for them.

    The facts are the course: CPU seconds since the start and the objective of every allocation that was reported.
    """
    solver = solver_from_text(text)
    if solver.isolate:
        from allocator.isolation import warm_up

        warm_up(solver, 1)
    seen: list[tuple[float, NDArray[np.int64]]] = []
    whole = Clock()
    clocked = Clocked(inner=solver).solver
    before = cpu_seconds()
    with whole.running():
        solution = allocator.solve(
            problem,
            clocked,
            time_limit=limit,
            threads=1,
            seed=seed,
            report=lambda choice: seen.append((cpu_seconds() - before, np.array(choice))),
        )
    statistics = solution.run["statistics"]
    clocks = statistics.get(CLOCK)
    values = {"killed": float(clocks is None), "optimal": float(solution.status == "optimal")}
    values["claims"] = float("optimal" in (solution.status, solution.claim))
    values["no_useful_bound"] = float("no useful bound" in str(statistics.get("bound", "")))
    if clocks is None:
        values |= {"whole": limit or 0.0, "call": limit or 0.0}
    else:
        values |= {"whole": whole.cpu + (clocks["call"]["cpu"] if solver.isolate else 0.0)}
        values |= {part: clocks[part]["cpu"] for part in ("call", "library") if part in clocks}
    told = {"objective": solution.objective, "bound": solution.proven_bound, "claimed": solution.claimed_bound}
    values |= {name: value for name, value in told.items() if value is not None}
    course = [] if solver.isolate else [(cpu, problem.evaluate(choice).objective) for cpu, choice in seen]
    return Finding(values=values, facts=[number for point in course for number in point])


def reached(course: list[float], level: float) -> float | None:
    """CPU seconds of the first allocation whose objective is at most a level; None if there is none."""
    return next((cpu for cpu, objective in zip(course[::2], course[1::2], strict=True) if objective <= level), None)


def above(best: float, share: float = SAME) -> float:
    """The level a share above the best, whatever its sign."""
    return best + share * abs(best)
