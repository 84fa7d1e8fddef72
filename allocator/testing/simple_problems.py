"""Two kinds of problems beside the random ones: so simple that everyone solves them, so hard that nobody is done."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random
from typing import Any

import numpy as np

from allocator.problem import Problem
from allocator.statement import Pairs


def simple_rows(seed: int, stats: Sequence[str] = ()) -> dict[str, Any]:
    """Row form: the same three choices a, b, c everywhere, dearer and better in turn, one budget that a alone keeps.

    Costs are integers, losses above 0 and falling faster than costs rise; at most 243 allocations.
    """
    rng = Random(seed)
    groups: list[dict[str, Any]] = []
    least = most = 0
    for g in range(rng.randint(3, 5)):
        weights, loss = rng.randint(100, 5000), rng.uniform(0.1, 2.0)
        costs = [weights * bits // 8 for bits in (2, 4, 8)]
        losses = [loss, loss * rng.uniform(0.2, 0.5), loss * rng.uniform(0.0, 0.1)]
        choices = [
            {"name": name, "cost": {"bytes": cost}, "score": {"s": value}}
            for name, cost, value in zip("abc", costs, losses, strict=True)
        ]
        group: dict[str, Any] = {"name": f"layer{g}", "choices": choices, "weights": weights}
        if stats:
            group["stats"] = {name: 10.0 ** rng.uniform(-2, 2) for name in stats}
        groups.append(group)
        least, most = least + costs[0], most + costs[-1]
    limit = least + int((most - least) * rng.uniform(0.1, 0.9))
    return {
        "format": "allocation-problem",
        "version": 1,
        "groups": groups,
        "budgets": [{"resource": "bytes", "max": limit}],
    }


def hard_problem(
    seed: int, groups: int, choices: int, features: Collection[str] = (), stats: Sequence[str] = ()
) -> Problem:
    """A knapsack whose losses fall by almost exactly what costs rise, under three budgets where `features` has them.

    Where it has `pairs`, twice as many of them as there are groups, of either sign. Every budget lies half-way
    between all cheapest and all dearest choices.
    """
    rng = np.random.default_rng(seed)
    several = "several_budgets" in features
    costs = {f"r{i}": np.sort(rng.integers(1, 10_000, (groups, choices)), axis=1) for i in range(3 if several else 1)}
    saved = sum(column for column in costs.values()) / len(costs) + rng.integers(0, 20, (groups, choices))
    budgets = {r: int(c.min(axis=1).sum() + c.max(axis=1).sum()) // 2 for r, c in costs.items()}
    problem = Problem.from_arrays(
        {"s": saved.max() - saved},
        costs,
        budgets=budgets,
        stats={name: 10.0 ** rng.uniform(-2, 2, groups) for name in stats},
    )
    if "pairs" not in features:
        return problem
    ends = np.array([rng.choice(groups, 2, replace=False) for _ in range(2 * groups)])
    index = ends * choices + rng.integers(0, choices, ends.shape)
    return problem.replace(interactions=(Pairs("s", index.astype(np.int64), rng.normal(0.0, 2000.0, len(index))),))
