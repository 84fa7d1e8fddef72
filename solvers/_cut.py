"""The least cut on a score at which each group's cheapest choice within it fits the budget."""

from __future__ import annotations

import numpy as np

from allocator.protocols import Limits
from allocator.statement import FloatArray, IntArray
from solvers._axis import Axis


def least_cut(axis: Axis, score: FloatArray, limits: Limits) -> tuple[IntArray, float]:
    """Rows [G] and the cut: each group takes the cheapest of its choices whose score is at most the cut.

    A higher cut never costs more, so that bisection over the scores that occur finds the least cut that fits;
    where none fits, or time runs out, a higher cut stands. A score of ∞ rules a choice out; each group needs
    one below it.
    """
    along = score[axis.order]
    floor = np.minimum.reduceat(along, axis.starts).max()  # below it some group has nothing left
    levels = np.unique(along[(along >= floor) & (along < np.inf)])
    low, high = 0, len(levels) - 1
    while low < high and limits.left > 0:
        middle = (low + high) // 2
        if axis.fits(axis.cheapest_of(along <= levels[middle])):
            high = middle
        else:
            low = middle + 1
    return axis.cheapest_of(along <= levels[high]), float(levels[high])
