"""Simple problems are simple, hard ones are what they are asked to be."""

from __future__ import annotations

import numpy as np
import pytest

import allocator
from allocator.problem import Problem
from allocator.testing.reference import Reference
from allocator.testing.simple_problems import hard_problem, simple_rows


def test_the_cheapest_choices_keep_the_budget_and_the_dearest_do_not() -> None:
    for seed in range(60):
        rows = simple_rows(seed, ("rank",))
        assert rows == simple_rows(seed, ("rank",))
        reference, count = Reference(rows), len(rows["groups"])
        assert reference.count <= 243
        assert not reference.violations((0,) * count)
        assert reference.violations((2,) * count)
        assert reference.objective((0,) * count) > reference.objective((1,) * count) > 0
        assert not Problem.from_rows(rows).features
        assert all(set(group["stats"]) == {"rank"} for group in rows["groups"])


@pytest.mark.parametrize(
    ("features", "has"),
    [
        (set(), set()),
        ({"several_budgets"}, {"several_budgets"}),
        ({"pairs", "basis"}, {"pairs"}),
        ({"pairs", "several_budgets"}, {"pairs", "several_budgets"}),
    ],
)
def test_hard_problems_have_no_other_features(features: set[str], has: set[str]) -> None:
    problem = hard_problem(0, 30, 5, features, ("rank",))
    assert problem.features == has
    assert (problem.group_count, problem.width, list(problem.stats)) == (30, 5, ["rank"])
    assert np.array_equal(problem.scores["s"], hard_problem(0, 30, 5, features).scores["s"])


def test_the_half_way_budget_binds_and_can_be_kept() -> None:
    problem = hard_problem(1, 12, 4)
    solution = allocator.solve(problem, "exact")
    assert solution.status == "optimal"
    assert not problem.evaluate(np.full(12, 3)).feasible
    assert problem.evaluate(np.zeros(12, np.int64)).feasible
