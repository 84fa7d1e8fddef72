"""The same problem in another guise: what has to follow for the answer does."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from allocator.protocols import Exactness, Solver
from allocator.testing import transformations as t
from allocator.testing.claims import false_claims, tolerance
from allocator.testing.conformance.bench import Asked, Bench, Case, declined, no_failures
from allocator.testing.random_problems import DETAILS, MASKS, PARTS

SHARE = 5  # one problem in so many, for each transformation
PLAIN = MASKS | DETAILS - {"negative_weights"}


class Guises(Bench):
    """An exact backend finds the optimum that follows; any other gives an allocation that is still true in all it says.

    The optimum expected is that of the problem before it was transformed.
    """

    def test_order_does_not_matter(self, backend: Solver) -> None:
        """Groups and choices permuted."""
        self._try(backend, t.permuted)

    def test_the_size_of_losses_does_not_matter(self, backend: Solver) -> None:
        """All losses times 2^30, or 2^−40."""
        self._try(backend, lambda rows, rng: t.losses_scaled(rows, rng.choice([30, -40])))

    def test_the_unit_of_costs_does_not_matter(self, backend: Solver) -> None:
        """Integer costs and their limits times 3, or 1000."""
        self._try(backend, lambda rows, rng: t.costs_scaled(rows, rng.choice([3, 1000])))

    def test_a_dominated_choice_changes_nothing(self, backend: Solver) -> None:
        """One more choice that costs and loses no less than another of its group."""
        self._try(backend, t.dominated_added, t.ONE_WAY | PLAIN)

    def test_a_constant_only_shifts_the_objective(self, backend: Solver) -> None:
        """The same number added to all losses of a group."""
        self._try(backend, t.constant_added, t.ADDS_UP | PLAIN)

    def test_a_larger_budget_is_never_worse(self, backend: Solver) -> None:
        """Every limit moved out."""
        self._try(backend, t.budgets_loosened)

    def _try(
        self, backend: Solver, transform: Callable[[Any, Random], t.Transformed], parts: frozenset[str] = PARTS
    ) -> None:
        faults, count = [], 0
        for case in self.cases(backend, self.share(SHARE), parts):
            made = transform(case.rows, Random(count))
            count += 1
            other = Case.of(case.label + ", transformed", self.prepared(made.rows))
            asked = self.ask(backend, other)
            faults += [f"{other.label}: {fault}" for fault in self._faults(case, made, asked, backend)]
        no_failures(faults, count)

    def _faults(self, case: Case, made: t.Transformed, asked: Asked, backend: Solver) -> list[str]:
        if asked.error is not None and not declined(asked):
            return [f"{type(asked.error).__name__}: {asked.error}"]
        if asked.solution is None:
            return []
        found = false_claims(asked.case.reference, asked.solution)
        best = case.reference.best
        if best is None or backend.exactness is not Exactness.EXACT:
            return found
        objective, expected = asked.solution.objective, made.expected(best.objective)
        slip = max(1.0, made.factor) * tolerance(case.reference) + self.allowance(asked.case.reference)
        if objective is None:
            return [*found, f"found nothing, yet {expected!r} can be had"]
        if objective > expected + slip or (objective < expected - slip and not made.at_most):
            found.append(f"objective {objective!r}, yet {expected!r} follows from the other guise")
        return found
