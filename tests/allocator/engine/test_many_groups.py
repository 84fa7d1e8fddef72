"""From 32,768 groups on: a sample and a bracket decide most groups; the numpy engine without them is the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from allocator.engine import single_numpy
from allocator.engine.knapsack import Knapsack
from allocator.engine.single import solve_single
from allocator.testing.depth import DEPTH
from allocator.testing.knapsacks import faults

GROUPS = 33_000


def ragged(rng):
    sizes = rng.integers(1, 5, GROUPS)
    return np.concatenate([[0], np.cumsum(sizes)]), np.repeat(np.arange(GROUPS), sizes)


def far_sizes(rng):
    indptr, group = ragged(rng)
    cost = (10.0 ** rng.uniform(0, 9, GROUPS)[group] * rng.random(len(group))).astype(np.int64)
    return indptr, cost, -(cost**0.7) * rng.uniform(0.5, 1.5, GROUPS)[group]


def identical(rng):
    return np.arange(0, 3 * GROUPS + 1, 3), np.tile([0, 3, 6], GROUPS), np.tile([0.0, -1.0, -1.75], GROUPS)


def ties(rng):
    indptr, group = ragged(rng)
    return indptr, rng.integers(0, 4, len(group)), -rng.integers(0, 4, len(group)).astype(float)


def in_order(rng):
    indptr, group = ragged(rng)
    cost = (np.sort(10.0 ** rng.uniform(0, 6, GROUPS))[group] * rng.random(len(group))).astype(np.int64)
    return indptr, cost, -cost * np.linspace(1e-3, 1e3, GROUPS)[group] * rng.uniform(0.5, 1.5, len(group))


def in_step_with_the_sample(rng):
    """Every group that a strided sample looks at is unlike the others."""
    indptr, group = ragged(rng)
    odd = group % (GROUPS // (GROUPS // 16)) == 0
    cost = np.where(odd, rng.integers(0, 10, len(group)), rng.integers(0, 10**6, len(group)))
    return indptr, cost, -np.where(odd, 1.0, cost) * rng.uniform(0.5, 1.5, len(group))


def two_prices(rng):
    """The optimal price jumps by nine orders where the first half is filled."""
    indptr, group = ragged(rng)
    cost = rng.integers(1, 100, len(group))
    return indptr, cost, -cost * np.where(group % 2, 1e-6, 1e3) * rng.uniform(0.9, 1.1, len(group))


def far_from_zero(rng):
    indptr, group = ragged(rng)
    return indptr, 5 * 10**13 + rng.integers(0, 3, len(group)), rng.normal(size=len(group))


def signed_multiples(rng):
    indptr, group = ragged(rng)
    return indptr, 4096 * rng.integers(-100, 1000, len(group)), rng.normal(size=len(group))


def one_wide_group(rng):
    """More choices in one group than a block of prices holds."""
    sizes = np.full(GROUPS, 2)
    sizes[7] = 5000
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    cost = rng.integers(0, 1000, indptr[-1])
    return indptr, cost, -cost * rng.uniform(0.5, 1.5, len(cost))


KINDS = [
    far_sizes, identical, ties, in_order, in_step_with_the_sample, two_prices, far_from_zero, signed_multiples,
    one_wide_group,
]  # fmt: skip


def capacity_of(indptr, cost, value, at):
    """Between what the cheapest choices use and what those of least value use; an int is one off an end."""
    least = int(np.minimum.reduceat(cost, indptr[:-1]).sum())
    group = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    best = value == np.minimum.reduceat(value, indptr[:-1])[group]
    most = int(np.minimum.reduceat(np.where(best, cost, np.iinfo(np.int64).max), indptr[:-1]).sum())
    return {"least": least, "below": least - 1, "most": most, "one short": most - 1}.get(
        at, least + int((most - least) * at) if isinstance(at, float) else 0
    )


@pytest.fixture
def direct(monkeypatch):
    """The numpy engine without sample and bracket."""

    def solve(knapsack):
        with monkeypatch.context() as patch:
            patch.setattr(single_numpy, "MANY", 10**9)
            return solve_single(knapsack, engine="numpy")

    return solve


EVERYWHERE = [(kind, at) for kind in KINDS for at in (0.4, "one short")]
AT_THE_ENDS = [(kind, at) for kind in (far_sizes, ties, far_from_zero) for at in ("least", "most", 0.001)]


@pytest.mark.parametrize(("kind", "at"), EVERYWHERE + AT_THE_ENDS)
def test_as_without_the_bracket(engine, direct, kind, at):
    indptr, cost, value = kind(np.random.default_rng(1))
    knapsack = Knapsack(value, cost, indptr, None, capacity_of(indptr, cost, value, at))
    reference = direct(knapsack)
    assert reference.proved
    best = math.fsum(value[reference.rows].tolist())
    found = solve_single(knapsack)
    assert found.proved
    assert not faults(knapsack, found, best)


def test_infeasible_by_one(engine):
    indptr, cost, value = far_sizes(np.random.default_rng(0))
    assert solve_single(Knapsack(value, cost, indptr, None, capacity_of(indptr, cost, value, "below"))).rows is None


def test_the_bracket_is_used_at_all(engine, monkeypatch):
    """Else the tests above would compare the direct way with itself."""
    indptr, cost, value = signed_multiples(np.random.default_rng(0))
    knapsack = Knapsack(value, cost, indptr, None, capacity_of(indptr, cost, value, 0.4))
    if engine == "c":
        assert 0 < solve_single(knapsack).statistics["open"] < GROUPS
    else:
        seen = []
        bracket = single_numpy._bracket
        monkeypatch.setattr(single_numpy, "_bracket", lambda *a: seen.append(bracket(*a)) or seen[-1])
        solve_single(knapsack)
        assert 0 < len(seen[-1].open) < GROUPS


def test_choices_that_are_not_free(engine, direct):
    rng = np.random.default_rng(2)
    indptr, cost, value = far_sizes(rng)
    free = rng.random(len(cost)) < 0.7
    free[indptr[:-1]] = True
    for at in (0.2, 0.6):
        knapsack = Knapsack(value, cost, indptr, free, int(capacity_of(indptr, cost, value, at)))
        best = direct(knapsack)
        assert not faults(knapsack, solve_single(knapsack), math.fsum(value[best.rows].tolist()))


@pytest.mark.parametrize("limit", [{"most_nodes": 10}, {"most_nodes": 2000}, {"seconds": 0.0}, {"tolerance": math.inf}])
def test_what_a_limit_leaves_is_bounded(engine, direct, limit):
    for seed in range(2 * DEPTH):
        rng = np.random.default_rng(seed)
        cost = rng.integers(0, 10**9, (GROUPS, 3))
        value = -(cost ** rng.uniform(0.3, 1, (GROUPS, 1))) * rng.uniform(0.5, 1.5, (GROUPS, 3))
        indptr = np.arange(0, cost.size + 1, 3)
        knapsack = Knapsack(value.ravel(), cost.ravel(), indptr, None, int(cost.min(axis=1).sum() * 1.5))
        best = math.fsum(knapsack.value[direct(knapsack).rows].tolist())
        assert not faults(knapsack, solve_single(knapsack, **limit), best), seed


def test_the_dual_bound_certifies_the_optimum(engine):
    """No reference but duality: Σ_g min(value + λ·cost) − λ·capacity is a lower bound for every λ."""
    indptr, cost, value = far_sizes(np.random.default_rng(5))
    capacity = capacity_of(indptr, cost, value, 0.3)
    found = solve_single(Knapsack(value, cost, indptr, None, capacity))
    priced = np.minimum.reduceat(value + found.multiplier * cost, indptr[:-1])
    bound = math.fsum([*priced.tolist(), -found.multiplier * capacity])
    worth = math.fsum(value[found.rows].tolist())
    assert bound <= worth + 1e-12 * abs(worth)
    assert worth - bound <= 1e-6 * abs(worth)
