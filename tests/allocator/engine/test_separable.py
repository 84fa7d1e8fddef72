"""One row of any kind: the optimum, what is said of it, and limits that lie within rounding."""

from __future__ import annotations

import dataclasses
import itertools
import math
from functools import partial

import numpy as np
import pytest

import allocator
from allocator.certificate import Core
from allocator.engine import separable
from allocator.engine.separable import solve_separable
from allocator.evaluation import upper
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, random_rows
from allocator.testing.reference import Reference


def one_sided(seed):
    """A random separable problem with one budget that has one side."""
    rows = random_rows(seed, LINEAR - {"several_budgets"})
    rows["budgets"] = rows["budgets"][:1]
    for budget in rows["budgets"]:
        if "min" in budget and "max" in budget:
            del budget["min" if seed % 2 else "max"]
    return rows


def problem_of(costs, scores, **limit):
    groups = [
        {"name": f"g{g}", "choices": [{"name": f"c{k}", "cost": {"r": c}, "score": {"s": s}} for k, (c, s) in pairs]}
        for g, pairs in enumerate(enumerate(zip(*both, strict=True)) for both in zip(costs, scores, strict=True))
    ]
    return Problem.from_rows(
        {"format": "allocation-problem", "version": 1, "groups": groups, "budgets": [{"resource": "r", **limit}]}
    )


def solve(problem, **options):
    linear = linearise(problem)
    return linear, solve_separable(linear, **{"tolerance": 0.0, "seconds": lambda: math.inf, **options})


def test_every_kind_of_row(engine):
    seen = {"optimal": 0, "infeasible": 0}
    for seed in range(times(400)):
        rows = one_sided(seed)
        reference, problem = Reference(rows), Problem.from_rows(rows)
        linear = linearise(problem)
        size = np.where(linear.free, np.abs(linear.value), 0.0)
        close = 2.5e-13 * float(np.maximum.reduceat(size, problem.indptr[:-1]).sum())
        found = solve_separable(linear, tolerance=close, seconds=lambda: math.inf)
        if reference.best is None:
            assert found.infeasible, seed
            assert found.rows is None
            assert found.proved
            seen["infeasible"] += 1
            continue
        seen["optimal"] += 1
        slip = 1e-12 * reference.scale + reference.noise
        assert found.proved, seed
        assert not found.infeasible
        places = tuple((found.rows - problem.indptr[:-1]).tolist())
        assert not reference.violations(places), seed
        assert reference.objective(places) <= reference.best.objective + slip, seed
        assert linear.objective(found.bound) <= reference.best.objective + slip, seed
        assert found.bound == found.total
        assert isinstance(found.certificate, Core)
        for price, budget in zip(found.prices, rows["budgets"], strict=False):
            assert price >= 0 if "max" in budget else price <= 0
    assert min(seen.values()) > times(30)


def spans(problem):
    return itertools.pairwise(problem.indptr.tolist())


@pytest.mark.parametrize("limit", [7.5, 0.1, 1 / 3, 1e-5, 123.456, -7.5, -0.1])
@pytest.mark.parametrize("steps", range(6))
def test_float_limits_are_hit_to_the_last_bit(engine, limit, steps):
    use = upper(limit, False)
    for _ in range(steps):
        use = math.nextafter(use, math.inf)
    problem = problem_of([[use, use - 1]], [[-1.0, 0.0]], max=limit)
    _, found = solve(problem)
    assert found.proved or found.limit == "rounding"
    assert found.rows.tolist() == ([0] if steps == 0 else [1])
    assert allocator.solve(problem, solver="exact").status == "optimal"


def test_negative_costs_reach_a_limit_exactly(engine):
    """limit − Σ least has more digits than a float."""
    problem = problem_of([[-(2.0**30), 0.0], [2.0**-23, 2.0**30]], [[0.0, -1.0], [0.0, -2.0]], max=2.0**-23)
    _, found = solve(problem)
    assert found.rows.tolist() == [0, 3]


def test_sums_that_no_float_holds(engine):
    rng = np.random.default_rng(0)
    for seed in range(times(200)):
        rng = np.random.default_rng(seed)
        costs = (rng.integers(-900, 900, (3, 4)) / 10.0).tolist()
        scores = rng.integers(-5, 5, (3, 4)).astype(float).tolist()
        limit = math.fsum(row[rng.integers(4)] for row in costs) * [1, 1 - 1e-12, 1 + 1e-12][seed % 3]
        problem = problem_of(costs, scores, **{"max" if seed % 2 else "min": limit})
        _, found = solve(problem)
        best = None
        for rows in itertools.product(*(range(s, e) for s, e in spans(problem))):
            outcome = problem.evaluate(np.array(rows) - problem.indptr[:-1])
            if not outcome.violations and (best is None or outcome.objective < best):
                best = outcome.objective
        if best is None:
            assert found.rows is None, seed
        else:
            assert found.limit != "rounding", seed
            assert found.total == best, seed


def test_no_row_and_no_free_choice(engine):
    problem = Problem.from_arrays(np.array([[3.0, 1.0], [2.0, 5.0]]), {"r": np.array([[1, 2], [3, 4]])})
    linear, found = solve(problem)
    assert found.rows.tolist() == [1, 2]
    assert (found.total, found.bound, found.prices) == (3.0, 3.0, ())
    stuck = dataclasses.replace(linear, free=np.array([True, True, False, False]))
    found = solve_separable(stuck, tolerance=0.0, seconds=lambda: math.inf)
    assert found.infeasible
    assert found.proved


def test_no_time_leaves_a_bound_and_an_allocation(engine):
    fired = 0
    for seed in range(times(20)):
        rng = np.random.default_rng(seed)
        cost = rng.integers(0, 10**6, (60, 5))
        problem = Problem.from_arrays(rng.random((60, 5)), {"r": cost}, budgets={"r": int(cost.mean(axis=1).sum())})
        _, best = solve(problem)
        _, found = solve(problem, seconds=lambda: 0.0)
        fired += not found.proved
        assert found.bound <= best.total + 1e-12
        assert found.total >= best.total - 1e-12
    assert fired


def test_a_tolerance_widens_the_bound(engine):
    for seed in range(times(20)):
        rng = np.random.default_rng(seed)
        cost = rng.integers(0, 10**6, (30, 5))
        for costs in (cost, cost / 7):
            problem = Problem.from_arrays(rng.random((30, 5)), {"r": costs}, budgets={"r": costs.mean(axis=1).sum()})
            _, best = solve(problem)
            for tolerance in (0.01, 1.0, math.inf):
                _, found = solve(problem, tolerance=tolerance)
                assert found.bound <= best.total + 1e-12
                assert found.total - found.bound <= tolerance + 1e-12
                assert found.total <= best.total + tolerance + 1e-12


def test_where_rounding_decides_it_is_said(monkeypatch):
    """A loose optimum that breaks the row, and a tight one that is worse: nothing is claimed."""
    cost = np.array([[0.0, 0.1], [0.0, 0.7]])
    problem = problem_of(cost.tolist(), [[0.0, -1.0], [0.0, -2.0]], max=0.75)
    linear = linearise(problem)
    knapsack = dataclasses.replace(separable.knapsack_of(linear), margin=2**60)
    loose = separable.solve_single(dataclasses.replace(knapsack, capacity=2**62), tolerance=0.0)
    assert not separable._keeps_rows(linear, loose.rows)
    found, limit = separable._kept(linear, knapsack, partial(separable.solve_single, tolerance=0.0))
    assert limit == "rounding"
    assert found.rows.tolist() == [0, 3]
    assert found.short == 1.0
