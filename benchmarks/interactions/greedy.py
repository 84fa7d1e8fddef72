"""The peer of large instances: pair-aware greedy descent, in a few lines of numpy."""

from __future__ import annotations

import numpy as np

from allocator import Problem
from allocator.statement import Basis, IntArray


def greedy(problem: Problem) -> IntArray:
    """From the dearest choices, the cheaper choice of some group that adds least loss per cost saved, until it fits.

    What a choice adds is seen with all others as they stand. One score, one positive basis, one budget. Returns the
    index within each group [G].
    """
    (basis,), (budget,), (cost,) = problem.interactions, problem.budgets, problem.costs.values()
    assert isinstance(basis, Basis)
    assert budget.max is not None
    own, vectors = next(iter(problem.scores.values())), basis.vectors * np.sqrt(basis.eigenvalues)
    group, start = problem.group_of, problem.indptr[:-1]
    spans = zip(start.tolist(), problem.indptr[1:].tolist(), strict=True)
    taken = np.array([a + int(cost[a:b].argmax()) for a, b in spans], np.int64)
    along = vectors @ vectors[taken].sum(axis=0)
    inner = np.einsum("nr,nr->n", vectors, vectors[taken][group])
    used = cost[taken].sum()
    while used > budget.max:
        field = own + along - inner
        saved = cost[taken][group] - cost
        rate = np.where(saved > 0, (field - field[taken][group]) / np.maximum(saved, 1), np.inf)
        row = int(rate.argmin())
        g = int(group[row])
        used -= saved[row]
        along += vectors @ (vectors[row] - vectors[taken[g]])
        taken[g] = row
        own_rows = np.flatnonzero(group == g)
        inner[own_rows] = vectors[own_rows] @ vectors[row]
    return taken - start
