"""How good allocations are, by what the backend promises."""

from __future__ import annotations

from allocator.protocols import Exactness, Solver
from allocator.testing.conformance.bench import Asked, Bench, declined, faults_of, no_failures

SHARE = 5


class Quality(Bench):
    """EXACT is the optimum, BOUNDED an allocation and a bound below the optimum, HEURISTIC an allocation."""

    def test_random_problems_are_solved_as_well_as_promised(self, backend: Solver) -> None:
        """Exact: the optimum wherever something is feasible. All: nothing better than the optimum."""
        asked = self.answers(backend)
        no_failures(faults_of(asked, lambda one: self._quality(one, backend)), len(asked))

    def test_simple_problems_are_solved(self, backend: Solver) -> None:
        """One integer budget that the cheapest choices keep: everyone finds an allocation, a bounded one a bound."""
        asked = [self.ask(backend, self.simple_case(backend, seed)) for seed in range(self.share(SHARE))]
        errors = [f"{one.case.label}: {type(one.error).__name__}: {one.error}" for one in asked if one.error]
        no_failures(errors, len(asked))
        no_failures(faults_of(asked, lambda one: self._easily(one, backend)), len(asked))

    def _easily(self, one: Asked, backend: Solver) -> list[str]:
        if one.solution is None or one.solution.allocation is None:
            return ["nothing was found, yet all cheapest choices are feasible"]
        answer = one.answer
        assert answer is not None
        if backend.exactness is Exactness.BOUNDED and answer.claimed_bound is None and answer.certificate is None:
            return ["a bounded backend gives a bound, or prices that prove one"]
        return self._quality(one, backend)

    def _quality(self, one: Asked, backend: Solver) -> list[str]:
        best = one.case.reference.best
        if best is None or one.solution is None:
            return []
        objective, allowed = one.solution.objective, self.allowance(one.case.reference)
        exact = backend.exactness is Exactness.EXACT
        if objective is None:
            return ["found nothing, yet something is feasible"] if exact and not declined(one) else []
        if objective < best.objective - allowed:
            return [f"objective {objective!r} below the optimum {best.objective!r}"]
        if exact and objective > best.objective + allowed:
            return [f"objective {objective!r}, the optimum is {best.objective!r}"]
        return []
