"""Repair and local search against what they promise: feasible, then no single change that is feasible and better."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from allocator.linear import Linear, linearise
from allocator.local_search import cheapest, improved, repaired
from allocator.problem import Problem
from allocator.reduce import reduce
from allocator.statement import IntArray
from allocator.testing.random_problems import LINEAR
from allocator.testing.strategies import problems


def keeps(linear: Linear, taken: IntArray) -> bool:
    use = [float(r.column[taken].astype(np.float64).sum()) for r in linear.rows]
    return all(
        (r.hi is None or u <= float(r.hi)) and (r.lo is None or u >= float(r.lo))
        for r, u in zip(linear.rows, use, strict=True)
    )


def separable(problem: Problem) -> Linear | None:
    reduced = reduce(problem).problem
    return None if reduced is None else linearise(reduced)


@given(problems(LINEAR))
def test_repair_keeps_every_row_and_search_ends_where_no_change_helps(problem: Problem) -> None:
    linear = separable(problem)
    first = None if linear is None else cheapest(linear)
    if linear is None or first is None:
        return
    taken = repaired(linear, first)
    if taken is None:
        return
    assert keeps(linear, taken)
    end = improved(linear, taken)
    assert keeps(linear, end)
    assert linear.value[end].sum() <= linear.value[taken].sum()
    size = float(np.abs(linear.value).sum())
    for row in np.flatnonzero(linear.free).tolist():
        other = end.copy()
        other[linear.problem.group_of[row]] = row
        if keeps(linear, other):
            assert linear.value[end].sum() <= linear.value[other].sum() + 1e-12 * size


def test_one_budget_is_always_repaired_where_it_can_be() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        costs = rng.integers(0, 100, (30, 5))
        limit = int(costs.min(axis=1).sum()) + int(rng.integers(0, 50))
        linear = linearise(Problem.from_arrays(rng.random((30, 5)), costs, budgets={"cost": limit}))
        first = cheapest(linear)
        assert first is not None
        taken = repaired(linear, first)
        assert taken is not None, seed
        assert keeps(linear, taken)
