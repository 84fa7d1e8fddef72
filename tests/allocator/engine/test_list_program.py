"""The list program of the numpy engine, with batches and caps so small that every branch is taken."""

from __future__ import annotations

import math

import numpy as np
import pytest

from allocator.engine import list_program as module
from allocator.engine.core import Core
from allocator.engine.list_program import Limits, list_program
from allocator.engine.relaxation import Relaxed, relax
from allocator.testing.depth import times
from allocator.testing.knapsacks import by_capacity, random_knapsack, size_of


@pytest.fixture(params=[(64, 200, (512, 16384, None)), (2, 0, (4, 8, None)), (1, 0, (2, None)), (3, 500, (None,))])
def sizes(request, monkeypatch):
    batch, few, caps = request.param
    monkeypatch.setattr(module, "FIRST_BATCH", batch)
    monkeypatch.setattr(module, "BATCH_GROWTH", 2)
    monkeypatch.setattr(module, "FEW_GROUPS", few)
    monkeypatch.setattr(module, "CAPS", caps)


def instances(count, values=None):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        kind = str(rng.choice(["small", "few", "signed", "equal"]))
        knapsack = random_knapsack(rng, most_groups=30, costs=kind, values=values, masked=False)
        best = by_capacity(knapsack)
        if best is not None:
            core = Core.of(knapsack)
            yield seed, knapsack, core, relax(core, knapsack.capacity), best


@pytest.mark.parametrize("values", ["few", "whole", "normal", "strong", "line", "decay"])
def test_finds_the_optimum_and_says_what_it_is_worth(sizes, values):
    for seed, knapsack, core, relaxed, best in instances(times(12), values):
        close = 1e-12 * size_of(knapsack)
        listed = list_program(core, relaxed, Limits(2.5e-13 * core.scale), 0.0)
        value = math.fsum(core.value[listed.items].tolist())
        assert listed.limit is None
        assert int(core.cost[listed.items].sum()) <= knapsack.capacity
        assert value == pytest.approx(best, rel=0, abs=close), seed
        assert math.fsum(core.value[relaxed.base].tolist()) + listed.value == pytest.approx(value, rel=0, abs=close)
        assert listed.lowest <= best - math.fsum(core.value[relaxed.base].tolist()) + close


def test_any_price_will_do(sizes):
    """A multiplier that is far from optimal, with the allocation that is best at it, costs time and nothing else."""
    for seed, knapsack, core, relaxed, best in instances(times(40), "normal"):
        multiplier = relaxed.multiplier * 2 + 0.01
        price = core.value + multiplier * core.cost
        base = np.array([s + int(price[s:e].argmin()) for s, e in zip(core.start[:-1], core.start[1:], strict=True)])
        slack = knapsack.capacity - int(core.cost[base].sum())
        if slack < 0:
            continue
        listed = list_program(core, Relaxed(multiplier, base, slack, 1), Limits(0.0), 0.0)
        value = math.fsum(core.value[listed.items].tolist())
        assert value == pytest.approx(best, rel=0, abs=1e-12 * size_of(knapsack)), seed


def test_something_known_is_not_made_worse(sizes):
    for seed, knapsack, core, relaxed, best in instances(times(20)):
        known = min(best - math.fsum(core.value[relaxed.base].tolist()), 0.0)
        listed = list_program(core, relaxed, Limits(2.5e-13 * core.scale), known)
        assert listed.value <= known, seed
        assert listed.value >= known - 1e-12 * size_of(knapsack), seed


def test_bounds_under_limits_hold(sizes):
    fired = 0
    for nodes in (1, 10, 50):
        for seed, knapsack, core, relaxed, best in instances(times(20), "normal"):
            listed = list_program(core, relaxed, Limits(0.0, nodes=nodes), 0.0)
            fired += listed.limit is not None
            base = math.fsum(core.value[relaxed.base].tolist())
            assert base + listed.bound <= best + 1e-12 * size_of(knapsack), seed
            assert int(core.cost[listed.items].sum()) <= knapsack.capacity
    assert fired


def test_steps_of_whole_values_end_the_search():
    """All values are multiples of 3: a gap below 3 is no gap."""
    core = Core(np.arange(0, 61, 3), np.tile([0.0, -3.0, -9.0], 20), np.tile([0, 2, 5], 20))
    listed = list_program(core, relax(core, 49), Limits(1e-12), 0.0)
    assert core.value[listed.items].sum() == -87
    assert listed.limit is None
    assert listed.states < 2000
