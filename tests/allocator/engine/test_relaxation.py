"""The linear relaxation against the dual function at every price where it can have a corner."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from allocator.engine.core import Core
from allocator.engine.relaxation import relax
from allocator.engine.single import solve_single
from allocator.testing.depth import times
from allocator.testing.knapsacks import random_knapsack, size_of

KINDS = ("few", "small", "signed", "equal", "zero", "spread", "steps")
VALUES = ("few", "whole", "normal", "equal", "wide", "line", "decay", "offset", "tiny", "large")


def dual(core, capacity, multiplier):
    """Σ_g min(value + λ·cost) − λ·capacity, by differences so that far costs lose nothing."""
    parts, used = [], -capacity
    for s, e in itertools.pairwise(core.start.tolist()):
        parts.append(min(core.value[s:e] + multiplier * (core.cost[s:e] - core.cost[s])))
        used += int(core.cost[s])
    return math.fsum([*parts, multiplier * used])


def corners(core):
    """Every price at which some group changes its mind: the slopes between its choices."""
    found = {0.0}
    for s, e in itertools.pairwise(core.start.tolist()):
        for i, j in itertools.permutations(range(s, e), 2):
            if core.cost[i] > core.cost[j] and core.value[i] < core.value[j]:
                found.add(float((core.value[j] - core.value[i]) / (core.cost[i] - core.cost[j])))
    return found


@pytest.mark.parametrize("costs", KINDS)
def test_the_multiplier_is_optimal(costs):
    for seed in range(times(25)):
        rng = np.random.default_rng(seed)
        knapsack = random_knapsack(rng, most_groups=25, costs=costs, values=str(rng.choice(VALUES)))
        core = Core.of(knapsack)
        relaxed = relax(core, knapsack.capacity)
        least = int(np.minimum.reduceat(core.cost, core.start[:-1]).sum())
        assert (relaxed is None) == (least > knapsack.capacity)
        if relaxed is None:
            continue
        best = max(dual(core, knapsack.capacity, price) for price in corners(core))
        close = 1e-13 * size_of(knapsack)
        assert dual(core, knapsack.capacity, relaxed.multiplier) >= best - close, seed
        assert np.array_equal(np.searchsorted(core.start, relaxed.base, side="right") - 1, np.arange(core.group_count))
        assert relaxed.slack == knapsack.capacity - int(core.cost[relaxed.base].sum())
        assert relaxed.slack >= 0
        priced = core.value + relaxed.multiplier * (core.cost - np.repeat(core.cost[relaxed.base], np.diff(core.start)))
        lost = priced[relaxed.base] - np.minimum.reduceat(priced, core.start[:-1])
        assert lost.sum() <= close, seed


def test_both_engines_give_an_optimal_multiplier(engine):
    for seed in range(times(60)):
        knapsack = random_knapsack(np.random.default_rng(seed), most_groups=25, costs="small", values="normal")
        core, found = Core.of(knapsack), solve_single(knapsack)
        if found.rows is not None:
            best = max(dual(core, knapsack.capacity, price) for price in corners(core))
            assert dual(core, knapsack.capacity, found.multiplier) >= best - 1e-13 * size_of(knapsack), seed


def test_where_the_capacity_does_not_bind_nothing_has_a_price():
    core = Core(np.array([0, 2, 4]), np.array([0.0, -1.0, 0.0, -1.0]), np.array([0, 5, 0, 5]))
    relaxed = relax(core, 10)
    assert (relaxed.multiplier, relaxed.slack, relaxed.base.tolist()) == (0.0, 0, [1, 3])
    relaxed = relax(core, 9)
    assert relaxed.multiplier == pytest.approx(0.2)
    assert relaxed.slack == 4
