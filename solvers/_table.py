"""The grouped knapsack by a table over the budget: one row operation per choice."""

from __future__ import annotations

import math

import numpy as np

from allocator.linear import Linear
from allocator.protocols import Limits
from allocator.statement import FloatArray, IntArray
from solvers._integers import Units

MEMORY = 2**24  # numbers held of the tables of all groups; above it some are worked out again


class Table:
    """least[w]: the smallest Σ value of the groups so far with Σ use ≤ w, for w = 0 … budget.

    New table of a group: least'[w] = min_k least[w − use_k] + value_k. (Dynamic programming after Bellman, 1957;
    for groups of choices Dudziński and Walukiewicz, 1987.) `done` is False where time ran out before the end.
    """

    def __init__(self, linear: Linear, units: Units, limits: Limits) -> None:
        self.linear = linear
        self.units = units
        groups = linear.problem.group_count
        whole = groups * (units.budget + 1) <= MEMORY
        self._stride = 1 if whole else math.isqrt(groups) + 1
        self._kept: dict[int, FloatArray] = {}
        self.done = False
        least: FloatArray = np.zeros(units.budget + 1)
        for g in range(groups):
            if g % self._stride == 0:
                self._kept[g] = least
            if limits.left <= 0:
                return
            least = self._next(least, g)
        self.last = least
        self.done = True

    @property
    def value(self) -> float:
        """The least Σ value within the budget, infinite where nothing is."""
        return float(self.last[-1])

    def rows(self) -> IntArray | None:
        """The allocation (rows [G]) that reaches it, the first among equals from the last group back."""
        if not math.isfinite(self.value):
            return None
        groups, left = self.linear.problem.group_count, self.units.budget
        taken = np.zeros(groups, np.int64)
        before: list[FloatArray] = []
        for g in range(groups - 1, -1, -1):
            first = g - g % self._stride
            if len(before) <= g - first:
                before = [self._kept[first]]
                for h in range(first, g):
                    before.append(self._next(before[-1], h))
            rows, use = self._choices(g)
            fits = use <= left
            reached = np.where(fits, before[g - first][np.where(fits, left - use, 0)], np.inf)
            best = int((reached + self.linear.value[rows]).argmin())
            taken[g] = rows[best]
            left -= int(use[best])
            before.pop()
        return taken

    def _choices(self, g: int) -> tuple[IntArray, IntArray]:
        indptr = self.linear.problem.indptr
        rows = np.arange(indptr[g], indptr[g + 1])
        return rows, self.units.use[rows]

    def _next(self, least: FloatArray, g: int) -> FloatArray:
        new = np.full(len(least), np.inf)
        rows, use = self._choices(g)
        for value, spent in zip(self.linear.value[rows].tolist(), use.tolist(), strict=True):
            if spent < len(least):
                part = new[spent:]
                np.minimum(part, least[: len(least) - spent] + value, out=part)
        return new
