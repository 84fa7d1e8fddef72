"""One row in whole units that start at 0: what tables over a budget are indexed by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from allocator.linear import Linear
from allocator.statement import IntArray

EPSILON = float(np.finfo(float).eps)
NEVER = np.int64(2**62)  # use of a choice that alone is over the budget


@dataclass(frozen=True, eq=False)
class Units:
    """Σ use[taken] ≤ budget, use ≥ 0 [N]; what is not free, or alone over the budget, uses NEVER.

    exact: it says exactly what the row says. Otherwise it says more (rounded up) or less (rounded down).
    """

    use: IntArray
    budget: int
    exact: bool


def in_units(linear: Linear, most: int) -> tuple[Units, Units] | None:
    """The only row with costs rounded up and rounded down, the same object where it is exact.

    Each group's least cost is taken off and what is left divided by its common divisor; then, where the budget
    is still over `most`, or the row one of floats, by what brings it there. Any allocation that keeps the first
    keeps the row; any that keeps the row keeps the second. None where no allocation keeps the row.
    """
    if not linear.rows or (linear.rows[0].hi is None and linear.rows[0].lo is None):
        nothing = Units(np.where(linear.free, np.int64(0), NEVER), 0, True)
        return nothing, nothing
    (row,) = linear.rows
    sign = 1 if row.hi is not None else -1
    limit = row.hi if row.hi is not None else row.lo
    assert limit is not None
    start, group = linear.problem.indptr[:-1], linear.problem.group_of
    free = linear.free
    if row.exact:
        column = sign * row.column
        least = np.minimum.reduceat(np.where(free, column, np.iinfo(np.int64).max), start)
        shifted = np.where(free, column - least[group], 0)
        room = sign * int(limit) - sum(least.tolist())
        if room < 0:
            return None
        unit = int(np.gcd.reduce(shifted)) or 1
        shifted, room = shifted // unit, room // unit
        room = min(room, int(np.maximum.reduceat(shifted, start).sum()))
        if room <= most:
            exact = Units(_never(shifted, free, room), room, True)
            return exact, exact
        step = -(-room // most)
        up, down = -(-shifted // step), shifted // step
        return Units(_never(up, free, room // step), room // step, False), Units(
            _never(down, free, room // step), room // step, False
        )
    wide = sign * row.column.astype(np.float64)
    lows = np.minimum.reduceat(np.where(free, wide, np.inf), start)
    rest = np.where(free, wide - lows[group], 0.0)
    size = abs(float(limit)) + float(np.maximum.reduceat(np.where(free, np.abs(wide), 0.0), start).sum())
    blur = 4 * EPSILON * (len(start) + 4) * size
    room_down = sign * float(limit) - float(lows.sum()) + blur
    if room_down < 0:
        return None
    pace = max(min(room_down, float(np.maximum.reduceat(rest, start).sum())) / most, size * EPSILON) or 1.0
    room_up = max(room_down - 2 * blur, 0.0)
    share = np.minimum(rest / pace, 2.0**53)
    ups = np.ceil(share * (1 + 4 * EPSILON)).astype(np.int64)
    downs = np.floor(share * (1 - 4 * EPSILON)).astype(np.int64)
    budgets = [int(room * (1 + side * 4 * EPSILON) / pace) for room, side in ((room_up, -1), (room_down, 1))]
    limits = [min(b, int(np.maximum.reduceat(u, start).sum())) for b, u in zip(budgets, (ups, downs), strict=True)]
    return Units(_never(ups, free, limits[0]), limits[0], False), Units(
        _never(downs, free, limits[1]), limits[1], False
    )


def _never(use: IntArray, free: np.ndarray[tuple[int], np.dtype[np.bool_]], budget: int) -> IntArray:
    return np.where(free & (use <= budget), use, NEVER)
