"""What a backend does not take is refused by name, with a way out."""

from __future__ import annotations

import re
from typing import Any

import pytest

from allocator.errors import UnsupportedError, UsageError
from allocator.features import ALL
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.protocols import Solver
from allocator.reduce import reduce
from allocator.testing.claims import false_claims
from allocator.testing.conformance.bench import Bench, Case
from allocator.testing.random_problems import random_rows
from allocator.testing.simple_problems import simple_rows

HELPERS = frozenset({"lower_budgets", "resource_objective"})  # without one of them max_resource does not occur
DRAWS = 400


class Refusals(Bench):
    """No feature is passed over in silence, and no number that is missing is made up."""

    def test_undeclared_features_are_refused_by_name(self, backend: Solver) -> None:
        """Each in turn; the message says what to use instead."""
        for feature in sorted(ALL - backend.features):
            problem = _with(feature)
            missing = problem.features - backend.features
            with pytest.raises(UnsupportedError) as caught:
                solve(problem, backend)
            text = str(caught.value)
            assert all(name in text for name in missing), f"{text!r} does not name {sorted(missing)}"
            assert re.search(r"\b(use|take|try|give)\b", text), f"{text!r} does not say what to do instead"

    def test_missing_stats_are_refused_by_name(self, backend: Solver) -> None:
        """Per-layer numbers that it needs; a backend that can do without them answers as truthfully as ever."""
        rows = simple_rows(0)
        case = Case.of("simple_rows(0), without stats", self.prepared(rows) if not backend.stats else rows)
        refusal = None
        try:
            solution = solve(case.problem, backend, threads=1)
            assert not false_claims(case.reference, solution), solution
        except (UnsupportedError, UsageError) as error:
            refusal = str(error)
        if refusal is not None:
            assert backend.stats, f"a simple problem is refused: {refusal}"
            named = [name for name in backend.stats if name in refusal]
            assert named, f"{refusal!r} names none of the stats {backend.stats}"


def _with(feature: str) -> Problem:
    """A random problem whose reduced form has the feature, and little else."""
    for seed in range(DRAWS):
        rows: dict[str, Any] = random_rows(seed, HELPERS | {feature} if feature == "max_resource" else {feature})
        problem = reduce(Problem.from_rows(rows)).problem
        if problem is not None and feature in problem.features:
            return problem
    return _overlapping_labels()


def _overlapping_labels() -> Problem:
    """same_choice under a largest loss: the one that no reduction takes away."""
    for seed in range(DRAWS):
        problem = reduce(Problem.from_rows(random_rows(seed, {"same_choice", "max_loss"}))).problem
        if problem is not None and "same_choice" in problem.features:
            return problem
    raise AssertionError("no random problem keeps a same_choice")
