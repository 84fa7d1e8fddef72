"""Finds prices of the budget rows whose Lagrangian bound is high; any prices are valid, good ones are useful.

One row: the bound is concave and piecewise linear in λ, and the chord between the allocations of a bracket
finds its exact top in a handful of passes. Several rows: the ellipsoid method with deep cuts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from allocator.linear import Linear, Row
from allocator.statement import FloatArray, IntArray

CHORDS = 60
PASSES = 120
FLAT = 1e-13  # an ellipsoid that is no thicker than this in the direction of a cut is done


@dataclass(frozen=True, eq=False)
class Priced:
    """The best allocation under given prices: its rows [G], Σ value, uses per row, and the bound."""

    rows: IntArray
    value: float
    uses: tuple[float, ...]
    bound: float


@dataclass(frozen=True, eq=False)
class Prices:
    """values: per budget row of the problem. low and high: allocations [G] seen on either side of the budget."""

    values: tuple[float, ...]
    bound: float
    seen: tuple[Priced, ...]


def find_prices(linear: Linear) -> Prices:
    """Prices with the highest bound found, and the allocations seen on the way."""
    count = max(len(linear.problem.budgets), *(r.budget + 1 for r in linear.rows), 0)
    sides = [r for r in linear.rows if r.hi is not None or r.lo is not None]
    if not sides:
        return Prices((0.0,) * count, 0.0, (_pass(linear, [], []),))
    if len(sides) == 1 and (sides[0].hi is None or sides[0].lo is None):
        best, seen = _chord(linear, sides[0])
        prices = [best]
    else:
        prices, seen = _ellipsoid(linear, sides)
    values = [0.0] * count
    for row, price in zip(sides, prices, strict=True):
        values[row.budget] = price
    return Prices(tuple(values), max(p.bound for p in seen), tuple(seen))


def argmin(linear: Linear, column: FloatArray) -> IntArray:
    """Row of the smallest free entry of each group [G], the first among equals."""
    indptr, sizes = linear.problem.indptr, linear.problem.sizes
    masked = column if linear.free.all() else np.where(linear.free, column, np.inf)
    width = int(sizes[0])
    if (sizes == width).all():
        return np.asarray(masked.reshape(-1, width).argmin(axis=1) + indptr[:-1])
    least = np.minimum.reduceat(masked, indptr[:-1])
    hits = np.flatnonzero(masked == np.repeat(least, sizes))
    first = np.searchsorted(hits, indptr[:-1])
    return np.asarray(hits[first])


def _pass(linear: Linear, rows: list[Row], prices: list[float]) -> Priced:
    column = linear.value
    for row, price in zip(rows, prices, strict=True):
        if price:
            column = column + price * row.column
    taken = argmin(linear, column)
    value = float(linear.value[taken].sum())
    uses = tuple(float(r.column[taken].sum()) for r in rows)
    bound = value
    for row, price, use in zip(rows, prices, uses, strict=True):
        limit = row.hi if price > 0 else row.lo
        bound += price * (use - float(limit)) if price and limit is not None else 0.0
    return Priced(taken, value, uses, bound)


def _excess(row: Row, use: float, sign: int) -> float:
    """How far a use is over the side that `sign` prices."""
    limit = row.hi if sign > 0 else row.lo
    return sign * (use - float(limit if limit is not None else np.inf * sign))


def _chord(linear: Linear, row: Row) -> tuple[float, list[Priced]]:
    sign = 1 if row.hi is not None else -1
    over = _pass(linear, [row], [0.0])
    if _excess(row, over.uses[0], sign) <= 0:
        return 0.0, [over]
    cheapest = argmin(linear, sign * row.column.astype(np.float64))
    under = Priced(cheapest, float(linear.value[cheapest].sum()), (float(row.column[cheapest].sum()),), -np.inf)
    best, seen = 0.0, [over]
    if _excess(row, under.uses[0], sign) > 0:
        return 0.0, seen  # no allocation keeps the row
    for _ in range(CHORDS):
        saved = sign * (over.uses[0] - under.uses[0])
        if saved <= 0:
            break
        slope = max((under.value - over.value) / saved, 0.0)
        new = _pass(linear, [row], [sign * slope])
        seen.append(new)
        if new.bound >= max(p.bound for p in seen[:-1]):
            best = sign * slope
        line = over.value + slope * sign * over.uses[0]
        if new.value + slope * sign * new.uses[0] >= line - 1e-15 * (abs(line) + abs(over.value)):
            break
        if _excess(row, new.uses[0], sign) > 0:
            over = new
        else:
            under = new
    return best, [*seen, under] if np.isfinite(under.bound) else seen


def _ellipsoid(linear: Linear, rows: list[Row]) -> tuple[list[float], list[Priced]]:
    """Maximise the bound over prices whose signs the rows allow (a row with both sides takes either)."""
    reach = np.array([_reach(linear, r) for r in rows])
    low = np.array([-1.0 if r.lo is not None else 0.0 for r in rows])
    high = np.array([1.0 if r.hi is not None else 0.0 for r in rows])
    largest = np.maximum.reduceat(np.where(linear.free, np.abs(linear.value), 0.0), linear.problem.indptr[:-1])
    size = float(largest.sum())
    n = len(rows)
    centre = np.zeros(n)
    shape = np.eye(n) * n
    best, best_prices, seen = -np.inf, [0.0] * n, []
    for _ in range(PASSES * n):
        outside = [(k, 1.0) for k in range(n) if centre[k] > high[k]]
        outside += [(k, -1.0) for k in range(n) if centre[k] < low[k]]
        if outside:
            k, sign = outside[0]
            cut = np.zeros(n)
            cut[k] = sign
            depth = sign * (centre[k] - (high[k] if sign > 0 else low[k]))
        else:
            prices = (centre * reach).tolist()
            found = _pass(linear, rows, prices)
            seen.append(found)
            gradient = np.array([_slope(r, p, u) for r, p, u in zip(rows, prices, found.uses, strict=True)]) * reach
            depth = 0.0
            if found.bound > best:
                best, best_prices = found.bound, prices
            else:
                depth = best - found.bound
            cut = -gradient
            if not gradient.any():
                break
        norm = math.sqrt(max(float(cut @ shape @ cut), 0.0))  # rounding may take a flat shape below 0
        if norm <= (FLAT if outside else FLAT * size):
            break
        centre, shape = _cut(centre, shape, cut / norm, min(max(depth / norm, 0.0), 0.999))
    return best_prices, seen


def _slope(row: Row, price: float, use: float) -> float:
    """A supergradient of the bound in this row's price (at 0, of the side that is broken)."""
    if price > 0 or (price == 0 and row.hi is not None and use > row.hi):
        return use - float(row.hi) if row.hi is not None else 0.0
    if price < 0 or (price == 0 and row.lo is not None and use < row.lo):
        return use - float(row.lo) if row.lo is not None else 0.0
    return 0.0


def _cut(
    centre: FloatArray, shape: NDArray[np.float64], direction: FloatArray, alpha: float
) -> tuple[FloatArray, NDArray[np.float64]]:
    n = len(centre)
    if n == 1:
        half = float(np.sqrt(shape[0, 0])) * (1 - alpha) / 2
        move = np.sign(direction[0]) * (float(np.sqrt(shape[0, 0])) - half)
        return centre - move, np.array([[half * half]])
    step = shape @ direction
    centre = centre - (1 + n * alpha) / (n + 1) * step
    factor = n * n * (1 - alpha * alpha) / (n * n - 1)
    shape = factor * (shape - 2 * (1 + n * alpha) / ((n + 1) * (1 + alpha)) * np.outer(step, step))
    return centre, (shape + shape.T) / 2


def _reach(linear: Linear, row: Row) -> float:
    """A price beyond which the row decides every choice: the steepest trade within a group, by its ends."""
    start = linear.problem.indptr[:-1]
    free = linear.free
    value = np.where(free, linear.value, -np.inf)
    span = np.maximum.reduceat(value, start) - np.minimum.reduceat(np.where(free, linear.value, np.inf), start)
    column = row.column.astype(np.float64)
    use = np.maximum.reduceat(np.where(free, column, -np.inf), start)
    use = use - np.minimum.reduceat(np.where(free, column, np.inf), start)
    ratio = span[use > 0] / use[use > 0]
    return float(ratio.max()) * 4 if len(ratio) and ratio.max() > 0 else 1.0
