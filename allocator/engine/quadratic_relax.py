"""The convex program over parts of choices at any size, by descent over groups; what it gives is a point and prices.

½ Σ e c² for e > 0, the secants for e < 0, pairs of negative value at their ends: a convex function below the loss
(`allocator.certificate_dual.Dual`). Any point gives a valid bound, so the descent may stop anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from time import monotonic
from typing import Any

import numpy as np

from allocator.certificate_dual import Dual
from allocator.engine import native
from allocator.engine.quadratic_model import Compact
from allocator.engine.quadratic_search import FOREVER
from allocator.statement import FloatArray

SWEEPS = 128
STEPS = 4
PUSH = 1.0  # step of the prices, in units of the loss and of the limits
CHORDS = 60
SHARES = (1.0, 0.9, 0.7, 0.4, 0.0)  # of the point: a smaller one may bound more where the descent has not settled
STILL = 1e-6  # of the loss: what a sweep gains when it is time to stop


class Relaxed:
    """parts [n]: of choices; mean [n]: of all sweeps, for where the last one has not settled. dual: the certificate.

    bound: on Σ value + Σ W in the form's units, rounding aside.
    """

    def __init__(self, form: Compact, unit: float, seconds: float = math.inf, engine: str | None = None) -> None:
        self.form = form
        up = form.sign > 0
        own = 0.5 * np.einsum("nr,nr,r->n", form.vectors, form.vectors, form.sign)
        self.linear = form.value - own
        bent, along = form.sign[~up], form.vectors[:, ~up]
        low = np.minimum.reduceat(along, form.start[:-1], axis=0).sum(axis=0)
        high = np.maximum.reduceat(along, form.start[:-1], axis=0).sum(axis=0)
        self.linear = self.linear + along @ (0.5 * bent * (low + high))
        self.constant = float((-0.5 * bent * low * high).sum())
        self.linear += 0.5 * np.bincount(form.ends, np.minimum(form.worth, 0.0), form.choices)
        self.vectors = form.vectors if up.all() else np.ascontiguousarray(form.vectors[:, up])
        self.sign = np.ascontiguousarray(form.sign[up])
        self.parts = 1.0 / np.diff(form.start)[form.group]
        self.mean = np.zeros(form.choices)
        self._sides()
        self.price = np.zeros(len(self.limit))
        unit = max(unit, form.least)
        kernels = native() if engine != "numpy" else None
        if kernels is None:
            self._descend(unit, monotonic() + seconds)
        else:
            self._descend_in_c(kernels, unit, min(max(seconds, 0.0), FOREVER))
        top = max((found for parts in (self.parts, self.mean) for found in self._bounds(parts)), key=lambda one: one[0])
        self.bound, self.price, along = top
        point = np.zeros(len(form.sign))
        point[up] = np.ldexp(along, -form.lift)
        self.dual = Dual(self._values(), point)

    def _bounds(self, parts: FloatArray) -> Iterator[tuple[float, FloatArray, FloatArray]]:
        """For shares of a point y = e·c of these parts: the bound, its prices, and y."""
        along = self.sign * (parts @ self.vectors)
        bent, square = self.vectors @ along, 0.5 * float(along @ (along / self.sign)) if len(along) else 0.0
        for share in SHARES:
            column = self.linear + share * bent
            price = best_prices(self.form, column, self.column, self.limit, self.price)
            least = np.minimum.reduceat(column + price @ self.column, self.form.start[:-1])
            sides = float(price @ self.limit)
            yield float(least.sum()) - share * share * square - sides + self.constant, price, share * along

    def _sides(self) -> None:
        """column [S, n] and limit [S] of the sides in units of what they leave above each group's least."""
        form, columns, limits, self.where = self.form, [], [], []
        for r in range(len(form.lo)):
            for sign, limit in ((1.0, form.hi[r]), (-1.0, form.lo[r])):
                if not math.isfinite(limit):
                    continue
                column = sign * form.column[:, r]
                least = np.minimum.reduceat(column, form.start[:-1])
                column = column - least[form.group]
                room = sign * limit - float(least.sum())
                unit = room if room > 1e-12 * form.size[r] else float(column.max()) or 1.0
                columns.append(column / unit)
                limits.append(max(room, 0.0) / unit)
                self.where.append((r, sign, unit))
        self.column = np.array(columns, np.float64).reshape(len(columns), form.choices)
        self.limit = np.array(limits)

    def _values(self) -> tuple[float, ...]:
        linear = self.form.source.linear
        values = [0.0] * len(linear.problem.budgets)
        for price, (r, sign, unit) in zip(self.price.tolist(), self.where, strict=True):
            row = linear.rows[int(self.form.stated[r])]
            values[row.budget] += sign * math.ldexp(price, -self.form.lift) / unit
        return tuple(values)

    @property
    def pressures(self) -> FloatArray:
        """Prices of the form's rows, in its own units: of the upper sides, then of the lower ones [2R]."""
        rows = len(self.form.lo)
        found = np.zeros(2 * rows)
        for price, (r, sign, unit) in zip(self.price.tolist(), self.where, strict=True):
            found[r if sign > 0 else rows + r] = price / unit
        return found

    def _descend_in_c(self, kernels: Any, unit: float, seconds: float) -> None:
        form = self.form
        options = np.array([PUSH * unit, STILL * unit, seconds])
        arrays = [form.start, self.linear, self.vectors, self.sign, self.column, self.limit]
        arrays += [self.parts, self.mean, self.price, options]
        sizes = [form.groups, form.choices, len(self.sign), len(self.limit), SWEEPS, STEPS]
        frame = np.array([*sizes, *(a.ctypes.data for a in arrays)], np.int64)
        kernels.quadratic_relax(frame.ctypes.data)

    def _descend(self, unit: float, deadline: float) -> None:
        form, push = self.form, PUSH * unit
        spans = [
            slice(a, b) for a, b in zip(form.start[:-1].tolist(), form.start[1:].tolist(), strict=True) if b > a + 1
        ]
        blocks = [(self.vectors[s] * self.sign) @ self.vectors[s].T for s in spans]
        for sweep in range(SWEEPS):
            along = self.parts @ self.vectors
            over = self.column @ self.parts - self.limit
            gained = 0.0
            for s, block in zip(spans, blocks, strict=True):
                rows = self.vectors[s]
                price = np.maximum(self.price + push * over, 0.0)
                slope = self.linear[s] + rows @ (self.sign * along) + price @ self.column[:, s]
                step = self._step(s, slope, block, push, price > 0)
                if step is not None:
                    gained += float(-slope @ step)
                    along += step @ rows
                    over += self.column[:, s] @ step
            self.price = np.maximum(self.price + push * over, 0.0)
            self.mean += (self.parts - self.mean) * (2.0 / (sweep + 2))
            if monotonic() > deadline or (sweep > 8 and abs(gained) < STILL * unit):
                break

    def _step(
        self, s: slice, slope: FloatArray, block: FloatArray, push: float, pressed: np.ndarray
    ) -> FloatArray | None:
        """A change of one group's parts: mass from its dearest choices to its cheapest."""
        parts, column = self.parts[s], self.column[:, s][pressed]
        curved = block + push * column.T @ column
        begin = parts.copy()
        for _ in range(STEPS):
            high = int(np.where(parts > 0, slope, -np.inf).argmax())
            low = int(slope.argmin())
            steep = float(slope[high] - slope[low])
            if high == low or steep <= 0:
                break
            bend = float(curved[high, high] + curved[low, low] - 2 * curved[high, low])
            moved = min(parts[high], steep / bend) if bend > 0 else parts[high]
            parts[high] -= moved
            parts[low] += moved
            slope = slope + moved * (curved[low] - curved[high])
        step = parts - begin
        return step if step.any() else None


def best_prices(
    form: Compact, cost: FloatArray, column: FloatArray, limit: FloatArray, price: FloatArray
) -> FloatArray:
    """Prices ≥ 0 of the sides with a high Lagrangian bound: one side after the other, by chords."""
    price = price.copy()
    for turn in range(len(limit) if len(limit) < 2 else 3 * len(limit)):
        i = turn % len(limit)
        rest = cost + np.where(np.arange(len(limit)) == i, 0.0, price) @ column
        price[i] = _best_price(form, rest, column[i], float(limit[i]), float(price[i]))
    return price


def _best_price(form: Compact, cost: FloatArray, column: FloatArray, limit: float, guess: float) -> float:
    start = form.start[:-1]

    def at(price: float) -> tuple[float, float]:
        priced = cost + price * column
        least = np.minimum.reduceat(priced, start)
        hit = np.where(priced == least[form.group], column, np.inf)
        return float(least.sum()) - price * limit, float(np.minimum.reduceat(hit, start).sum()) - limit

    low, (left, up) = 0.0, at(0.0)
    if up <= 0:
        return 0.0
    high = max(guess, 1e-9 * float(np.abs(cost).max(initial=0.0)), 1e-300)
    right, down = at(high)
    for _ in range(200):
        if down <= 0:
            break
        low, left, up = high, right, down
        high *= 2.0
        right, down = at(high)
    if down > 0 or not math.isfinite(right):
        return low
    best = (left, low) if left > right else (right, high)
    for _ in range(CHORDS):
        middle = (right - left + up * low - down * high) / (up - down) if up > down else low
        if not low < middle < high:
            break
        here, rise = at(middle)
        best = max(best, (here, middle))
        if rise == 0 or here >= left + up * (middle - low) - 1e-15 * abs(here):
            break
        if rise > 0:
            low, left, up = middle, here, rise
        else:
            high, right, down = middle, here, rise
    return best[1]
