"""One run of a comparison: a backend on a problem at a budget, in this process or in one of its own, as a row."""

from __future__ import annotations

import base64
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np

from allocator.comparison_rows import Row
from allocator.errors import AllocatorError, SolverError, UsageError
from allocator.evaluation import scale_of
from allocator.formats.digest import content_sha256
from allocator.isolation import THREAD_VARIABLES
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.protocols import Limits, Solver
from allocator.runs import START, Ended, run_process
from allocator.solution import Solution
from allocator.statement import Number

GRACE = 10.0  # seconds beyond twice its time limit, the core's check included, until a run's process is killed


@dataclass(frozen=True)
class RunLimits:
    """What holds for one run. memory: bytes resident."""

    time: float | None
    seed: int
    threads: int | None
    isolate: bool
    memory: int | None

    def __post_init__(self) -> None:
        Limits(time=self.time, seed=self.seed, threads=self.threads)  # refuses what cannot be meant
        if self.memory is not None and self.memory <= 0:
            raise UsageError(f"memory limit {self.memory}: give bytes above 0, or none")

    @property
    def arguments(self) -> dict[str, Any]:
        """Of `solve`."""
        return {"time_limit": self.time, "seed": self.seed, "threads": self.threads}


class Cell:
    """One problem at one budget."""

    def __init__(self, name: str, problem: Problem, budget: str | Number | None) -> None:
        self.name = name
        self.problem = problem
        rows = ", ".join(f"{b.name} {_limits(b)}" for b in problem.budgets)
        self.budget = rows if budget is None else str(budget)
        self.sha256 = content_sha256(problem)
        self.scale = scale_of(problem)
        self._pickled: bytes | None = None

    @property
    def pickled(self) -> bytes:
        """For the processes of its runs; made once."""
        if self._pickled is None:
            self._pickled = pickle.dumps(self.problem, protocol=5)
        return self._pickled

    def row(self, text: str, backend: Solver, limits: RunLimits) -> Row:
        """A row that knows what is asked, and nothing of the answer."""
        return Row(
            problem=self.name, budget=self.budget, solver=text, status="error", claim=None, objective=None, loss=None,
            proven_bound=None, claimed_bound=None, gap=None, regret=None, seconds=0.0, limit=None, totals={}, wrong=(),
            error=None, seed=limits.seed, sha256=self.sha256, options=repr(backend), version=_version(backend),
            time_limit=limits.time, memory_limit=limits.memory, threads=limits.threads, isolated=limits.isolate,
            scale=self.scale,
        )  # fmt: skip


def in_process(
    cell: Cell, backend: Solver, limits: RunLimits, empty: Row, tick: Callable[[], None]
) -> tuple[Row, Solution | None]:
    """Solve here; the row `empty` with what came out, and the solution."""
    started, cpu = time.perf_counter(), time.process_time()
    try:
        s = solve(cell.problem, backend, **limits.arguments)
    except AllocatorError as error:
        outcome: Any = "crashed" if isinstance(error, SolverError) else "refused"
        seconds, spent = time.perf_counter() - started, time.process_time() - cpu
        return replace(empty, outcome=outcome, seconds=seconds, cpu_s=spent, error=str(error)), None
    return replace(
        empty,
        status=s.status,
        claim=s.claim,
        objective=s.objective,
        loss=s.loss,
        proven_bound=s.proven_bound,
        claimed_bound=s.claimed_bound,
        gap=s.gap,
        seconds=float(s.run["wall_s"]),
        cpu_s=None if backend.isolate else float(s.run["cpu_s"]),
        limit=s.limit,
        totals=dict(s.totals),
        reasons=s.reasons,
    ), s


def in_own_process(
    cell: Cell, backend: Solver, limits: RunLimits, empty: Row, tick: Callable[[], None]
) -> tuple[Row, None]:
    """Solve in a fresh process under the limits; the row `empty` with what came out."""
    if type(backend).__module__ == "__main__":
        error = f"solver {backend.name!r} is defined in the script itself, where no other process finds it"
        return replace(
            empty, outcome="refused", error=f"{error}; move the class into a module, or compare in-process"
        ), None
    try:
        solver = pickle.dumps(backend, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        reason = f"solver {backend.name!r} cannot be sent to another process: {error}; compare in-process"
        return replace(empty, outcome="refused", error=reason), None
    threads = {} if limits.threads is None else dict.fromkeys(THREAD_VARIABLES, str(limits.threads))
    ended = run_process(
        "allocator.runs_worker",
        [pickle.dumps(limits.arguments), solver, cell.pickled],
        env=threads,
        seconds=None if limits.time is None else 2 * limits.time + GRACE,
        most_bytes=limits.memory,
        tick=tick,
    )
    return _row_of(cell, empty, ended, limits), None


def _row_of(cell: Cell, empty: Row, ended: Ended, limits: RunLimits) -> Row:
    """What a process said, its allocation evaluated here."""
    said = ended.first("solution")
    peak = max(filter(None, (ended.peak_bytes, (said or {}).get("peak_bytes"))), default=None)
    row = replace(empty, seconds=round(ended.seconds, 6), peak_bytes=peak)
    if said is None:
        return replace(row, **_failure(ended, limits))
    objective, loss, totals, reasons = said["objective"], said["loss"], {}, tuple(said["reasons"])
    status, claim = said["status"], said["claim"]
    if said["choice"] is not None:
        taken = np.frombuffer(base64.b64decode(said["choice"]), np.int32)
        outcome = cell.problem.evaluate(taken)
        if (objective, loss) != (outcome.objective, outcome.loss):
            reasons += (f"the backend's process reports an objective of {objective!r}, not {outcome.objective!r}",)
        objective, loss, totals = outcome.objective, outcome.loss, dict(outcome.totals)
        if outcome.violations:
            reasons += tuple(f"the backend's allocation is not feasible: {v}" for v in outcome.violations[:20])
            objective, loss, totals, status = None, None, {}, "unknown"
    return replace(
        row,
        status=status,
        claim=claim,
        objective=objective,
        loss=loss,
        totals=totals,
        reasons=reasons,
        **{key: said[key] for key in ("proven_bound", "claimed_bound", "gap", "limit", "seconds", "cpu_s")},
    )


def _failure(ended: Ended, limits: RunLimits) -> dict[str, Any]:
    """outcome and error of a process that has no solution to tell."""
    for outcome in ("refused", "crashed"):
        if (found := ended.first(outcome)) is not None:
            return {"outcome": outcome, "error": found["reason"]}
    if ended.killed is None:
        return {"outcome": "crashed", "error": ended.error or "its process ended without a word"}
    held, most = ((size or 0) / 2**20 for size in (ended.peak_bytes, limits.memory))
    reasons = {
        "start": f"was not ready within {START:g} s",
        "time": f"had not ended after {ended.seconds:.0f} s, twice its time limit and {GRACE:g} s",
        "memory": f"held {held:.0f} MiB, its limit is {most:.0f} MiB",
    }
    return {"outcome": "killed", "error": f"killed: {reasons[ended.killed]}", "limit": ended.killed}


def _version(backend: Solver) -> str:
    """Ours, and the releases of the packages that the backend imports."""
    from allocator import __version__

    found = [__version__]
    for package in sorted({name.partition(".")[0] for name in backend.imports}):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def _limits(budget: Any) -> str:
    return " ".join(f"{side} {v}" for side, v in (("max", budget.max), ("min", budget.min)) if v is not None)
