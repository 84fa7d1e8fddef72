"""`Problem.evaluate` against the reference, to the last bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.evaluation import loss_size, lower, scale_of, upper
from allocator.problem import Problem
from allocator.testing.depth import times
from allocator.testing.random_problems import random_rows
from allocator.testing.reference import Places, Reference
from allocator.testing.strategies import problem_rows


def check(problem: Problem, reference: Reference, places: Places) -> None:
    outcome = problem.evaluate(np.array(places))
    assert outcome.loss == reference.loss(places)
    assert outcome.totals == reference.totals(places)
    assert outcome.objective == reference.objective(places)
    assert outcome.tie == reference.tie(places)
    assert outcome.used == tuple(reference.used(places, row) for row in reference.rows["budgets"])
    assert len(outcome.violations) == len(reference.violations(places))
    assert outcome.feasible == (not reference.violations(places))


def test_equals_the_reference_on_random_problems() -> None:
    for seed in range(times(500)):
        rows = random_rows(seed)
        problem, reference = Problem.from_rows(rows), Reference(rows)
        for places in list(reference.allocations())[:: max(1, reference.count // 9)]:
            check(problem, reference, places)


@given(problem_rows(most_allocations=30), st.randoms(use_true_random=False))
@settings(max_examples=times(100))
def test_equals_the_reference_under_hypothesis(rows: dict[str, Any], rng: Any) -> None:
    reference = Reference(rows)
    check(Problem.from_rows(rows), reference, tuple(rng.randrange(len(g["choices"])) for g in rows["groups"]))


def test_types_of_totals_follow_the_arithmetic() -> None:
    for seed in range(200):
        rows = random_rows(seed)
        problem = Problem.from_rows(rows)
        totals = problem.evaluate(np.zeros(problem.group_count, np.int64)).totals
        assert {r: type(t) for r, t in totals.items()} == {
            r: int if whole else float for r, whole in Reference(rows).exact.items()
        }


def test_the_scale_is_the_references() -> None:
    for seed in range(times(300)):
        rows = random_rows(seed)
        problem, reference = Problem.from_rows(rows), Reference(rows)
        assert scale_of(problem) == pytest.approx(reference.scale, rel=1e-9, abs=1e-300)
        if problem.loss.aggregate == "sum":
            worst = max(map(abs, map(reference.loss, reference.allocations())))
            if problem.free.all():
                assert worst <= loss_size(problem) * (1 + 1e-12)


@pytest.mark.parametrize(
    "choice",
    [
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
        [0.0] * 6,
        [[0] * 6],
        [0, 0, 0, 0, 0, 4],
        [0, 0, 0, 0, 0, -1],
        [True] * 6,
        ["0"] * 6,
        [2**63] * 6,
        [None] * 6,
        [],
    ],
    ids=str,
)
def test_what_is_no_allocation_is_refused(choice: list[Any], example: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"an allocation is 6 integers|has choices 0 to"):
        Problem.from_rows(example).evaluate(np.array(choice))


def test_a_refusal_names_the_group(example: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"group 'head' has choices 0 to 3, not 7"):
        Problem.from_rows(example).evaluate(np.array([0, 0, 0, 0, 0, 7]))


def test_slack_is_the_room_that_is_left(example: dict[str, Any]) -> None:
    problem = Problem.from_rows(example)
    outcome = problem.evaluate(np.array([1, 1, 0, 1, 1, 2]))
    assert outcome.totals["weight_bytes"] == 99252
    assert outcome.slack[0] == 100000 - 99252
    lower = problem.with_budget("weight_bytes", max=200000, min=99000)
    (row,) = [i for i, b in enumerate(lower.budgets) if b.min is not None]
    assert lower.evaluate(np.array([1, 1, 0, 1, 1, 2])).slack[row] == 252


def test_violations_name_the_thing(example: dict[str, Any]) -> None:
    text = " / ".join(Problem.from_rows(example).evaluate(np.array([3, 3, 0, 0, 1, 3])).violations)
    for part in ("'head' is pinned to 'int8'", "weight_bytes: ", "over the max 100000", "same_choice"):
        assert part in text


@pytest.mark.parametrize("limit", [0.0, 1.0, -1.0, 1e-300, -1e-300, 3.5, -2e12, 10**25])
def test_limits_relax_outwards_and_integers_do_not(limit: float) -> None:
    assert upper(limit, exact=False) >= limit >= lower(limit, exact=False)
    for relaxed in (upper(limit, exact=False), lower(limit, exact=False)):
        assert abs(relaxed - limit) == pytest.approx(1e-12 * abs(limit), rel=1e-3, abs=1e-320)
    assert upper(limit, exact=True) == math.floor(limit)
    assert lower(limit, exact=True) == math.ceil(limit)


def _columns(costs: list[Any], offset: Any, aggregate: str = "sum") -> Problem:
    groups = [
        {"name": f"g{i}", "choices": [{"name": "a", "cost": {"c": c}, "score": {"s": 0.0}}]}
        for i, c in enumerate(costs)
    ]
    return Problem.from_rows(
        {
            "format": "allocation-problem",
            "version": 1,
            "resources": {"c": {"offset": offset, "aggregate": aggregate}},
            "groups": groups,
        }
    )


@pytest.mark.parametrize(
    ("costs", "offset", "exact"),
    [
        ([1, 2], 0, True),
        ([1.0, 2], 3.0, True),
        ([1.5, 2], 0, False),
        ([1, 2], 0.5, False),
        ([1, 2], 2**53 + 1, True),
        ([2**62, 2**61], 0, True),
        ([2**62, 2**62 - 1], 0, True),
        ([2**62, 2**62], 0, False),
        ([2**61, 1], 2**63 - 2**61 - 2, True),
        ([2**61, 1], 2**63 - 2**61 - 1, False),
        ([-(2**62), 2**62], 0, False),
        ([-(2**62), 2**62 - 1], 0, True),
        ([2**70, 1], 0, False),
        ([1e15, 2], 0, True),
    ],
)
@pytest.mark.parametrize("aggregate", ["sum", "max"])
def test_exact_columns_are_those_of_integers_below_2_to_the_63(
    costs: list[Any], offset: Any, exact: bool, aggregate: str
) -> None:
    problem = _columns(costs, offset, aggregate)
    assert problem.exact("c") == exact
    total = problem.evaluate(np.zeros(len(costs), np.int64)).totals["c"]
    whole = max([offset, *costs]) if aggregate == "max" else offset + sum(costs)
    assert total == (int(whole) if exact else float(whole))
