"""Limits mean the same for every backend: time, gap, seed, threads, reports and a start."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from allocator.errors import UnsupportedError, UsageError
from allocator.isolation import warm_up
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.protocols import Exactness, Solver
from allocator.solution import Solution
from allocator.testing.claims import false_claims, tolerance
from allocator.testing.conformance.bench import Asked, Bench, Case, declined, no_failures

LIMIT = 0.2
AT_MOST = 1.0
SHARE = 6
GAP = 0.3


class LimitsKept(Bench):
    """A limit is kept, or refused by name."""

    @pytest.mark.serial
    def test_a_time_limit_is_kept(self, backend: Solver) -> None:
        """0.2 s, counted from a ready worker, return within 1 s; what is returned then is checked as always."""
        if backend.isolate:
            warm_up(backend, 1)
        solve(self.simple_case(backend, 0).problem, backend, threads=1)  # imports and compiled code stay out of it
        refusals = []
        for problem in self.hard_problems(backend):
            begun = time.monotonic()
            try:
                solution = solve(problem, backend, time_limit=LIMIT, threads=1)
            except UnsupportedError as error:
                refusals.append(str(error))
                continue
            took = time.monotonic() - begun
            assert took < AT_MOST, f"{backend!r} took {took:.2f} s of {problem} under a limit of {LIMIT} s"
            self._sound(problem, solution)
            return
        pytest.fail(f"{backend!r} refuses all hard problems; override `hard_problems`:\n" + "\n".join(refusals))

    def test_a_gap_is_kept(self, backend: Solver) -> None:
        """An exact backend may stop at gap·|objective| above the optimum; claims stay true for all."""
        faults = []
        for case in self.cases(backend, self.share(SHARE)):
            asked = self.ask(backend, case, gap=GAP)
            faults += [f"{case.label}: {fault}" for fault in self._within(asked, backend)]
        no_failures(faults, self.share(SHARE))

    def test_seed_and_threads_are_taken(self, backend: Solver) -> None:
        """Any seed; one thread; more of them too, or a refusal that names them."""
        case = self.simple_case(backend, 1)
        for seed in (1, 2**31 - 1):
            assert not false_claims(case.reference, solve(case.problem, backend, seed=seed, threads=1))
        refusal = "threads"
        try:
            assert not false_claims(case.reference, solve(case.problem, backend, threads=2))
        except UsageError as error:
            refusal = str(error)
        assert "thread" in refusal, f"a refusal of threads=2 must name threads: {refusal}"

    def test_reports_are_feasible_and_never_better_than_the_answer(self, backend: Solver) -> None:
        """`report` is called with allocations [G] of the stated problem; the best of them is not lost."""
        faults = []
        for case in self.cases(backend, self.share(SHARE)):
            faults += [f"{case.label}: {fault}" for fault in _reports(backend, case)]
        no_failures(faults, self.share(SHARE))

    def test_a_start_is_taken(self, backend: Solver) -> None:
        """Feasible, infeasible or the optimum itself: a start does no harm."""
        faults = []
        exact = backend.exactness is Exactness.EXACT
        for i, case in enumerate(self.cases(backend, self.share(SHARE))):
            best = case.reference.best
            places = best.places if best is not None and i % 2 else next(case.reference.allocations())
            try:
                solution = solve(case.problem, backend, start=places, threads=1)
            except UnsupportedError:
                continue
            faults += [f"{case.label}, start {places}: {fault}" for fault in false_claims(case.reference, solution)]
            allowed = self.allowance(case.reference)
            if exact and best is not None and not _close(solution.objective, best.objective, allowed):
                faults.append(f"{case.label}, start {places}: {solution.objective!r}, optimum {best.objective!r}")
        no_failures(faults, self.share(SHARE))

    def _within(self, asked: Asked, backend: Solver) -> list[str]:
        if asked.solution is None:
            return [] if declined(asked) else [f"{type(asked.error).__name__}: {asked.error}"]
        found = false_claims(asked.case.reference, asked.solution)
        best, objective = asked.case.reference.best, asked.solution.objective
        if best is None or backend.exactness is not Exactness.EXACT:
            return found
        allowed = self.allowance(asked.case.reference)
        if objective is None:
            return [*found, "found nothing, yet something is feasible"]
        if objective > best.objective + GAP * abs(objective) + allowed:
            found.append(f"objective {objective!r} is further than {GAP:.0%} above {best.objective!r}")
        if asked.solution.claim == "optimal" and objective > best.objective + allowed:
            found.append(f"stops at a gap and claims an optimum: {objective!r}, in truth {best.objective!r}")
        return found

    @staticmethod
    def _sound(problem: Problem, solution: Solution) -> None:
        if solution.allocation is None:
            assert solution.status == "unknown", f"{solution} of a problem that is feasible"
            assert solution.claim is None, f"{solution} of a problem that is feasible"
            assert not solution.reasons, f"the answer was no allocation: {solution.reasons}"
        else:
            assert problem.evaluate(solution.allocation.choice).feasible


def _reports(backend: Solver, case: Case) -> list[str]:
    found: list[str] = []
    least = float("inf")

    def look(choice: NDArray[np.int64]) -> None:
        nonlocal least
        places: Any = tuple(choice.tolist())
        if broken := case.reference.violations(places):
            found.append(f"reports {places}, which is not feasible: {', '.join(broken)}")
        else:
            least = min(least, case.reference.objective(places))

    try:
        solution = solve(case.problem, backend, report=look, threads=1)
    except UnsupportedError:
        return found
    if solution.objective is None and least < float("inf"):
        found.append("returns nothing after a feasible report")
    elif solution.objective is not None and solution.objective > least + tolerance(case.reference):
        found.append(f"returns {solution.objective!r} after it reported {least!r}")
    return found


def _close(objective: float | None, best: float, allowed: float) -> bool:
    return objective is not None and objective <= best + allowed
