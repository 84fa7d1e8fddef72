"""The methods of one cut, desired_error and threshold, against naive cuts and components dropped one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import allocator
from allocator.problem import Problem
from allocator.statement import Loss
from allocator.testing.depth import times

Groups = list[tuple[list[int], list[float]]]


def from_groups(groups: Groups, budget: float, **stats: Any) -> Problem:
    """Groups as (costs, losses), and their stats."""
    costs = np.array([c for cs, _ in groups for c in cs])
    losses = np.array([v for _, vs in groups for v in vs], np.float64)
    indptr = np.cumsum([0, *(len(cs) for cs, _ in groups)])
    numbers = {name: np.array(values, np.float64) for name, values in stats.items()}
    return Problem.from_arrays(losses, costs, indptr=indptr, budgets={"cost": budget}, stats=numbers)


def naive_cut(groups: Groups, scores: list[list[float]], budget: float) -> list[int]:
    """For every level in turn: the cheapest choice within it, of equally cheap ones that of least loss."""
    for level in sorted({s for group in scores for s in group}):
        rows = []
        for (costs, losses), score in zip(groups, scores, strict=True):
            within = [k for k in range(len(costs)) if score[k] <= level]
            rows.append(min(within, key=lambda k: (costs[k], losses[k]), default=None))
        if None not in rows and sum(g[0][k] for g, k in zip(groups, rows, strict=True)) <= budget:
            return rows
    raise AssertionError("nothing fits")


def ragged(rng: np.random.Generator) -> tuple[Groups, float]:
    groups: Groups = []
    for _ in range(int(rng.integers(2, 7))):
        n = int(rng.integers(1, 7))
        groups.append((rng.integers(1, 30, n).tolist(), rng.integers(0, 40, n).astype(float).tolist()))
    low = sum(min(c) for c, _ in groups)
    return groups, low + float(rng.integers(0, 60))


def test_desired_error_is_the_least_relative_error() -> None:
    rng = np.random.default_rng(6)
    for i in range(times(150)):
        groups, budget = ragged(rng)
        norm = rng.uniform(0.5, 3.0, len(groups))
        stats = {"norm": norm} if i % 2 else {}
        sizes = norm if i % 2 else [max(v) or 1.0 for _, v in groups]
        relative = [[v / s for v in losses] for (_, losses), s in zip(groups, sizes, strict=True)]
        solution = allocator.solve(from_groups(groups, budget, **stats), solver="desired_error")
        assert solution.allocation is not None
        assert solution.allocation.choice.tolist() == naive_cut(groups, relative, budget)


def test_desired_error_equalises() -> None:
    """Errors 2^(−c/s) in fine steps: all relative errors come out equal but for a step."""
    speeds = [3.0, 7.0, 12.0]
    costs = list(range(400))
    groups = [(costs, [10.0**i * 2 ** (-c / (10 * s)) for c in costs]) for i, s in enumerate(speeds)]
    problem = from_groups(groups, 600)
    solution = allocator.solve(problem, solver="desired_error")
    assert solution.allocation is not None
    errors = problem.unary[solution.allocation.rows()] / np.array([1.0, 10.0, 100.0])
    assert errors.max() / errors.min() < 2 ** (1 / 30) + 1e-9
    assert solution.run["statistics"]["relative_error"] == pytest.approx(errors.max())


def test_threshold_by_level() -> None:
    rng = np.random.default_rng(7)
    for _ in range(times(150)):
        groups, budget = ragged(rng)
        solution = allocator.solve(from_groups(groups, budget), solver="threshold", by="level")
        assert solution.allocation is not None
        assert solution.allocation.choice.tolist() == naive_cut(groups, [v for _, v in groups], budget)


def test_threshold_drops_components_in_the_order_of_one_score_map() -> None:
    """Nested components: sort all of them, drop the least until the budget holds; both forms agree with it."""
    rng = np.random.default_rng(8)
    for _ in range(times(60)):
        parts = [np.sort(rng.permutation(1000)[: int(rng.integers(1, 8))] + 1.0 + g / 10) for g in range(4)]
        price = rng.integers(1, 9, 4).tolist()
        kept = [len(p) for p in parts]
        budget = int(rng.integers(0, sum(p * k for p, k in zip(price, kept, strict=True)) + 1))
        for _, g in sorted((score, g) for g, p in enumerate(parts) for score in p.tolist()):
            if sum(p * k for p, k in zip(price, kept, strict=True)) > budget:
                kept[g] -= 1
        costs = [[w * k for k in range(len(p) + 1)] for w, p in zip(price, parts, strict=True)]
        losses = [[float(p[: len(p) - k].sum()) for k in range(len(p) + 1)] for p in parts]
        dropped = [[float(p[len(p) - k - 1]) if k < len(p) else 0.0 for k in range(len(p) + 1)] for p in parts]
        indptr = np.cumsum([0, *map(len, costs)])
        problem = Problem.from_arrays(
            {"loss_added": np.concatenate(losses), "largest": np.concatenate(dropped)},
            np.concatenate(costs),
            indptr=indptr,
            budgets={"cost": budget},
            loss=Loss({"loss_added": 1.0}),
        )
        for options in ({"by": "step"}, {"by": "level", "score": "largest"}):
            solution = allocator.solve(problem, solver="threshold", **options)
            assert solution.allocation is not None
            assert solution.allocation.choice.tolist() == kept


def test_threshold_does_not_pass_a_large_step_for_a_small_one() -> None:
    """The way down is 9 and then 1: nobody gets to the second step before the first is within the threshold."""
    groups: Groups = [([0, 1, 2], [10.0, 9.0, 0.0]), ([0, 1, 2], [8.0, 3.0, 0.0])]
    wanted = {4: [2, 2], 3: [2, 1], 2: [2, 0], 1: [0, 0], 0: [0, 0]}
    for budget, places in wanted.items():
        solution = allocator.solve(from_groups(groups, budget), solver="threshold")
        assert solution.allocation is not None
        assert solution.allocation.choice.tolist() == places
