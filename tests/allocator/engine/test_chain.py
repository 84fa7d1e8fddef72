"""Chains under one budget: the optimum against brute force, C = numpy to the bit, limits that leave a true bound."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.engine import native
from allocator.engine.chain import Chain, solve_chain
from allocator.testing.depth import times

needs_c = pytest.mark.skipif(native() is None, reason="the C extension was not built")
CLOSE = 1e-12


def drawn(seed: int, stages: int = 5, widest: int = 4, *, whole: bool = True, unit: int = 1) -> Chain:
    """Values of either sign, whole ones with many ties; some costs 0, some choices over the capacity alone."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, widest + 1, stages)
    start = np.concatenate([[0], np.cumsum(size)])
    begin = np.concatenate([[0], np.cumsum(size[:-1] * size[1:])])
    value = rng.integers(-3, 4, start[-1]) if whole else rng.normal(size=start[-1])
    table = rng.integers(-2, 3, begin[-1]) if whole else rng.normal(size=begin[-1])
    cost = rng.integers(0, 7, start[-1]) * unit
    cost -= np.repeat(np.minimum.reduceat(cost, start[:-1]), size)
    most = int(np.maximum.reduceat(cost, start[:-1]).sum())
    capacity = int(rng.uniform(0, 0.8) * most)
    return Chain(start, value.astype(float), cost, table.astype(float), begin, capacity)


def worth(chain: Chain, taken: np.ndarray) -> float:
    place = taken - chain.start[:-1]
    size = np.diff(chain.start)
    between = chain.begin[:-1] + place[:-1] * size[1:] + place[1:]
    return float(chain.value[taken].sum() + chain.table[between].sum())


def best_of(chain: Chain) -> float:
    ranges = [range(a, b) for a, b in itertools.pairwise(chain.start.tolist())]
    every = (np.array(t) for t in itertools.product(*ranges))
    return min(worth(chain, t) for t in every if sum(chain.cost[t].tolist()) <= chain.capacity)


@pytest.mark.parametrize("whole", [True, False])
def test_the_optimum_is_that_of_looking_at_everything(engine: str, whole: bool) -> None:
    for seed in range(times(150)):
        chain = drawn(seed, stages=2 + seed % 5, whole=whole)
        found = solve_chain(chain, tolerance=CLOSE, engine=engine)
        assert found.limit is None
        assert found.taken is not None
        assert sum(chain.cost[found.taken].tolist()) <= chain.capacity
        assert found.value == pytest.approx(worth(chain, found.taken), abs=1e-12)
        assert found.value == pytest.approx(best_of(chain), abs=1e-11)
        assert found.bound == found.value


def test_costs_beyond_the_integers_of_floats_are_told_apart(engine: str) -> None:
    """2^60 and 1 more: a sum in floats would let the dearer one through."""
    huge = 2**60
    start, begin = np.array([0, 2, 4]), np.array([0, 4])
    chain = Chain(start, np.array([0.0, -2.0, 0.0, -1.0]), np.array([0, huge + 1, 0, huge]), np.zeros(4), begin, huge)
    found = solve_chain(chain, tolerance=CLOSE, engine=engine)
    assert found.value == -1.0
    found = solve_chain(dataclasses.replace(chain, capacity=2 * huge), tolerance=CLOSE, engine=engine)
    assert found.value == -2.0
    found = solve_chain(dataclasses.replace(chain, capacity=2 * huge + 1), tolerance=CLOSE, engine=engine)
    assert found.value == -3.0
    for seed in range(times(40)):
        chain = drawn(seed, unit=2**55 + 1, whole=False)
        found = solve_chain(chain, tolerance=CLOSE, engine=engine)
        assert found.value == pytest.approx(best_of(chain), abs=1e-11)


def test_nothing_keeps_a_capacity_below_nothing(engine: str) -> None:
    found = solve_chain(dataclasses.replace(drawn(0), capacity=-1), tolerance=CLOSE, engine=engine)
    assert found.taken is None
    assert found.limit is None


@pytest.mark.parametrize("power", [-1000, 900])
def test_the_size_of_the_values_does_not_matter(engine: str, power: int) -> None:
    chain = drawn(5, whole=False)
    plain = solve_chain(chain, tolerance=CLOSE, engine=engine)
    scaled = dataclasses.replace(chain, value=np.ldexp(chain.value, power), table=np.ldexp(chain.table, power))
    found = solve_chain(scaled, tolerance=np.ldexp(CLOSE, power), engine=engine)
    assert found.taken is not None
    assert plain.taken is not None
    assert found.taken.tolist() == plain.taken.tolist()
    assert found.value == np.ldexp(plain.value, power)


def test_values_that_are_all_nothing(engine: str) -> None:
    chain = drawn(6)
    chain = dataclasses.replace(chain, value=np.zeros_like(chain.value), table=np.zeros_like(chain.table))
    found = solve_chain(chain, tolerance=0.0, engine=engine)
    assert found.value == found.bound == 0.0


@needs_c
def test_c_and_numpy_take_the_same_steps() -> None:
    for seed in range(times(60)):
        chain = drawn(seed, stages=12, whole=seed % 2 == 0)
        one, other = (solve_chain(chain, tolerance=CLOSE, engine=e) for e in ("c", "numpy"))
        assert one.taken is not None
        assert other.taken is not None
        assert one.taken.tolist() == other.taken.tolist()
        assert {**vars(one), "taken": None} == {**vars(other), "taken": None}


def long(seed: int, stages: int = 60) -> Chain:
    """Values that costs nearly decide, costs without a divisor: long lists."""
    rng = np.random.default_rng(seed)
    start, begin = np.arange(stages + 1) * 3, np.arange(stages) * 9
    cost = rng.integers(1, 10**9, (stages, 3))
    cost -= cost.min(axis=1, keepdims=True)
    value = -cost * 1e-9 + 1e-4 * rng.normal(size=cost.shape)
    table = 1e-4 * rng.normal(size=begin[-1])
    return Chain(start, value.ravel(), cost.ravel(), table, begin, int(0.4 * cost.max(axis=1).sum()))


def test_limits_leave_an_allocation_and_a_bound_below_the_optimum(engine: str) -> None:
    """So many states, or no time: what is said stays true."""
    chain = long(0)
    whole = solve_chain(chain, tolerance=CLOSE, engine=engine)
    assert whole.limit is None
    assert whole.states > 2_000
    few = solve_chain(chain, tolerance=CLOSE, most_states=1_000, engine=engine)
    late = solve_chain(chain, tolerance=CLOSE, seconds=0.0, engine=engine)
    assert (few.limit, late.limit) == ("states", "time")
    for found in (few, late):
        assert found.taken is not None
        assert sum(chain.cost[found.taken].tolist()) <= chain.capacity
        assert found.bound <= whole.value <= found.value
        assert found.bound < found.value


def test_a_gap_ends_it_early_with_a_bound_within_it(engine: str) -> None:
    """At once where the first allocation is good enough; the list of the last cut is no longer than it has to be."""
    chain = long(1)
    whole = solve_chain(chain, tolerance=CLOSE, engine=engine)
    for gap in (1e-3, 0.019, 0.05):
        found = solve_chain(chain, tolerance=CLOSE, gap=gap, offset=-3.0, engine=engine)
        assert found.limit is None
        assert found.bound <= whole.value <= found.value
        assert found.value - found.bound <= gap * abs(found.value - 3.0) * (1 + 1e-9)
    assert (found.states, found.cuts) == (0, 0)
    assert whole.cuts > 0


@needs_c
@settings(max_examples=times(60), deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 5), st.booleans())
def test_any_chain(seed: int, stages: int, widest: int, whole: bool) -> None:
    chain = drawn(seed, stages, widest, whole=whole)
    found = solve_chain(chain, tolerance=CLOSE)
    assert found.value == pytest.approx(best_of(chain), abs=1e-11)
