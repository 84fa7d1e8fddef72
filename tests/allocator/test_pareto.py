"""Frontiers against a look at every allocation, on random problems of all kinds."""

from __future__ import annotations

import contextlib
import itertools
import json
import math

import numpy as np
import pytest

import allocator
from allocator.errors import AllocatorError, UnsupportedError, UsageError
from allocator.features import ALL
from allocator.testing.random_problems import DETAILS, PARTS, random_rows
from allocator.testing.reference import Reference

SUMS = DETAILS | {"pins", "forbidden", "max_masks", "same_choice", "resource_objective", "pnorm_loss"}


def unbudgeted(rows, resource):
    """The rows without what the frontier trades."""
    kept = [b for b in rows.get("budgets", []) if b.get("resource") != resource or "tags" in b]
    return rows | {"budgets": kept}


def everything(rows, resource):
    """(total of the resource, objective) of every allocation that keeps the other rows, by total."""
    reference = Reference(unbudgeted(rows, resource))
    return sorted((reference.total(x, resource), reference.objective(x)) for x in reference.feasible), reference


def check(curve, rows, resource):
    """Rising, falling, consistent with `evaluate`, and no allocation of the same or a smaller total is better."""
    found, reference = everything(rows, resource)
    problem = allocator.Problem.from_rows(rows)
    assert bool(len(curve)) == bool(found)
    if not found:
        assert curve.reasons
        return
    exact, size = problem.exact(resource), reference.scale
    rounding = 0 if exact else 1e-14 * reference._size(resource)  # totals of floats are equal up to it
    assert (np.diff(curve.costs) > 0).all()
    assert (np.diff(curve.objectives) < 0).all()
    for i, point in enumerate(curve):
        outcome = problem.evaluate(curve.allocation(i))
        assert not [v for v in outcome.violations if not v.startswith(f"{resource}:")]
        total = outcome.totals[resource]
        assert point.cost == total if exact else abs(point.cost - total) <= rounding
        assert point.objective == pytest.approx(outcome.objective, rel=0, abs=1e-13 * size + reference.noise)
        best = min([o for t, o in found if t <= total - rounding], default=math.inf)
        assert point.objective <= best + 1e-12 * size + reference.noise
    least = min(o for _, o in found)
    assert curve.objectives[-1] == pytest.approx(least, rel=0, abs=1e-12 * size + reference.noise)
    assert curve.costs[0] <= found[0][0] + rounding


@pytest.mark.parametrize("seed", range(400))
def test_hull_points_are_optimal_for_their_own_cost(seed):
    rows = random_rows(seed, SUMS)
    for resource in rows["resources"]:
        with contextlib.suppress(UnsupportedError):  # test_what_has_no_hull_names_the_way_out looks at these
            check(allocator.frontier(rows, resource), rows, resource)


def test_most_random_problems_of_sums_have_a_hull():
    """Else the test above would test nothing."""
    made = 0
    for seed in range(400):
        with contextlib.suppress(UnsupportedError):
            made += len(allocator.frontier(random_rows(seed, SUMS), "bytes")) > 1
    assert made > 100


@pytest.mark.parametrize("seed", range(60))
def test_points_are_proved_by_the_core(seed):
    """At a budget of its own cost each point is `optimal` by the core's own certificate."""
    rows = random_rows(seed, {"pins", "forbidden", "same_choice", "stderr", "several_scores", "offsets"})
    problem = allocator.Problem.from_rows(rows)
    if not problem.exact("bytes") or problem.resources["bytes"].aggregate == "max":
        rows = random_rows(0, {"pins"})
        problem = allocator.Problem.from_rows(rows)
    try:
        curve = allocator.frontier(problem, "bytes")
    except UnsupportedError:
        return
    for i in range(len(curve)):
        solution = curve.solution(i)
        assert solution.status == "optimal"
        assert solution.totals["bytes"] == curve.costs[i]
        assert solution.problem["overrides"] == {"bytes": {"max": curve.costs[i]}}


@pytest.mark.parametrize("seed", range(120))
def test_exact_mode_finds_every_point_between(seed):
    """gap=0 on integers: the whole frontier, whatever the problem's parts."""
    rows = random_rows(seed, PARTS - {"scales", "signed_costs", "offsets"}, most_allocations=60)
    for choice in (c for g in rows["groups"] for c in g["choices"]):
        choice["cost"] = {r: int(abs(v)) % 97 for r, v in choice["cost"].items()}
    problem = allocator.Problem.from_rows(rows)
    found, reference = everything(rows, "bytes")
    curve = allocator.frontier(problem, "bytes", exact=True, gap=0.0, solver="brute_force")
    tolerance = 1e-12 * reference.scale + reference.noise
    best = {}
    for total, objective in found:
        if not best or objective < min(best.values()) - 2 * tolerance:
            best[total] = objective
    assert bool(len(curve)) == bool(found)
    if not found:
        return
    assert (np.diff(curve.costs) > 0).all()
    assert (np.diff(curve.objectives) < 0).all()
    for total, objective in best.items():
        if objective > min(best.values()):  # a last gain of a rounding's size may be had cheaper
            assert allocator_objective(curve, total) <= objective + 3 * tolerance
    for i, point in enumerate(curve):
        outcome = problem.evaluate(curve.allocation(i))
        assert outcome.totals["bytes"] == point.cost
        assert outcome.objective == pytest.approx(point.objective, rel=0, abs=tolerance)
        assert not [v for v in outcome.violations if not v.startswith("bytes:")]


def allocator_objective(curve, budget):
    return float(curve.objectives[curve.index(budget)])


SMALL = ([[5.0, 2, 1], [4, 1.5, 0.2]], [[1, 2, 4], [1, 3, 4]])


def small(**parts):
    return allocator.Problem.from_arrays(*map(np.array, SMALL), **parts)


def test_numbers_of_a_small_frontier():
    curve = allocator.frontier(small())
    assert curve.costs.tolist() == [2, 3, 6, 8]
    assert curve.objectives.tolist() == pytest.approx([9, 6, 2.2, 1.2])
    assert curve.multipliers.tolist() == pytest.approx([3, 3.8 / 3, 0.5, 0])
    assert [curve.allocation(i).tolist() for i in range(4)] == [[0, 0], [1, 0], [1, 2], [2, 2]]
    assert curve.point(-1).multiplier == 0
    assert [p.kind for p in curve] == ["hull"] * 4


def test_multiplier_is_a_minimiser_at_every_point():
    """Point i minimises objective + multiplier·cost over everything."""
    rng = np.random.default_rng(4)
    cost, loss = rng.integers(0, 50, (5, 4)), rng.random((5, 4))
    curve = allocator.frontier(allocator.Problem.from_arrays(loss, cost))
    each = np.arange(5)
    pairs = [(cost[each, list(x)].sum(), loss[each, list(x)].sum()) for x in itertools.product(range(4), repeat=5)]
    for p in curve:
        assert p.objective + p.multiplier * p.cost <= min(o + p.multiplier * c for c, o in pairs) + 1e-12


def test_at_takes_the_last_point_within_the_budget():
    curve = allocator.frontier(small())
    assert curve.at(5).tolist() == [1, 0]
    assert curve.at(5.99).tolist() == [1, 0]
    assert curve.at(10**30).tolist() == [2, 2]
    with pytest.raises(UsageError, match="no allocation costs less than 2"):
        curve.at(1)
    with pytest.raises(IndexError):
        curve.point(4)


def test_exact_fills_the_gap_and_keeps_the_hull():
    curve = allocator.frontier(small(), exact=True, gap=0)
    assert curve.costs.tolist() == [2, 3, 5, 6, 8]
    assert curve.hull.tolist() == [True, True, False, True, True]
    assert curve.allocation(2).tolist() == [1, 1]
    assert [curve.allocation(i).tolist() for i in (3, 4)] == [[1, 2], [2, 2]]
    assert curve.solution(2).status == "optimal"
    same = allocator.frontier(small(), exact=True, points=[5])
    assert same.costs.tolist() == curve.costs.tolist()
    assert allocator.frontier(small(), exact=True, points=7).costs.tolist() == curve.costs.tolist()


def test_own_rows_are_traded_and_others_refused_by_name():
    rows = json.loads(json.dumps({
        "format": "allocation-problem", "version": 1,
        "groups": [{"name": "a", "tags": ["t"], "choices": [
            {"name": "x", "cost": {"bytes": 1, "ms": 5}, "score": {"s": 3}},
            {"name": "y", "cost": {"bytes": 2, "ms": 1}, "score": {"s": 1}}]}],
        "budgets": [{"resource": "bytes", "max": 1, "min": 0}],
    }))  # fmt: skip
    assert allocator.frontier(rows, "bytes").costs.tolist() == [1, 2]
    for row, name in (
        ({"resource": "ms", "max": 9}, "ms"),
        ({"resource": "bytes", "max": 9, "tags": ["t"]}, "bytes of"),
    ):
        with pytest.raises(UnsupportedError, match=rf"{name}.*exact=True"):
            allocator.frontier(rows | {"budgets": [row]}, "bytes")
        assert len(allocator.frontier(rows | {"budgets": [row]}, "bytes", exact=True)) == 2
    kept = allocator.frontier(rows | {"budgets": [{"resource": "ms", "max": 4}]}, "bytes", exact=True)
    assert kept.costs.tolist() == [2]
    with pytest.raises(UsageError, match="say in which resource"):
        allocator.frontier(rows)


def test_maximum_masks_and_takes_no_hull_of_its_own():
    problem = small(resources={"cost": allocator.problem.Resource(aggregate="max")})
    with pytest.raises(UnsupportedError, match="largest cost"):
        allocator.frontier(problem)
    curve = allocator.frontier(problem, exact=True, gap=0)
    assert curve.costs.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("name", sorted(ALL & {"max_loss", "pairs", "basis"}))
def test_what_has_no_hull_names_the_way_out(name):
    refused = 0
    for seed in range(60):
        rows = random_rows(seed, {name})
        if name in allocator.Problem.from_rows(rows | {"budgets": []}).features:
            with pytest.raises(UnsupportedError, match="exact=True"):
                allocator.frontier(rows, "bytes")
            refused += 1
    assert refused > 3


def test_infeasible_has_no_points_and_a_reason():
    rows = random_rows(1, set())
    for choice in rows["groups"][0]["choices"]:
        choice["allowed"] = False
    for options in ({}, {"exact": True}):
        curve = allocator.frontier(rows, "bytes", **options)
        assert (len(curve), len(list(curve))) == (0, 0)
        assert "no choice that may be taken" in curve.reasons[0]
        with pytest.raises(UsageError, match="has no points"):
            curve.at(5)


def test_pnorm_multipliers_are_in_the_loss():
    loss = allocator.problem.Loss({"score": 1.0}, "pnorm", 2.0)
    curve = allocator.frontier(small(loss=loss))
    assert curve.objectives.tolist() == pytest.approx(
        [math.hypot(*v) for v in ((5, 4), (2, 4), (2, 1.5), (2, 0.2), (1, 0.2))]
    )
    assert curve.multipliers[:-1].tolist() == pytest.approx(
        (-np.diff(curve.objectives) / np.diff(curve.costs)).tolist()
    )
    assert all(curve.solution(i).status == "optimal" for i in range(len(curve)))


def test_pnorm_of_vanishing_powers_is_refused():
    loss = allocator.problem.Loss({"score": 1.0}, "pnorm", 40.0)
    problem = allocator.Problem.from_arrays(
        np.array([[1.0, 1e-9], [1e-9, 2e-9]]), np.array([[1, 2], [3, 2]]), loss=loss
    )
    with pytest.raises(UnsupportedError, match="too far apart"):
        allocator.frontier(problem)
    assert len(allocator.frontier(problem, exact=True, gap=0)) == 3


def test_time_out_keeps_what_is_there():
    curve = allocator.frontier(small(), exact=True, gap=0, time_limit=1e-9)
    assert curve.limit == "time"
    assert curve.costs.tolist() == [2, 3, 6, 8]


def test_interrupt_keeps_what_is_there(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("allocator.pipeline.run_backend", interrupted)
    curve = allocator.frontier(small(), exact=True, gap=0)
    assert (curve.limit, len(curve)) == ("interrupt", 4)


@pytest.mark.parametrize(
    "options",
    [
        {"points": 3}, {"gap": 0.1}, {"time_limit": 3}, {"solver": "greedy"},
        {"exact": True, "points": 3, "gap": 0.1}, {"exact": True, "points": 0}, {"exact": True, "gap": -1},
        {"exact": True, "time_limit": 0}, {"exact": True, "points": ["12QB"]}, {"exact": True, "solver": "nobody"},
        {"resource": "gold"},
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_meant(options):
    with pytest.raises(UsageError):
        allocator.frontier(small(), **options)


def test_mid_size_hull_against_an_exact_solver():
    """Every tenth point, re-solved by a solver that knows nothing of hulls."""
    rng = np.random.default_rng(8)
    sizes = rng.integers(1, 40, 25)[:, None]
    loss = rng.lognormal(0, 1, (25, 1)) * 4.0 ** -np.arange(1, 6) * np.exp(rng.normal(0, 0.4, (25, 5)))
    problem = allocator.Problem.from_arrays(loss, sizes * np.array([2, 3, 4, 6, 8]))
    curve = allocator.frontier(problem)
    assert len(curve) > 60
    for i in range(0, len(curve), 10):
        solved = allocator.solve(problem.with_budget("cost", max=int(curve.costs[i])), "ortools_cpsat")
        assert solved.status == "optimal"
        assert curve.objectives[i] == pytest.approx(solved.objective, rel=0, abs=1e-12 * loss.max(axis=1).sum())


def test_errors_are_the_projects_own():
    with pytest.raises(AllocatorError):
        allocator.frontier("/no/such/problem.json")
