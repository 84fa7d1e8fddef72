"""The core check: proves optima, and never a worse allocation, whatever prices it is handed."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import pytest

from allocator.bounds import find_prices
from allocator.checks.core import CoreCheck, exhaust
from allocator.checks.fixing import fix
from allocator.checks.lagrangian import scan
from allocator.checks.listing import exhaust_several
from allocator.checks.slopes import exhaust_one
from allocator.errors import UnsupportedError
from allocator.evaluation import scale_of
from allocator.linear import Linear, linearise
from allocator.problem import Problem
from allocator.testing.claims import tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, random_rows
from allocator.testing.reference import Reference

WILD = [math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -5e-324, 0.0]
PARTS = LINEAR | {"pnorm_loss", "loss_budgets"}


def attempt(linear: Linear, prices: tuple[float, ...], objective: float) -> CoreCheck:
    """As the core calls it: is `objective` within 1e-12·S of the optimum?"""
    total = linear.total(objective)
    allowed = total - linear.total(objective - 1e-12 * scale_of(linear.problem))
    return exhaust(linear, prices, total, allowed)


def prices_of(rng: Random, linear: Linear, count: int) -> tuple[float, ...]:
    kind = rng.random()
    if kind < 0.3:
        return find_prices(linear).values
    size = float(np.abs(linear.value).max()) or 1.0
    return tuple(
        rng.choice(WILD) if rng.random() < 0.2 else rng.choice([1, -1]) * size * 10.0 ** rng.uniform(-15, 3)
        for _ in range(max(0, count + rng.choice([0, 0, 0, -1, 1])))
    )


def cases(parts: frozenset[str], count: int) -> Any:
    for seed in range(count):
        rows = random_rows(seed, parts, most_allocations=80)
        reference = Reference(rows)
        try:
            linear = linearise(Problem.from_rows(rows))
        except UnsupportedError:
            continue
        yield seed, linear, reference


def test_never_proves_a_worse_allocation() -> None:
    rng = Random(0)
    tried = 0
    for seed, linear, reference in cases(PARTS, times(500)):
        best, slip = reference.best, tolerance(reference)
        if best is None:
            continue
        worse = sorted({o for o in map(reference.objective, reference.feasible) if o > best.objective + 1.1 * slip})
        for objective in worse[:1] + rng.sample(worse, min(2, len(worse))):
            for _ in range(3):
                prices = prices_of(rng, linear, len(reference.rows["budgets"]))
                check = attempt(linear, prices, objective)
                assert not check.proved, (seed, prices, objective, best.objective)
                tried += 1
    assert tried > 1000


def test_proves_every_optimum_under_good_prices() -> None:
    proved = total = 0
    for seed, linear, reference in cases(LINEAR, times(500)):
        if reference.best is None:
            continue
        check = attempt(linear, find_prices(linear).values, reference.best.objective)
        assert check.proved or check.better is not None, seed  # better: kept by the rounding of a float row only
        proved += check.proved
        total += 1
    assert proved >= 0.995 * total > 100


def test_proves_optima_under_bad_prices_too_since_it_exhausts() -> None:
    rng = Random(3)
    proved = total = 0
    for _, linear, reference in cases(LINEAR, times(300)):
        if reference.best is None:
            continue
        total += 1
        prices = prices_of(rng, linear, len(reference.rows["budgets"]))
        proved += attempt(linear, prices, reference.best.objective).proved
    assert proved >= 0.99 * total > 100


def _knapsack(rng: Random, groups: int, choices: int, tightness: float) -> Problem:
    costs = np.array([sorted(rng.sample(range(1000), choices)) for _ in range(groups)])
    scores = np.array([sorted((rng.random() for _ in range(choices)), reverse=True) for _ in range(groups)])
    low, high = costs.min(axis=1).sum(), costs.max(axis=1).sum()
    return Problem.from_arrays(scores, costs, budgets={"cost": int(low + tightness * (high - low))})


def _by_dynamic_programme(problem: Problem) -> float:
    """Least loss for every use up to the budget; integers only."""
    limit = int(problem.budgets[0].max or 0)
    table = np.full(limit + 1, np.inf)
    table[0] = 0.0
    for group in range(problem.group_count):
        rows = range(*problem.indptr[group : group + 2].tolist())
        new = np.full(limit + 1, np.inf)
        for row in rows:
            cost = int(problem.costs["cost"][row])
            if cost <= limit:
                np.minimum(new[cost:], table[: limit + 1 - cost] + problem.unary[row], out=new[cost:])
        table = new
    return float(table.min())


@pytest.mark.parametrize("tightness", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("groups", [12, 30])
def test_larger_knapsacks_against_a_dynamic_programme(groups: int, tightness: float) -> None:
    rng = Random(groups)
    for _ in range(times(3)):
        problem = _knapsack(rng, groups, 6, tightness)
        linear = linearise(problem)
        best = _by_dynamic_programme(problem)
        prices = find_prices(linear).values
        assert attempt(linear, prices, best + 1e-13 * best).proved
        found = attempt(linear, prices, best + 1e-6)
        assert not found.proved
        assert found.better == pytest.approx(best, rel=1e-6)


def test_gives_up_when_there_are_too_many_states() -> None:
    problem = _knapsack(Random(0), 25, 6, 0.5)
    linear = linearise(problem)
    check = exhaust(linear, (0.0,), _by_dynamic_programme(problem), 0.0, most_states=1000)
    assert not check.proved
    assert check.better is None
    assert check.states > 1000


def test_huge_integers_are_compared_as_integers() -> None:
    """As floats 2^53 + 3 and 2^53 + 4 are one: what costs one too much must not pass for better."""
    costs = np.array([[2**53 + 3, 2**53 + 2], [1, 0]])
    scores = np.array([[0.0, 1.0], [0.0, 5.0]])
    problem = Problem.from_arrays(scores, costs, budgets={"cost": 2**53 + 3})
    linear = linearise(problem)
    for prices in ((0.0,), (1e-3,), (2.0,)):
        assert attempt(linear, prices, 1.0).proved
        assert not attempt(linear, prices, 5.0).proved


def test_powers_that_vanish_prove_nothing() -> None:
    groups = [
        {
            "name": "g",
            "choices": [{"name": n, "cost": {"c": 1}, "score": {"s": s}} for n, s in (("a", 1e-7), ("b", 5e-8))],
        },
        {
            "name": "h",
            "choices": [{"name": n, "cost": {"c": c}, "score": {"s": s}} for n, c, s in (("a", 0, 0), ("b", 9, 1))],
        },
    ]
    rows = {
        "format": "allocation-problem",
        "version": 1,
        "groups": groups,
        "loss": {"terms": {"s": 1.0}, "aggregate": "pnorm", "p": 60},
        "budgets": [{"resource": "c", "max": 5}],
    }
    assert not attempt(linearise(Problem.from_rows(rows)), (0.0,), 1e-7).proved


def _level(problem: Problem, objective: float, prices: tuple[float, ...] | None = None) -> int | None:
    linear = linearise(problem)
    return attempt(linear, find_prices(linear).values if prices is None else prices, objective).level


def test_the_bound_alone_is_the_first_level() -> None:
    problem = Problem.from_arrays([[4.0, 1.0], [4.0, 2.0]], [[0, 2], [0, 2]], budgets={"cost": 4})
    assert _level(problem, 3.0) == 1


def test_a_budget_that_no_sum_of_costs_reaches_is_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every use is a multiple of 64: the last 63 of the budget are of no use, but the LP bound counts them."""
    rng = np.random.default_rng(1)
    costs = 64 * np.cumsum(rng.integers(1, 5, (40, 4)), axis=1)
    scores = -np.sqrt(costs) + rng.random((40, 4)) * 0.1
    problem = Problem.from_arrays(scores, costs, budgets={"cost": int(costs[:, 2].sum()) + 63})
    best = _by_dynamic_programme(problem)
    linear = linearise(problem)
    prices = find_prices(linear).values
    check = attempt(linear, prices, best)
    assert check.proved
    with monkeypatch.context() as patch:
        patch.setattr("allocator.checks.fixing._tightened", lambda survivors: survivors)
        plain = attempt(linear, prices, best)
    assert plain.proved
    assert plain.survivors > check.survivors + 20


def test_whole_values_below_the_next_one_are_fixed_without_a_list() -> None:
    """Bound 1.5 by half a choice, optimum 2: nothing lies between them."""
    problem = Problem.from_arrays([[2.0, 0.0], [1.0, 1.0]], [[0, 4], [0, 0]], budgets={"cost": 3})
    linear = linearise(problem)
    check = attempt(linear, (0.5,), 3.0)
    assert check.bound == pytest.approx(1.5)
    assert (check.proved, check.level) == (True, 2)


@pytest.mark.parametrize("seed", range(3))
def test_blocks_do_not_show(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = Random(seed)
    ragged = _ragged(rng, 60)
    for problem in (ragged, _knapsack(rng, 60, 5, 0.4)):
        linear = linearise(problem)
        best = _by_dynamic_programme(problem)
        prices = find_prices(linear).values
        whole = attempt(linear, prices, best)
        with monkeypatch.context() as patch:
            patch.setattr("allocator.blocks.BLOCK", 7)
            assert attempt(linear, prices, best) == whole
        assert whole.proved


def _ragged(rng: Random, groups: int) -> Problem:
    sizes = [rng.randint(1, 6) for _ in range(groups)]
    costs = [c for n in sizes for c in sorted(rng.sample(range(200), n))]
    scores = [s for n in sizes for s in sorted((rng.random() for _ in range(n)), reverse=True)]
    start = np.concatenate([[0], np.cumsum(sizes)])
    least = sum(costs[s] for s in start[:-1])
    return Problem.from_arrays(scores, costs, indptr=start, budgets={"cost": least + 30 * groups})


@pytest.mark.parametrize("whole", [True, False], ids=["integers", "floats"])
@pytest.mark.parametrize("side", ["max", "min"])
def test_both_list_programs_find_the_same(whole: bool, side: str) -> None:
    rng = Random(4)
    for _ in range(times(40)):
        groups, choices = rng.randint(2, 6), rng.randint(2, 4)
        costs = np.array([[rng.randint(0, 9) for _ in range(choices)] for _ in range(groups)])
        scores = np.array([[rng.random() - 0.3 for _ in range(choices)] for _ in range(groups)])
        limit = int(costs.sum() / choices)
        cost = costs if whole else costs * 0.7
        problem = Problem.from_arrays(scores, cost).with_budget("cost", **{side: limit if whole else limit * 0.7})
        linear = linearise(problem)
        price = rng.random() * (0.3 if side == "max" else -0.3)
        found = scan(linear, (price,))
        target = found.bound + rng.random() * 0.5
        survivors = fix(linear, found, target)
        if survivors is None:
            continue
        one = survivors.one_sided()
        assert one is not None
        first, second = exhaust_one(one, 10**6), exhaust_several(survivors, 10**6)
        assert first.complete
        assert second.complete
        assert first.best == (None if second.best is None else pytest.approx(second.best, rel=1e-9))


def test_tables_and_lists_see_the_same_states(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = Random(6)
    for scale in (1, 12):
        problem = _knapsack(rng, 25, 5, 0.5)
        problem = problem.replace(costs={"cost": problem.costs["cost"] * scale})
        linear = linearise(problem.with_budget("cost", max=int(problem.budgets[0].max or 0) * scale + scale // 2))
        best = _by_dynamic_programme(linear.problem)
        for prices in (find_prices(linear).values, (1e-3 / scale,), (0.0,)):
            for objective in (best + 1e-13, best + 0.05):
                found = []
                for many in (1, 10**9):
                    monkeypatch.setattr("allocator.checks.slopes.MANY", many)
                    monkeypatch.setattr("allocator.checks.slopes.SPARSE", 10**6)
                    found.append(attempt(linear, prices, objective))
                assert found[0] == found[1]
                assert found[0].proved == (objective == best + 1e-13)


def test_too_many_survivors_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = _knapsack(Random(0), 25, 6, 0.5)
    linear, best = linearise(problem), _by_dynamic_programme(problem)
    assert attempt(linear, (0.0,), best).proved
    monkeypatch.setattr("allocator.checks.fixing.MOST_SURVIVORS", 20)
    check = attempt(linear, (0.0,), best)
    assert not check.proved
    assert check.better is None
    assert check.bound < best
