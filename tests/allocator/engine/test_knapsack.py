"""The normal form: exact rows as they are, float rows in integers with a margin that holds what rounding may do."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from allocator.engine.knapsack import Knapsack, knapsack_of, to_integers
from allocator.linear import Linear, Row, linearise
from allocator.problem import Problem
from allocator.testing.depth import times


def problem_of(sizes):
    groups = [
        {"name": f"g{g}", "choices": [{"name": f"c{k}", "cost": {"r": 1}, "score": {"s": 0.0}} for k in range(n)]}
        for g, n in enumerate(sizes)
    ]
    return Problem.from_rows({"format": "allocation-problem", "version": 1, "groups": groups})


def float_row(rng):
    """A problem under one float row that is drawn to hurt: signs, far magnitudes, dyadics, limits hit exactly."""
    problem = problem_of(rng.integers(1, 5, rng.integers(1, 6)))
    n = problem.choice_count
    kind = rng.integers(7)
    column = [
        rng.normal(size=n), rng.random(n) * 10.0 ** rng.integers(-12, 12, n), rng.integers(-9, 9, n) / 8,
        rng.integers(-90, 90, n) / 10, rng.choice([0.0, 1e-9, 1.0, -1.0], n), rng.normal(size=n) * 1e-300,
        rng.choice([-1.0, 1.0], n) * 2.0 ** rng.integers(-20, 20, n) * (1 + rng.integers(0, 2**52, n) * 2.0**-52),
    ][kind]  # fmt: skip
    free = rng.random(n) < 0.8
    free[problem.indptr[:-1]] = True
    taken = [s + rng.choice(np.flatnonzero(free[s:e])) for s, e in itertools.pairwise(problem.indptr.tolist())]
    hit = math.fsum(column[taken].tolist())
    limit = [hit, math.nextafter(hit, -math.inf), 0.0, hit + float(rng.normal()) * abs(hit) * 1e-12, hit / 2][
        rng.integers(5)
    ]
    lo, hi = (limit, None) if rng.random() < 0.4 else (None, limit)
    return Linear(problem, rng.normal(size=n), 0.0, (Row(0, column, lo, hi, False),), free)


def allocations(linear):
    spans = itertools.pairwise(linear.problem.indptr.tolist())
    return itertools.product(*([r for r in range(s, e) if linear.free[r]] for s, e in spans))


def keeps(row: Row, rows) -> bool:
    """In exact arithmetic."""
    used = sum((Fraction(float(row.column[r])) for r in rows), Fraction(0))
    return (row.hi is None or used <= Fraction(row.hi)) and (row.lo is None or used >= Fraction(row.lo))


def test_within_the_capacity_the_row_is_kept_and_near_it_nothing_is_lost():
    seen = {"margin": 0, "exact": 0}
    for seed in range(times(900)):
        linear = float_row(np.random.default_rng(seed))
        knapsack = knapsack_of(linear)
        row = linear.rows[0]
        seen["margin" if knapsack.margin else "exact"] += 1
        assert knapsack.sign == (1 if row.hi is not None else -1)
        assert np.maximum.reduceat(np.abs(knapsack.cost), knapsack.indptr[:-1]).sum() < 2**61
        for rows in allocations(linear):
            used = sum(knapsack.cost[list(rows)].tolist())
            if used <= knapsack.capacity:
                assert keeps(row, rows), (seed, rows)
            if keeps(row, rows):
                assert used <= knapsack.capacity + 2 * knapsack.margin, (seed, rows)
    assert min(seen.values()) > times(60)


def test_exact_rows_stay_as_they_are():
    problem = problem_of([2, 3])
    column = np.array([3, -4, 5, 6, 2**60])
    for sign, lo, hi in ((1, None, 7), (-1, 7, None)):
        linear = Linear(problem, np.zeros(5), 0.0, (Row(0, column, lo, hi, True),), np.ones(5, bool))
        knapsack = knapsack_of(linear)
        assert knapsack.cost.tolist() == (sign * column).tolist()
        assert (knapsack.capacity, knapsack.margin, knapsack.power) == (sign * 7, 0, 0)
        assert knapsack.price(2.0) == sign * 2.0


def test_without_a_row_everything_keeps_the_capacity():
    problem = problem_of([2, 2])
    knapsack = knapsack_of(Linear(problem, np.zeros(4), 0.0, (), np.ones(4, bool)))
    assert not knapsack.cost.any()
    assert knapsack.capacity == 0
    assert knapsack.free is None


def test_two_sides_have_no_normal_form():
    problem = problem_of([2])
    row = Row(0, np.array([1, 2]), 0, 5, True)
    with pytest.raises(ValueError, match="two sides"):
        knapsack_of(Linear(problem, np.zeros(2), 0.0, (row,), np.ones(2, bool)))


def test_a_choice_that_alone_breaks_the_limit_does_not_coarsen_the_rest():
    problem = problem_of([3, 2])
    column = np.array([0.0, 1e-6, 1e12, 0.0, 3e-6])
    linear = Linear(problem, np.zeros(5), 0.0, (Row(0, column, None, 3.5e-6, False),), np.ones(5, bool))
    knapsack = knapsack_of(linear)
    assert knapsack.cost[1] > 2**50
    assert knapsack.cost[2] > knapsack.capacity


def test_minute_costs_have_finite_prices():
    problem = Problem.from_arrays(-np.array([[0.0, 1e200]]), {"r": np.array([[0.0, 1e-310]])}, budgets={"r": 1e-310})
    knapsack = knapsack_of(linearise(problem))
    assert knapsack.power > 1000
    assert math.isfinite(knapsack.price(1e200))


def test_a_column_in_integers():
    rng = np.random.default_rng(0)
    for scale in (1e-300, 1e-12, 1.0, 1e12, 1e290):
        column, indptr = rng.normal(size=12) * scale, np.array([0, 3, 7, 12])
        whole, power, rounded = to_integers(column, indptr)
        assert rounded == any(
            Fraction(x) * Fraction(2) ** power != i for x, i in zip(column.tolist(), whole.tolist(), strict=True)
        )
        assert sum(np.maximum.reduceat(np.abs(whole), indptr[:-1]).tolist()) < 2**61
        for x, i in zip(column.tolist(), whole.tolist(), strict=True):
            assert abs(Fraction(x) * Fraction(2) ** power - i) <= Fraction(1, 2)
    whole, power, rounded = to_integers(np.zeros(12), indptr)
    assert not whole.any()
    assert not rounded


def test_the_sign_of_a_price():
    assert Knapsack(np.zeros(1), np.zeros(1, np.int64), np.array([0, 1]), None, 0, power=3, sign=-1).price(0.5) == -4.0
