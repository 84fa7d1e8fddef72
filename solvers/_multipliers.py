"""Prices of the rows for any Lagrangian that can be minimised; every price gives a bound, good ones a high one.

One side of one row: the chord between an allocation on either side of the budget ends at the top in a handful of
passes. Several: the ellipsoid method with deep cuts (Shor; Yudin and Nemirovski, 1976), which cannot stall.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from allocator.linear import Row
from allocator.protocols import Limits
from allocator.statement import FloatArray, IntArray, Number

CHORDS = 60
PASSES = 80  # for each row
EPSILON = 2.0**-52
FLAT = 1e-13  # of the size: bounds closer than this are one

Minimise = Callable[[Sequence[float]], tuple[float, IntArray]]


@dataclass(frozen=True, eq=False)
class Seen:
    """One pass: prices per row, the allocation (rows [G]) of least priced value, its own value, and the bound.

    slip: what the bound was lowered by, because sums round.
    """

    prices: tuple[float, ...]
    rows: IntArray
    value: float
    bound: float
    slip: float = 0.0


@dataclass
class Search:
    """The best prices so far.

    rows: of the problem. minimise: prices per row → (least Σ value + Σ λ·use, rows [G] that reach it).
    size: what rounding is relative to.
    """

    rows: Sequence[Row]
    minimise: Minimise
    size: float
    limits: Limits
    seen: list[Seen] = field(default_factory=list)

    @property
    def best(self) -> Seen:
        """The pass with the highest bound, the first among equals."""
        return max(self.seen, key=lambda s: s.bound)

    def look(self, prices: Sequence[float]) -> Seen:
        """One pass."""
        clean = tuple(p if self._limit(k, p) is not None else 0.0 for k, p in enumerate(prices))
        least, rows = self.minimise(clean)
        paid = [p * float(self._limit(k, p) or 0) for k, p in enumerate(clean) if p]
        spent = [p * self.use(k, rows) for k, p in enumerate(clean) if p]
        value = math.fsum([least, *(-s for s in spent)])
        dear = [abs(p) * float(abs(r.column).sum()) for p, r in zip(clean, self.rows, strict=True)]
        slip = (len(rows) + 8) * EPSILON * (self.size + sum(map(abs, paid)) + sum(dear))
        found = Seen(clean, rows, value, math.fsum([least, *(-p for p in paid)]) - slip, slip)
        self.seen.append(found)
        return found

    def use(self, k: int, rows: IntArray) -> float:
        """Use of a row by an allocation."""
        return float(self.rows[k].column[rows].sum())

    def _limit(self, k: int, price: float) -> Number | None:
        return self.rows[k].hi if price > 0 else self.rows[k].lo

    def run(self, first: Sequence[float], reach: Sequence[float], under: Seen | None) -> None:
        """Search around prices that are good for a start.

        Args:
            first: prices per row.
            reach: prices per row beyond which the row decides every choice.
            under: an allocation that keeps the row as well as any, where there is a single side to keep.
        """
        free = self.look([0.0] * len(self.rows))
        if not any(self._slope(k, 0.0, free.rows) for k in range(len(self.rows))):
            return
        if any(first):
            self.look(first)
        if under is not None and len(self.rows) == 1:
            self._chord(free, under)
        else:
            self._ellipsoid(np.array(first, np.float64), np.array(reach, np.float64))

    def _chord(self, over: Seen, under: Seen) -> None:
        """Between `over`, which breaks the only row, and `under`, which keeps it."""
        sign = 1.0 if self.rows[0].hi is not None else -1.0
        limit = self.rows[0].hi if sign > 0 else self.rows[0].lo
        assert limit is not None
        for seen in self.seen:  # a good first price narrows the bracket at once
            if seen is not over:
                over, under = (seen, under) if sign * (self.use(0, seen.rows) - limit) > 0 else (over, seen)
        for _ in range(CHORDS):
            saved = sign * (self.use(0, over.rows) - self.use(0, under.rows))
            if saved <= 0 or self.limits.left <= 0:
                return
            slope = max((under.value - over.value) / saved, 0.0)
            new = self.look([sign * slope])
            line = over.value + slope * sign * self.use(0, over.rows)
            reached = new.value + slope * sign * self.use(0, new.rows)
            if reached >= line - FLAT * (abs(line) + self.size):
                return
            if sign * (self.use(0, new.rows) - limit) > 0:
                over = new
            else:
                under = new

    def _ellipsoid(self, first: FloatArray, reach: FloatArray) -> None:
        """Shrink an ellipsoid that holds the best prices, in units of each row's reach."""
        n = len(self.rows)
        centre, shape = first / reach, np.eye(n) * n
        for _ in range(PASSES * n):
            if self.limits.left <= 0:
                return
            prices = centre * reach
            wrong = [k for k in range(n) if prices[k] and self._limit(k, float(prices[k])) is None]
            if wrong:
                cut, depth = np.zeros(n), abs(float(centre[wrong[0]]))
                cut[wrong[0]] = np.sign(centre[wrong[0]])
            else:
                new = self.look(prices.tolist())
                cut = -np.array([self._slope(k, float(p), new.rows) for k, p in enumerate(prices)]) * reach
                depth = self.best.bound - new.bound
            norm = math.sqrt(max(float(cut @ shape @ cut), 0.0))  # rounding may take a flat shape below 0
            if norm <= (FLAT if wrong else FLAT * self.size) or depth >= norm:
                return
            centre, shape = _halved(centre, shape, cut / norm, depth / norm)

    def _slope(self, k: int, price: float, rows: IntArray) -> float:
        """A supergradient of the bound in a row's price (at 0, of the side that is broken)."""
        hi, lo, use = self.rows[k].hi, self.rows[k].lo, self.use(k, rows)
        if hi is not None and (price > 0 or (price == 0 and use > hi)):
            return use - float(hi)
        if lo is not None and (price < 0 or (price == 0 and use < lo)):
            return use - float(lo)
        return 0.0


def _halved(centre: FloatArray, shape: FloatArray, cut: FloatArray, depth: float) -> tuple[FloatArray, FloatArray]:
    """The smallest ellipsoid round the part of one where cut·(x − centre) ≤ −depth; cutᵀ·shape·cut = 1."""
    n = len(centre)
    step = shape @ cut
    centre = centre - (1 + n * depth) / (n + 1) * step
    if n == 1:
        return centre, shape * ((1 - depth) / 2) ** 2
    least = n * n * (1 - depth * depth) / (n * n - 1)
    shape = least * (shape - 2 * (1 + n * depth) / ((n + 1) * (1 + depth)) * np.outer(step, step))
    return centre, (shape + shape.T) / 2
