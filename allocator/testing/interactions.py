"""Small problems with interactions, and everything about them by enumeration."""

from __future__ import annotations

import itertools

import numpy as np

from allocator.problem import Problem
from allocator.quadratic import Quadratic
from allocator.statement import Basis, Budget, FloatArray, IntArray, Pairs


def drawn(seed: int, groups: int = 4, *, convex: bool = False, pairs: bool = True, rows: int = 1) -> Problem:
    """Ragged groups of 1 to 4 choices, a basis of mixed signs and pairs, `rows` budgets (max, then min, then max)."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, groups)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    n = int(indptr[-1])
    group = np.repeat(np.arange(groups), sizes)
    vectors = rng.normal(size=(n, 3)) * rng.choice([0.1, 1.0], (n, 1))
    signs = np.abs(rng.normal(size=3)) if convex else rng.normal(size=3)
    parts: tuple[Basis | Pairs, ...] = (Basis("s", signs, vectors),)
    a, b = np.nonzero(np.triu(group[:, None] != group[None, :]) & (rng.random((n, n)) < 0.3))
    if pairs and not convex and len(a):
        parts = (*parts, Pairs("s", np.stack([a, b], axis=1), rng.normal(size=len(a))))
    value = rng.normal(size=n) * 0.5
    costs = {name: rng.integers(0, 12, n) for name in "bcd"}
    limits = []
    for name in "bcd"[:rows]:
        mean = sum(float(costs[name][s:e].mean()) for s, e in itertools.pairwise(indptr))
        limits.append(
            Budget(resource=name, min=int(0.6 * mean)) if name == "c" else Budget(resource=name, max=int(mean))
        )
    problem = Problem.from_arrays({"s": value}, costs, indptr=indptr)
    return problem.replace(interactions=parts, budgets=tuple(limits))


def every(problem: Problem) -> list[IntArray]:
    """All allocations, as rows [G]."""
    spans = [range(int(s), int(e)) for s, e in itertools.pairwise(problem.indptr)]
    return [np.array(rows) for rows in itertools.product(*spans)]


def dense_total(model: Quadratic, rows: IntArray) -> float:
    """Σ value + Σ W of an allocation, by the whole matrix."""
    between = model.matrix[np.ix_(rows, rows)].sum() / 2
    return float(model.linear.value[rows].sum() + between)


def keeps(problem: Problem, rows: IntArray) -> bool:
    """Whether an allocation keeps every budget."""
    return problem.evaluate(rows - problem.indptr[:-1]).feasible


def least(model: Quadratic) -> float:
    """The least total of all feasible allocations; infinite without any."""
    problem = model.problem
    return min((dense_total(model, r) for r in every(problem) if keeps(problem, r)), default=float("inf"))


def indicator(count: int, rows: IntArray) -> FloatArray:
    """1 where a row is taken [count]."""
    x = np.zeros(count)
    x[rows] = 1.0
    return x
