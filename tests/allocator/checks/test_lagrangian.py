"""The multipliers bound: never above an optimum, and never a proof of infeasibility where something is feasible."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import pytest

from allocator.checks.lagrangian import lower_bound, proves_infeasible, single_row_infeasible
from allocator.errors import UnsupportedError
from allocator.linear import Linear, linearise
from allocator.problem import Problem
from allocator.testing.claims import tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, random_rows
from allocator.testing.reference import Reference

PARTS = LINEAR | {"pnorm_loss", "loss_budgets", "same_choice", "cardinality", "lower_budgets"}
WILD = [math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -5e-324, 1e-310, 1e200, 0.0, -0.0]


def some_prices(rng: Random, linear: Linear, count: int) -> tuple[float, ...]:
    """Sensible, senseless, too few or too many."""
    size = float(np.abs(linear.value).max()) or 1.0

    def one() -> float:
        kind = rng.random()
        if kind < 0.15:
            return rng.choice(WILD)
        return rng.choice([1, -1]) * size * 10.0 ** rng.uniform(-18, 3)

    return tuple(one() for _ in range(max(0, count + rng.choice([0, 0, 0, 0, -1, 1]))))


def separable(rows: dict[str, Any]) -> Linear | None:
    try:
        return linearise(Problem.from_rows(rows))
    except UnsupportedError:
        return None


def test_no_prices_bound_above_the_optimum_or_disprove_what_is_there() -> None:
    rng = Random(0)
    bounds = infeasible = 0
    for seed in range(times(600)):
        rows = random_rows(seed, PARTS, most_allocations=60)
        linear, reference = separable(rows), Reference(rows)
        if linear is None:
            continue
        for _ in range(12):
            prices = some_prices(rng, linear, len(rows["budgets"]))
            bound = lower_bound(linear, prices)
            proved = proves_infeasible(linear, prices)
            if reference.best is None:
                infeasible += proved
                continue
            assert not proved, (seed, prices)
            assert math.isfinite(bound), (seed, prices)
            slip = tolerance(reference)
            assert linear.objective(bound) <= reference.best.objective + slip, (seed, prices)
            bounds += 1
        if reference.best is not None:
            assert single_row_infeasible(linear) is None, seed
    assert bounds > 3000
    assert infeasible > 50


def test_a_single_row_is_hopeless_just_beyond_its_extreme_and_not_at_it() -> None:
    hopeless = 0
    for seed in range(times(200)):
        rows = random_rows(seed, {"pins", "offsets", "signed_costs", "scoped_budgets", "score_budgets"})
        reference = Reference(rows | {"budgets": []})
        for budget in rows["budgets"]:
            uses = [reference.used(places, budget) for places in reference.feasible]
            for side, extreme, sign in (("max", min(uses), -1), ("min", max(uses), 1)):
                whole = isinstance(extreme, int)
                beyond = extreme + sign * (1 if whole else max(1e-11 * abs(extreme), 1e-9 * max(map(abs, uses))))
                what = {key: value for key, value in budget.items() if key not in ("max", "min")}
                at, past = (separable(rows | {"budgets": [what | {side: limit}]}) for limit in (extreme, beyond))
                assert at is not None
                assert past is not None
                assert single_row_infeasible(at) is None, (seed, side)
                if beyond != extreme:
                    assert single_row_infeasible(past) is not None, (seed, side)
                    hopeless += 1
    assert hopeless > 200


def _problem(
    costs: list[list[float]], scores: list[list[float]], budget: dict[str, Any], **parts: Any
) -> dict[str, Any]:
    groups = [
        {
            "name": f"g{g}",
            "choices": [
                {"name": f"c{k}", "cost": {"c": c}, "score": {"s": s}}
                for k, (c, s) in enumerate(zip(cs, ss, strict=True))
            ],
        }
        for g, (cs, ss) in enumerate(zip(costs, scores, strict=True))
    ]
    base = {"format": "allocation-problem", "version": 1, "groups": groups, "budgets": [{"resource": "c"} | budget]}
    return base | parts


@pytest.mark.parametrize("price", [5e-324, 1e-323, 1e-320, 2.5e-310])
def test_minute_prices_prove_nothing_by_vanishing(price: float) -> None:
    """0.6·5e-324 rounds up to 5e-324, 1.4·5e-324 rounds down to it: twice 0.6 seems to pass 1.4."""
    rows = _problem([[0.6], [0.6]], [[0.0], [0.0]], {"max": 1.4})
    linear = separable(rows)
    assert linear is not None
    assert not proves_infeasible(linear, (price,))
    assert lower_bound(linear, (price,)) <= 0.0


@pytest.mark.parametrize("price", [1e308, 1e300, 1e290, -1e308, math.inf, math.nan])
def test_enormous_prices_prove_nothing_by_overflowing(price: float) -> None:
    rows = _problem([[1e10, 3.5], [1e10, 2.0]], [[0.0, 1.0], [0.0, 1.0]], {"max": 1.5e10})
    linear = separable(rows)
    assert linear is not None
    assert not proves_infeasible(linear, (price,))
    assert lower_bound(linear, (price,)) <= 1.0


def test_a_huge_offset_rounds_the_limit_and_not_the_bound() -> None:
    """What the offset hides of the costs is up to 6e-5: the bound must allow for it."""
    rng = Random(1)
    for _ in range(times(300)):
        offset = rng.choice([1e12, -1e12, 1e15, 3e9]) * rng.random()
        costs = [[rng.random() for _ in range(3)] for _ in range(3)]
        scores = [[1e6 * (1 - c) for c in cs] for cs in costs]
        limit = math.fsum([offset, *(rng.choice(cs) for cs in costs)])
        limit = limit / (1 + 1e-12) if limit > 0 else limit * (1 + 1e-12)
        for side, sign in (("max", 1), ("min", -1)):
            rows = _problem(costs, scores, {side: limit}, resources={"c": {"offset": offset}})
            linear, reference = separable(rows), Reference(rows)
            assert linear is not None
            if reference.best is None:
                continue
            assert single_row_infeasible(linear) is None
            for price in (0.0, 1e6, 1e5, 3e6):
                assert lower_bound(linear, (sign * price,)) <= reference.best.objective
                assert not proves_infeasible(linear, (sign * price,))


def test_the_bound_is_the_textbook_one() -> None:
    rows = _problem([[0, 1, 3], [0, 2, 5]], [[9.0, 4.0, 0.0], [7.0, 5.0, 1.0]], {"max": 4})
    linear = separable(rows)
    assert linear is not None
    by_hand = min(9, 4 + 2, 0 + 6) + min(7, 5 + 4, 1 + 10) - 2 * 4
    assert lower_bound(linear, (2.0,)) == pytest.approx(by_hand)
    assert lower_bound(linear, (2.0,)) <= by_hand


def test_multipliers_of_two_rows_prove_that_they_exclude_each_other() -> None:
    rows = _problem([[0, 1], [0, 1]], [[0.0, 0.0], [0.0, 0.0]], {"max": 1})
    rows["budgets"].append({"resource": "c", "min": 2})
    linear = separable(rows)
    assert linear is not None
    assert single_row_infeasible(linear) is None
    assert proves_infeasible(linear, (1.0, -1.0))
    assert not proves_infeasible(linear, (1.0, 1.0))
    assert not proves_infeasible(linear, (-1.0, 1.0))
