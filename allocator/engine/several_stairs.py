"""Bounds that keep one row in integers and price the others: a dynamic programme over the uses of that row.

Where a row comes in coarse steps (bytes of layers of equal size) no price can fill its limit, and the Lagrangian
bound stays below the optimum by what is left over. Here F[d, w] is the least priced value of the groups from
depth d on that use at most w steps above their least: a node with w steps left is worth its own priced value + F.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from allocator.engine import native
from allocator.engine.several_core import NONE, Core
from allocator.engine.several_vectors import Bounded, slip
from allocator.statement import FloatArray, IntArray

MOST_WIDTH = 1 << 14
GAIN = 0.05
MOST_CELLS = 12_000_000  # 96 MB of tables


@dataclass(frozen=True, eq=False)
class Stair:
    """Row kept in steps of `divisor`; column [n] priced by the others; F [D + 1, width + 1]; base added at the root.

    steps [n]: above the group's least (below its most where sign is −1, for a row whose min binds).
    """

    row: int
    sign: int
    divisor: int
    limit: int
    prices: FloatArray
    column: FloatArray
    steps: IntArray
    table: FloatArray
    base: float

    @property
    def bound(self) -> float:
        """On Σ value of the whole core."""
        return self.base + float(self.table[0, -1])


def stair_of(core: Core, row: int, prices: FloatArray, allowance: float, side: float | None = None) -> Stair | None:
    """The bound with this row in integers, the others at these prices; None where that would be too wide.

    side: above 0 for the row's max, below for its min; by default that of its price.
    """
    side = float(prices[row]) if side is None else side
    sign = 1 if side > 0 else -1
    limit = int(core.hi[row] if sign > 0 else core.lo[row])
    divisor = int(np.gcd.reduce(core.use[:, row]))
    if abs(limit) == NONE or not divisor or not side:
        return None
    use, at = sign * core.use[:, row], core.indptr[:-1]
    least = np.minimum.reduceat(use, at)
    width = (sign * limit - int(least.sum())) // divisor
    if width >= MOST_WIDTH or width * core.depth > MOST_CELLS:
        return None
    steps = (use - np.repeat(least, np.diff(core.indptr))) // divisor
    others = core.usable(np.where(np.arange(len(prices)) == row, 0.0, prices))
    column = core.value + others @ core.weight
    paid = float(others @ core.limits(others))
    base = core.start - paid - max(float(slip(core, prices[None])[0]) - allowance, 0.0)
    return Stair(row, sign, divisor, limit, others, column, steps, _backward(core, column, steps, width), base)


def _backward(core: Core, column: FloatArray, steps: IntArray, width: int) -> FloatArray:
    table = np.empty((core.depth + 1, width + 1))
    if (compiled := native()) is not None:
        arrays = (np.ascontiguousarray(core.indptr), steps, column, table)
        compiled.several_stair(core.depth, width, *(a.ctypes.data for a in arrays))
        return table
    table.fill(np.inf)
    table[-1] = 0.0
    taken, worth, starts = steps.tolist(), column.tolist(), core.indptr.tolist()
    for d in range(core.depth - 1, -1, -1):
        here, after = table[d], table[d + 1]
        for c in range(starts[d], starts[d + 1]):
            u = taken[c]
            if u <= width:
                np.minimum(here[u:], after[: width + 1 - u] + worth[c], out=here[u:])
    return table


def through(core: Core, stair: Stair) -> FloatArray:
    """The bound of the whole core with each choice taken [n]: the programme from both ends."""
    width = stair.table.shape[1] - 1
    found = np.full(len(stair.column), np.inf)
    if (compiled := native()) is not None:
        arrays = (np.ascontiguousarray(core.indptr), stair.steps, stair.column, stair.table, found)
        compiled.several_through(core.depth, width, *(a.ctypes.data for a in arrays))
        return stair.base + found
    before = np.zeros(width + 1)
    taken, worth, starts = stair.steps.tolist(), stair.column.tolist(), core.indptr.tolist()
    for d in range(core.depth):
        after = stair.table[d + 1, ::-1]  # entry i: width − i steps left
        now = np.full(width + 1, np.inf)
        for c in range(starts[d], starts[d + 1]):
            u = taken[c]
            if u <= width:
                moved = before[: width + 1 - u] + worth[c]
                found[c] = (moved + after[u:]).min()
                np.minimum(now[u:], moved, out=now[u:])
        before = now
    return stair.base + found


def best_row(state: Bounded, target: float, allowance: float) -> int | None:
    """The row that gains most from being kept in integers; None where none gains a share of the gap worth the work."""
    found = [stair_of(state.core, row, state.prices[0], allowance) for row in np.flatnonzero(state.prices[0]).tolist()]
    best = max((s for s in found if s is not None), key=lambda s: s.bound, default=None)
    worth = state.bound + GAIN * (target - state.bound)
    return None if best is None or best.bound < worth else best.row


def stairs_of(state: Bounded, row: int, allowance: float) -> list[Stair]:
    """The row in integers under each of the vectors, as many as there is room for; different ones only."""
    found: list[Stair] = []
    seen: set[bytes] = set()
    for prices in state.prices:
        others = np.where(np.arange(len(prices)) == row, 0.0, prices)
        sign = state.prices[0, row]
        stair = None if others.tobytes() in seen else stair_of(state.core, row, others, allowance, sign)
        if stair is None or (len(found) + 1) * stair.table.size > MOST_CELLS:
            continue
        seen.add(others.tobytes())
        found.append(stair)
    return found
