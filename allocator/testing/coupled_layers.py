"""A strongly coupled toy: layers that share steep axes, two of them downhill, small enough for all its allocations."""

from __future__ import annotations

import numpy as np

from allocator.problem import Problem
from allocator.statement import Basis, FloatArray, IntArray

WIDTHS = (2, 3, 4, 6, 8)


def coupled_layers(seed: int, bits: float, layers: int = 7) -> Problem:
    """A quadratic loss over weights whose layers share steep axes, two of them downhill; 2, 3, 4, 6 or 8 bits.

    As a profiler would write it: v = the axes' products with each choice's error, unary = what the choice adds alone.
    The budget is `bits` on average.
    """
    rng = np.random.default_rng(seed)
    size, grid = 24, np.array(WIDTHS)
    axes = np.linalg.qr(rng.normal(size=(layers * size, 12)))[0]
    curve = np.r_[np.geomspace(30.0, 1.0, 10), -4.0, -2.0]
    weights, slope = rng.normal(size=(layers, size)), 0.02 * rng.normal(size=(layers, size))
    sizes = rng.integers(2, 40, layers) * 1000
    vectors, unary = np.zeros((layers, 5, 12)), np.zeros((layers, 5))
    for g in range(layers):
        for k, b in enumerate(grid):
            step = 2 * np.abs(weights[g]).max() / (2.0**b - 1)
            error = step * (np.floor(weights[g] / step) + 0.5) - weights[g]
            vectors[g, k] = axes[g * size : (g + 1) * size].T @ error
            unary[g, k] = slope[g] @ error + 0.05 * error @ error + 0.5 * curve @ vectors[g, k] ** 2
    problem = Problem.from_arrays(
        {"s": unary}, {"bits": np.outer(sizes, grid)}, budgets={"bits": int(bits * sizes.sum())}
    )
    return problem.replace(interactions=(Basis("s", curve, vectors.reshape(-1, 12)),))


def table(problem: Problem) -> tuple[IntArray, FloatArray, FloatArray]:
    """Every allocation [M, G], its loss and its use of the only resource: the formula of the format, in plain numpy.

    For a problem of one score ``s`` whose interactions are bases.
    """
    every = np.indices(problem.sizes.tolist()).reshape(problem.group_count, -1).T.astype(np.int64)
    rows = every + problem.indptr[:-1]
    loss = problem.scores["s"][rows].sum(axis=1)
    for part in problem.interactions:
        assert isinstance(part, Basis)
        for e, v in zip(part.eigenvalues, part.vectors.T, strict=True):
            loss = loss + 0.5 * e * (v[rows].sum(axis=1) ** 2 - (v[rows] ** 2).sum(axis=1))
    (cost,) = problem.costs.values()
    return every, loss, cost[rows].sum(axis=1).astype(np.float64)
