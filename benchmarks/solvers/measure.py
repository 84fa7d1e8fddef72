"""The measuring process: builds one case, makes first calls on it, then warm ones; one JSON line per finding.

Each line goes out as soon as it is known, so a process that is killed at its limit has still said what it had.
Tasks: "backend" calls the backend alone first, "whole" calls `allocator.solve` first, "memory" reads the extra
memory of both, "frontier" makes the whole frontier. Warm calls get a fresh `Problem` on the same columns: the
code is warm, nothing about the problem is remembered.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import allocator
from allocator import Problem, Solution, pipeline
from allocator.comparison import solver_from_text
from allocator.engine import native
from allocator.errors import AllocatorError, UnsupportedError
from allocator.protocols import Limits, Solver
from allocator.reduce import reduce
from benchmarks.solvers.clock import CLOCK, Clock, Clocked, Peak, clocks_of, under
from benchmarks.solvers.instances import find

WARM = 5


@dataclass(frozen=True, kw_only=True)
class Job:
    """One process's work. repeat_s: seconds that warm calls may take in all; solver: name, or name[option=value]."""

    task: str
    case: str
    solver: str
    time_limit: float
    repeat_s: float


def main() -> None:
    """Do the job of argv[1] (JSON)."""
    job = Job(**json.loads(sys.argv[1]))
    try:
        problem = find(job.case).build()
        solver = None if job.task == "frontier" else solver_from_text(job.solver)
        say(
            "built",
            choices=problem.choice_count,
            input_bytes=sum(a.nbytes for a in (problem.indptr, *problem.scores.values(), *problem.costs.values())),
            engine="numpy" if native() is None else "C",
        )
        if solver is None:
            repeat(job, lambda p: _frontier(p), problem)
        else:
            _solver_task(job, solver, problem)
    except UnsupportedError as error:
        say("declined", reason=str(error))
    except AllocatorError as error:
        say("failed", reason=str(error))


def say(event: str, **what: Any) -> None:
    """One finding for the parent."""
    print(json.dumps({"event": event, **what}), flush=True)


def repeat(job: Job, call: Any, problem: Problem) -> None:
    """First, second and five further calls, as far as the time for repeats goes; each one's clocks are said."""
    spent = 0.0
    for i in range(2 + WARM):
        started = time.perf_counter()
        found = call(problem)
        taken = time.perf_counter() - started
        say(("first", "second")[i] if i < 2 else "warm", **found)
        spent += taken
        if spent + taken > job.repeat_s:
            return
        problem = problem.replace()


def _solver_task(job: Job, solver: Solver, problem: Problem) -> None:
    if solver.isolate:
        from allocator.isolation import warm_up

        warm_up(solver, 1)
    if job.task == "backend":
        repeat(job, lambda p: _backend(job, solver, p), problem)
    elif job.task == "whole":
        repeat(job, lambda p: _whole(job, solver, p), problem)
    else:
        peak = Peak()
        clocked = Clocked(inner=solver, memory=True).solver
        solution = allocator.solve(problem, clocked, time_limit=job.time_limit, threads=1)
        clocks = solution.run["statistics"].get(CLOCK, {})
        say("memory", extra_bytes=clocks.get("extra_bytes"), whole_extra_bytes=peak.extra())


def _backend(job: Job, solver: Solver, problem: Problem) -> dict[str, Any]:
    """The backend's call on the reduced problem, as `allocator.solve` would make it."""
    reduced = reduce(problem).problem
    assert reduced is not None, "every case has an allocation"
    missing = reduced.features - solver.features
    if missing:
        raise UnsupportedError(f"{solver.name} does not take {', '.join(sorted(missing))}")
    limits = Limits(time=job.time_limit, threads=1)
    answer = pipeline.run_backend(Clocked(inner=solver).solver, reduced, limits)
    return {k: v for k, v in clocks_of(answer).items() if k != "extra_bytes"}


def _whole(job: Job, solver: Solver, problem: Problem) -> dict[str, Any]:
    """`allocator.solve`, the check inside it, and what the core adds to backend and check."""
    whole, check = Clock(), Clock()
    clocked = Clocked(inner=solver).solver
    with clocked_check(check), whole.running():
        solution = allocator.solve(problem, clocked, time_limit=job.time_limit, threads=1)
    clocks: dict[str, Any] | None = solution.run["statistics"].get(CLOCK)
    found: dict[str, Any] = {"check": check.to_json(), "solution": summary(solution, clocks is None)}
    if clocks is None:  # the worker was killed at its limit, and its CPU seconds with it
        unknown = {"cpu": None, "wall": job.time_limit}
        return found | {"call": unknown, "whole": unknown}
    elsewhere = clocks["call"]["cpu"] if solver.isolate else 0.0
    spent = {"cpu": whole.cpu + elsewhere, "wall": whole.wall}
    left = {k: spent[k] - clocks["call"][k] - found["check"][k] for k in ("cpu", "wall")}
    return found | clocks | {"whole": spent, "overhead": left}


def summary(solution: Solution, killed: bool) -> dict[str, Any]:
    """What was proved and claimed."""
    kept = ("status", "claim", "objective", "proven_bound", "claimed_bound", "gap", "limit")
    found = {name: getattr(solution, name) for name in kept}
    kind = None if solution.certificate is None else solution.certificate["kind"]
    return found | {"certificate": kind, "reasons": list(solution.reasons), "killed": killed}


def _frontier(problem: Problem) -> dict[str, Any]:
    clock = Clock()
    with clock.running():
        made = allocator.frontier(problem, next(iter(problem.costs)))
    return {"whole": clock.to_json(), "points": len(made)}


@contextlib.contextmanager
def clocked_check(clock: Clock) -> Iterator[None]:
    """Run the core's check of an answer under a clock of its own."""
    place: Any = pipeline
    original = place.verify
    place.verify = under(clock, original)
    try:
        yield
    finally:
        place.verify = original


if __name__ == "__main__":
    main()
