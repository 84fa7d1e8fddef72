"""One budget: both engines against a look at everything, a slot per unit of capacity, and each other."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from allocator.engine import _native
from allocator.engine.knapsack import Knapsack
from allocator.engine.single import INT64, solve_single
from allocator.testing.depth import DEPTH, times
from allocator.testing.knapsacks import COSTS, VALUES, by_capacity, by_enumeration, faults, random_knapsack, size_of

WHOLE = ("few", "small", "signed", "equal", "zero")


def flat(value, cost, width, capacity, free=None):
    """Groups of equal width."""
    value, cost = np.asarray(value, float).ravel(), np.asarray(cost, np.int64).ravel()
    return Knapsack(value, cost, np.arange(0, len(value) + 1, width), free, capacity)


def total(knapsack, found):
    return math.fsum(knapsack.value[found.rows].tolist())


def test_small_ones_against_a_look_at_everything(engine):
    for seed in range(times(700)):
        knapsack = random_knapsack(np.random.default_rng(seed))
        found = solve_single(knapsack)
        assert found.statistics["engine"] == engine
        assert found.proved
        assert not faults(knapsack, found, by_enumeration(knapsack)), seed


@pytest.mark.parametrize("costs", COSTS)
def test_every_kind_of_cost_with_every_kind_of_value(engine, costs):
    for values, seed in itertools.product(VALUES, range(DEPTH)):
        knapsack = random_knapsack(np.random.default_rng(seed), costs=costs, values=values)
        assert not faults(knapsack, solve_single(knapsack), by_enumeration(knapsack)), (values, seed)


def test_middling_ones_against_a_slot_per_unit(engine):
    rng = np.random.default_rng(0)
    for seed in range(times(60)):
        size = {"most_groups": int(rng.integers(20, 260)), "most_choices": int(rng.integers(2, 12))}
        knapsack = random_knapsack(np.random.default_rng(seed), costs=str(rng.choice(WHOLE)), **size)
        found = solve_single(knapsack)
        assert found.proved
        assert not faults(knapsack, found, by_capacity(knapsack)), (seed, size)


@pytest.mark.parametrize("costs", ["spread", "far", "huge", "top", "steps", "offset"])
def test_the_engines_agree(costs, monkeypatch):
    if _native is None:
        pytest.skip("the extension was not built")  # test_native.py fails where it has to be
    monkeypatch.delenv("ALLOCATOR_ENGINE", raising=False)
    for seed in range(times(8)):
        knapsack = random_knapsack(np.random.default_rng(seed), most_groups=60, most_choices=6, costs=costs)
        c, numpy = (solve_single(knapsack, engine=e, seconds=20) for e in ("c", "numpy"))
        assert (c.rows is None) == (numpy.rows is None)
        if c.rows is not None and c.proved and numpy.proved:
            assert abs(total(knapsack, c) - total(knapsack, numpy)) <= 1e-12 * size_of(knapsack), seed


@pytest.mark.parametrize("groups", [1, 5])
def test_capacity_at_both_ends_and_one_off(engine, groups):
    rng = np.random.default_rng(groups)
    cost = rng.integers(-9, 9, (groups, 4))
    value = rng.normal(size=(groups, 4))
    least, most = int(cost.min(axis=1).sum()), int(cost.max(axis=1).sum())
    for capacity in range(least - 2, most + 3):
        knapsack = flat(value, cost, 4, capacity)
        found = solve_single(knapsack)
        assert (found.rows is None) == (capacity < least)
        assert not faults(knapsack, found, by_enumeration(knapsack)), capacity
    assert total(knapsack, found) == pytest.approx(value.min(axis=1).sum(), rel=1e-14)
    assert found.multiplier == 0


@pytest.mark.parametrize("capacity", [-INT64, -(2**63) - 10, -(10**30), 10**30, INT64, 2**63 + 10])
def test_capacities_beyond_every_sum(engine, capacity):
    knapsack = flat([[3, 1], [2, 5]], [[0, 4097 * 3], [5, 5 + 4097]], 2, capacity)
    found = solve_single(knapsack)
    assert found.proved
    assert (found.rows is None) == (capacity < 0)
    if found.rows is not None:
        assert found.rows.tolist() == [1, 2]


def test_costs_near_two_to_the_sixty_two(engine):
    top = 2**61 - 1
    knapsack = flat([[0, -2], [0, -1]], [[-top, top], [0, 1]], 2, top)
    assert solve_single(knapsack).rows.tolist() == [1, 2]
    knapsack = flat([[0, -2], [0, -1]], [[-top, top], [0, 1]], 2, top + 1)
    assert solve_single(knapsack).rows.tolist() == [1, 3]
    knapsack = flat([[0, -2], [0, -1]], [[-top, top], [0, 1]], 2, -top - 1)
    assert solve_single(knapsack).rows is None


def test_groups_of_one_choice_and_of_three_hundred(engine):
    rng = np.random.default_rng(3)
    for _ in range(times(6)):
        sizes = np.array([1, 300, 1, 2, 300, 40])
        indptr = np.concatenate([[0], np.cumsum(sizes)])
        cost = rng.integers(0, 500, indptr[-1])
        value = -np.sqrt(cost) * rng.uniform(0.5, 1.5, len(cost))
        for capacity in (60, 400, 1200):
            knapsack = Knapsack(value, cost, indptr, None, capacity)
            assert not faults(knapsack, solve_single(knapsack), by_capacity(knapsack))


def test_many_groups_of_one_choice(engine):
    knapsack = flat(np.arange(40.0), np.arange(40), 1, 780)
    assert solve_single(knapsack).rows.tolist() == list(range(40))
    knapsack = flat(np.arange(40.0), np.arange(40), 1, 779)
    assert solve_single(knapsack).rows is None


def test_the_free_mask_means_what_it_says(engine):
    for seed in range(times(100)):
        knapsack = random_knapsack(np.random.default_rng(seed), masked=True)
        rows = np.flatnonzero(knapsack.free)
        start = np.searchsorted(rows, knapsack.indptr)
        less = Knapsack(knapsack.value[rows], knapsack.cost[rows], start, None, knapsack.capacity)
        found, same = solve_single(knapsack), solve_single(less)
        assert (found.rows is None) == (same.rows is None)
        if found.rows is not None:
            assert found.rows.tolist() == rows[same.rows].tolist(), seed


def test_a_common_divisor_is_found_and_used(engine):
    rng = np.random.default_rng(0)
    cost = 12345 + 2**40 * 3 * rng.integers(0, 9, (12, 4))
    value = -((cost - 12345) ** 0.6) * rng.uniform(0.5, 1.5, (12, 4))
    capacity = 12 * 12345 + 2**40 * 3 * 40 + 2**41
    found = solve_single(flat(value, cost, 4, capacity))
    assert found.statistics["divisor"] % (2**40 * 3) == 0
    small = flat(value, (cost - 12345) // (2**40 * 3), 4, 40)
    assert total(small, found) == pytest.approx(by_capacity(small), rel=1e-13)


@pytest.mark.parametrize("kind", ["feasible", "infeasible", "optimal", "worst"])
def test_a_start_never_hurts(engine, kind):
    for seed in range(times(60)):
        rng = np.random.default_rng(seed)
        knapsack = random_knapsack(rng, most_groups=30, costs="small")
        best = by_capacity(knapsack)
        if best is None:
            continue
        cheap = [
            min(range(s, e), key=lambda r: (not free(knapsack, r), knapsack.cost[r]))
            for s, e in zip(knapsack.indptr[:-1].tolist(), knapsack.indptr[1:].tolist(), strict=True)
        ]
        start = {
            "feasible": np.array(cheap),
            "infeasible": knapsack.indptr[1:] - 1,
            "optimal": solve_single(knapsack).rows,
            "worst": knapsack.indptr[:-1],
        }[kind]
        found = solve_single(knapsack, start=start)
        assert found.proved
        assert not faults(knapsack, found, best), seed


def free(knapsack, row):
    return knapsack.free is None or bool(knapsack.free[row])


@pytest.mark.parametrize("limit", [{"most_nodes": 1}, {"most_nodes": 5}, {"most_nodes": 20}, {"seconds": 0.0}])
def test_what_a_limit_leaves_is_feasible_and_bounded(engine, limit):
    fired = 0
    for seed in range(times(120)):
        knapsack = random_knapsack(np.random.default_rng(seed), most_groups=60, costs="small", values="normal")
        found = solve_single(knapsack, **limit)
        fired += not found.proved
        assert found.limit in (None, "time", "states")
        assert not faults(knapsack, found, by_capacity(knapsack)), seed
    assert fired >= times(2)


@pytest.mark.parametrize("tolerance", [0.0, 1e-6, 1e-3, 0.1, 1.0, 100.0, math.inf])
def test_a_tolerance_is_kept_and_said(engine, tolerance):
    for seed in range(times(60)):
        knapsack = random_knapsack(np.random.default_rng(seed), most_groups=40, costs="small", values="normal")
        best, found = by_capacity(knapsack), solve_single(knapsack, tolerance=tolerance)
        assert not faults(knapsack, found, best), seed
        if best is not None:
            assert total(knapsack, found) <= best + tolerance + 1e-12 * size_of(knapsack)
            assert found.short <= tolerance


def test_minute_values_keep_their_bounds(engine):
    knapsack = random_knapsack(np.random.default_rng(5), most_groups=40, costs="small", values="normal")
    tiny = Knapsack(knapsack.value * 2.0**-1000, knapsack.cost, knapsack.indptr, knapsack.free, knapsack.capacity)
    for tolerance in (None, 0.5):
        close = None if tolerance is None else tolerance * 2.0**-1000
        found, scaled = solve_single(knapsack, tolerance=tolerance), solve_single(tiny, tolerance=close)
        assert scaled.rows.tolist() == found.rows.tolist()
        assert scaled.short == found.short * 2.0**-1000
        assert scaled.multiplier == found.multiplier * 2.0**-1000
    assert solve_single(tiny, tolerance=1.0).short < 2.0**-990


def test_twice_the_same(engine):
    for seed in range(times(30)):
        knapsack = random_knapsack(np.random.default_rng(seed), most_groups=80)
        first, second = solve_single(knapsack), solve_single(knapsack)
        assert (first.rows is None) == (second.rows is None)
        if first.rows is not None:
            assert first.rows.tolist() == second.rows.tolist()
        assert (first.multiplier, first.short, first.statistics) == (second.multiplier, second.short, second.statistics)


def test_threads_do_not_meet(engine):
    knapsacks = [
        random_knapsack(np.random.default_rng(seed), most_groups=120, most_choices=6, costs="small", values="normal")
        for seed in range(times(40))
    ]
    alone = [solve_single(k) for k in knapsacks]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(solve_single, knapsacks))
    for a, b in zip(alone, together, strict=True):
        assert (a.rows is None) == (b.rows is None)
        assert a.rows is None or a.rows.tolist() == b.rows.tolist()


def test_arrays_that_do_not_fit_are_refused(engine):
    if engine == "c":
        bad = Knapsack(np.zeros(4), np.zeros(3, np.int64), np.array([0, 2, 4]), None, 0)
        with pytest.raises(ValueError, match="arrays do not fit together"):
            solve_single(bad)
