"""Prices of the rows for any Lagrangian that can be minimised; every price gives a bound, good ones a high one.

One side of one row: the chord between an allocation on either side of the budget ends at the top in a handful of
passes. Several: subgradient steps of Polyak's length (1969) towards the best allocation's value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from allocator.linear import Row
from allocator.protocols import Limits
from allocator.statement import IntArray, Number

CHORDS = 60
STEPS = 150
EPSILON = 2.0**-52
FLAT = 1e-13  # of the size: bounds closer than this are one
SHORTER = 10  # steps without a better bound after which they are halved

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

    def run(self, first: Sequence[float], under: Seen | None, target: Callable[[], float]) -> None:
        """Search from prices that are good for a start.

        Args:
            first: prices per row.
            under: an allocation that keeps the row as well as any, where there is a single side to keep.
            target: the value of the best feasible allocation known, infinite without one.
        """
        free = self.look([0.0] * len(self.rows))
        if not any(self._slope(k, 0.0, free.rows) for k in range(len(self.rows))):
            return
        if any(first):
            self.look(first)
        if under is not None and len(self.rows) == 1:
            self._chord(free, under)
        else:
            self._polyak(target)

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

    def _polyak(self, target: Callable[[], float]) -> None:
        """Steps in units of each row's range, so that one step length suits all of them."""
        reach = [float(abs(r.column).sum()) / max(len(r.column), 1) or 1.0 for r in self.rows]
        length, stale = 1.0, 0
        now = self.best
        for _ in range(STEPS):
            slopes = [self._slope(k, p, now.rows) for k, p in enumerate(now.prices)]
            norm = sum((s / r) ** 2 for s, r in zip(slopes, reach, strict=True))
            gap = target() - now.bound
            if not math.isfinite(gap):
                gap = 0.05 * self.size
            if norm == 0 or gap <= FLAT * self.size or self.limits.left <= 0 or length < 1e-3:
                return
            step = length * gap / norm
            high = self.best
            new = self.look(
                [
                    self._kept_side(k, p + step * s / r**2)
                    for k, (p, s, r) in enumerate(zip(now.prices, slopes, reach, strict=True))
                ]
            )
            stale = 0 if new.bound > high.bound + FLAT * self.size else stale + 1
            now = new
            if stale >= SHORTER:
                length, stale, now = length / 2, 0, self.best

    def _kept_side(self, k: int, price: float) -> float:
        return price if self._limit(k, price) is not None else 0.0

    def _slope(self, k: int, price: float, rows: IntArray) -> float:
        """A supergradient of the bound in a row's price (at 0, of the side that is broken)."""
        hi, lo, use = self.rows[k].hi, self.rows[k].lo, self.use(k, rows)
        if hi is not None and (price > 0 or (price == 0 and use > hi)):
            return use - float(hi)
        if lo is not None and (price < 0 or (price == 0 and use < lo)):
            return use - float(lo)
        return 0.0
