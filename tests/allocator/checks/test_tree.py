"""The tree check: never proves what is false, whatever it is handed, and does not depend on who hands it over."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import pytest

from allocator.bounds import find_prices
from allocator.certificate_tree import Tree
from allocator.checks.tree import TreeCheck, check_tree
from allocator.errors import UnsupportedError
from allocator.evaluation import scale_of
from allocator.linear import Linear, linearise
from allocator.problem import Problem
from allocator.testing.claims import tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, random_rows
from allocator.testing.reference import Reference

WILD: list[Any] = [math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -5e-324, 0.0, "x", None, 10**400]
PARTS = LINEAR | {"pnorm_loss", "loss_budgets"}


def attempt(linear: Linear, tree: Tree, objective: float) -> TreeCheck:
    """Is `objective` within 1e-12·S of the optimum?"""
    total = linear.total(objective)
    allowed = total - linear.total(objective - 1e-12 * scale_of(linear.problem))
    return check_tree(linear, tree, total, allowed)


def some_tree(rng: Random, linear: Linear) -> Tree:
    """Sensible, senseless, too short or too long."""
    size = float(np.abs(linear.value).max()) or 1.0
    count = len(linear.problem.budgets)

    def vector() -> tuple[Any, ...]:
        length = max(0, count + rng.choice([0, 0, 0, -1, 1]))
        return tuple(
            rng.choice(WILD) if rng.random() < 0.15 else rng.choice([1, -1]) * size * 10.0 ** rng.uniform(-15, 3)
            for _ in range(length)
        )

    vectors = [vector() for _ in range(rng.randint(0, 4))]
    if rng.random() < 0.5:
        vectors.append(find_prices(linear).values)
    groups = linear.problem.group_count
    order = [rng.randint(-2, groups + 1) for _ in range(rng.randint(0, 2 * groups))]
    whole = rng.choice([None, *range(-1, count + 1)])
    return Tree(tuple(vectors), tuple(order), whole, tuple(vector() for _ in range(rng.randint(0, 3))))


def cases(count: int) -> Any:
    for seed in range(count):
        rows = random_rows(seed, PARTS, most_allocations=80)
        try:
            yield seed, linearise(Problem.from_rows(rows)), Reference(rows)
        except UnsupportedError:
            continue


def test_never_proves_a_worse_allocation_nor_that_nothing_is_feasible() -> None:
    rng = Random(0)
    tried = 0
    for seed, linear, reference in cases(times(500)):
        if reference.best is None:
            continue
        slip = tolerance(reference)
        worse = sorted({o for o in map(reference.objective, reference.feasible) if o > reference.best.objective + slip})
        for _ in range(3):
            tree = some_tree(rng, linear)
            assert not check_tree(linear, tree, math.inf, 0.0).proved, (seed, tree)
            for objective in worse[:1] + worse[-1:]:
                assert not attempt(linear, tree, objective).proved, (seed, tree, objective)
                tried += 1
    assert tried > 1000


def test_proves_optima_and_infeasibility_under_any_vectors_since_it_splits_to_the_end() -> None:
    rng = Random(1)
    proved = total = 0
    for _, linear, reference in cases(times(300)):
        if linear.power != 1:
            continue
        total += 1
        tree = some_tree(rng, linear)
        if reference.best is None:
            proved += check_tree(linear, tree, math.inf, 0.0).proved
        else:
            proved += attempt(linear, tree, reference.best.objective).proved
    assert proved >= 0.98 * total > 150


def test_huge_integers_are_compared_as_integers() -> None:
    """As floats 2^57 + 3 and 2^57 + 4 are one: what costs one too much must not pass, what fits must not be missed."""
    costs = np.array([[2**57 + 3, 2**57 + 2], [1, 0]])
    scores = np.array([[0.0, 1.0], [0.0, 5.0]])
    for side, limit, best, worse in (("max", 2**57 + 3, 1.0, 5.0), ("min", 2**57 + 3, 0.0, 1.0)):
        problem = Problem.from_arrays(scores, costs)
        linear = linearise(problem.with_budget("cost", **{side: limit}))
        for vectors in ((), ((0.0,),), ((1e-3,),), ((2.0,), (-2.0,))):
            assert attempt(linear, Tree(vectors, ()), best).proved
            assert not attempt(linear, Tree(vectors, ()), worse).proved


def test_a_divisor_of_all_differences_closes_the_gap() -> None:
    """Uses are multiples of 64: of a limit of 127 only 64 can be used, and then the bound is the optimum."""
    costs = np.full((30, 2), [0, 64])
    scores = np.full((30, 2), [1.0, 0.0])
    linear = linearise(Problem.from_arrays(scores, costs, budgets={"cost": 64 * 10 + 63}))
    check = check_tree(linear, Tree(((1 / 64,),), ()), 20.0, 1e-11)
    assert check == TreeCheck(proved=True, nodes=0)
    assert not check_tree(linear, Tree(((1 / 64,),), ()), 20.5, 1e-11).proved


def test_a_row_kept_in_integers_closes_what_no_price_can() -> None:
    """Steps of 14 and 4 do not fill 501: prices leave thousands of nodes to look at, the programme none."""
    rng = np.random.default_rng(7)
    step = rng.choice([14, 14, 14, 4], 40)
    costs = {"a": step[:, None] * np.arange(4), "b": rng.integers(0, 50, (40, 4))}
    scores = rng.lognormal(0, 0.3, (40, 1)) * 4.0 ** -np.arange(4) * step[:, None]
    linear = linearise(Problem.from_arrays(scores, costs, budgets={"a": 501, "b": 40 * 50}))  # b is loose
    table = np.full(502, np.inf)
    table[0] = 0.0
    for g in range(40):
        new = np.full(502, np.inf)
        for cost, score in zip(costs["a"][g].tolist(), scores[g].tolist(), strict=True):
            new[cost:] = np.minimum(new[cost:], table[: 502 - cost] + score)
        table = new
    best, slip = float(table.min()), 1e-12 * scale_of(linear.problem)
    prices = find_prices(linear).values
    assert not check_tree(linear, Tree((prices,), ()), best, slip, most_nodes=1000).proved
    kept = Tree((prices,), (), 0, (prices,))
    assert check_tree(linear, kept, best, slip) == TreeCheck(proved=True, nodes=0)
    assert not check_tree(linear, kept, best * (1 + 1e-9), slip).proved


def test_gives_up_after_so_many_nodes() -> None:
    rng = np.random.default_rng(0)
    costs = {"a": rng.integers(1, 1000, (40, 4)), "b": rng.integers(1, 1000, (40, 4))}
    limits = {name: int(column.sum()) // 4 for name, column in costs.items()}
    linear = linearise(Problem.from_arrays(-rng.random((40, 4)), costs, budgets=limits))
    check = check_tree(linear, Tree((), ()), 0.0, 0.0, most_nodes=1000)
    assert not check.proved
    assert check.nodes > 1000


@pytest.mark.parametrize("total", [math.nan, -math.inf])
def test_totals_that_are_no_totals_prove_nothing_false(total: float) -> None:
    linear = linearise(Problem.from_arrays([[0.0, 1.0]], [[1, 0]], budgets={"cost": 1}))
    assert check_tree(linear, Tree((), ()), total, 0.0).proved == (total == -math.inf)
