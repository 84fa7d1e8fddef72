"""Prices of several budget rows at the top of the Lagrangian bound: the LP over whole allocations.

min Σ_j w_j value_j, Σ_j w_j use_j within the limits, Σ w_j = 1 over the allocations j seen so far; its prices ask
for the next allocation (Dantzig and Wolfe 1960, the dual view of Kelley's cutting planes). The basis has one
column per side of a row and one more, so that each step solves systems of at most nine equations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from allocator.engine.several_core import NONE, Core
from allocator.statement import FloatArray, IntArray

STEPS = 150
DEAR = 1e4  # the price at which a broken side is bought, in units of Σ range of values / range of uses


@dataclass(frozen=True, eq=False)
class Top:
    """prices [R] of the highest bound seen, that bound (rounding not taken off), and allocations [D] seen last."""

    prices: FloatArray
    bound: float
    seen: list[IntArray]


def bounds_of(core: Core, prices: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The bound under each usable price vector [K, R] and the priced columns [K, n] less their groups' minima."""
    column = core.value + prices @ core.weight
    paid = (prices * core.limits(prices)).sum(axis=1)
    if not core.depth:
        return core.start - paid, column
    least = np.minimum.reduceat(column, core.indptr[:-1], axis=1)
    return core.start + least.sum(axis=1) - paid, column - np.repeat(least, np.diff(core.indptr), axis=1)


def cheapest(core: Core, column: FloatArray) -> IntArray:
    """Index of the smallest entry of each group [D]."""
    least = np.minimum.reduceat(column, core.indptr[:-1])
    hits = np.flatnonzero(column == np.repeat(least, np.diff(core.indptr)))
    return np.asarray(hits[np.searchsorted(hits, core.indptr[:-1])])


def top_prices(core: Core, first: FloatArray | None = None) -> Top:
    """Prices of (nearly) the highest bound; from `first` where given."""
    count = len(core.hi)
    if not core.depth or not count:
        return Top(np.zeros(count), core.start + _least(core), [])
    sides = [(r, 1.0) for r in range(count) if core.hi[r] != NONE] + [
        (r, -1.0) for r in range(count) if core.lo[r] != -NONE
    ]
    if not sides:
        return Top(np.zeros(count), core.start + _least(core), [cheapest(core, core.value)])
    return _Master(core, sides).run(first)


def _least(core: Core) -> float:
    return math.fsum(np.minimum.reduceat(core.value, core.indptr[:-1]).tolist()) if core.depth else 0.0


class _Master:
    def __init__(self, core: Core, sides: list[tuple[int, float]]) -> None:
        self.core = core
        self.row = np.array([r for r, _ in sides])
        self.sign = np.array([s for _, s in sides])
        limit = np.array([core.hi[r] if s > 0 else -core.lo[r] for r, s in sides], np.float64)
        self.unit = np.maximum(core.spread[self.row], 1.0)
        at = core.indptr[:-1]
        reach = np.maximum.reduceat(core.value, at) - np.minimum.reduceat(core.value, at)
        self.worth = float(reach.sum()) or 1.0
        self.limit = limit / self.unit

    def run(self, first: FloatArray | None) -> Top:
        size = len(self.row)
        seen: list[IntArray] = []
        prices: FloatArray = np.zeros(size)
        if first is not None:
            prices = np.maximum(self.sign * first[self.row], 0.0) * self.unit / self.worth
        taken, bound, net = self._pass(prices)
        seen.append(taken)
        best, best_prices = bound, net
        value, column = self._column(taken)
        basis = np.zeros((size + 1, size + 1))
        cost = np.zeros(size + 1)
        basis[:, size] = [*column, 1.0]
        cost[size] = value
        short = self.limit - column
        for s in range(size):  # a slack where the side is kept, else what buys it
            basis[s, s] = 1.0 if short[s] >= 0 else -1.0
            cost[s] = 0.0 if short[s] >= 0 else DEAR
        right = np.append(self.limit, 1.0)
        for _ in range(STEPS):
            try:
                dual = np.linalg.solve(basis.T, cost)
                weights = np.linalg.solve(basis, right)
            except np.linalg.LinAlgError:
                break
            prices = np.asarray(-dual[:size], np.float64)
            entering = np.zeros(size + 1)
            lowest = int(prices.argmin())
            dearest = int(prices.argmax())
            if prices[lowest] < -1e-12:
                entering[lowest], price = 1.0, 0.0
            elif prices[dearest] > DEAR * (1 + 1e-12):
                entering[dearest], price = -1.0, DEAR
            else:
                taken, bound, net = self._pass(np.maximum(prices, 0.0))
                if bound > best:
                    best, best_prices = bound, net
                seen.append(taken)
                price, column = self._column(taken)
                entering[:] = [*column, 1.0]
                if price - dual @ entering > -1e-14 * (abs(price) + np.abs(prices * column).sum() + abs(dual[-1])):
                    break
            direction = np.linalg.solve(basis, entering)
            grows = direction > 1e-11
            if not grows.any():
                break
            ratio = np.where(grows, np.maximum(weights, 0.0) / np.where(grows, direction, 1.0), np.inf)
            leaves = int(ratio.argmin())
            basis[:, leaves], cost[leaves] = entering, price
        return Top(best_prices, best, seen)

    def _pass(self, prices: FloatArray) -> tuple[IntArray, float, FloatArray]:
        """The allocation that prices per side ask for, its bound, and prices per row."""
        core = self.core
        net = np.zeros(len(core.hi))
        np.add.at(net, self.row, self.sign * prices * self.worth / self.unit)
        column = core.value + net @ core.weight
        taken = cheapest(core, column)
        bound = core.start + float(column[taken].sum()) - float(net @ core.limits(net))
        return taken, bound, net

    def _column(self, taken: IntArray) -> tuple[float, FloatArray]:
        core = self.core
        use = core.weight[:, taken].sum(axis=1)
        return float(core.value[taken].sum()) / self.worth, self.sign * use[self.row] / self.unit
