"""Integer form of a problem with several budget rows, and the part of it that a search still has to decide."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from allocator.engine.knapsack import to_integers
from allocator.linear import Linear, Row
from allocator.statement import BoolArray, FloatArray, IntArray

NONE = 2**62  # no limit on this side; sums of uses stay below it
LARGEST_SUM = 2**61
EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class Core:
    """min start + Σ value[taken], lo ≤ Σ use[taken] ≤ hi per row: one choice of each of D open groups.

    rows [n]: row of each choice in the problem; indptr [D+1]; value [n]; use [n, R] int64, relative to some
    choice of the group; hi, lo [R], ±NONE where a side has no limit. settled: rows of the groups that are
    decided, `start` their Σ value. size: Σ of the largest |value| of all groups, the unit of rounding.
    """

    rows: IntArray
    indptr: IntArray
    value: FloatArray
    use: IntArray
    hi: IntArray
    lo: IntArray
    settled: IntArray
    start: float
    size: float

    @property
    def depth(self) -> int:
        """D, groups that are open."""
        return len(self.indptr) - 1

    @cached_property
    def group_of(self) -> IntArray:
        """Group of each choice [n]."""
        return np.repeat(np.arange(self.depth), np.diff(self.indptr))

    @cached_property
    def weight(self) -> FloatArray:
        """`use` in floats, row by row [R, n]."""
        return np.ascontiguousarray(self.use.T.astype(np.float64))

    @cached_property
    def spread(self) -> FloatArray:
        """Largest minus smallest total use of each row [R]."""
        if not self.depth:
            return np.zeros(len(self.hi))
        at = self.indptr[:-1]
        return np.asarray((np.maximum.reduceat(self.weight, at, axis=1) - self.least_float).sum(axis=1))

    @cached_property
    def least_float(self) -> FloatArray:
        """Least use of each row by each group [R, D]."""
        return np.asarray(np.minimum.reduceat(self.weight, self.indptr[:-1], axis=1))

    def usable(self, prices: FloatArray) -> FloatArray:
        """Prices [..., R] with 0 in place of those on a side that has no limit."""
        none = ((prices > 0) & (self.hi == NONE)) | ((prices < 0) & (self.lo == -NONE))
        return np.where(none, 0.0, prices)

    def limits(self, prices: FloatArray) -> FloatArray:
        """The limit that each usable price [..., R] is paid for: hi where it is above 0, else lo."""
        return np.where(prices > 0, self.hi, np.where(prices < 0, self.lo, 0)).astype(np.float64)

    def kept(self, alive: BoolArray) -> Core | None:
        """Only the choices in `alive`, groups with one of them settled; None where a group has none."""
        at = self.indptr[:-1]
        count = np.add.reduceat(alive.astype(np.int64), at) if self.depth else np.zeros(0, np.int64)
        if not count.all():
            return None
        single = alive & (count == 1)[self.group_of]
        paid = self.use[single].sum(axis=0)
        hi = np.where(self.hi == NONE, NONE, self.hi - paid)
        lo = np.where(self.lo == -NONE, -NONE, self.lo - paid)
        stays = alive & ~single
        sizes = count[count > 1]
        indptr = np.concatenate([[0], np.cumsum(sizes)])
        use = self.use[stays]
        first = use[indptr[:-1]]
        shift = first.sum(axis=0)
        use = use - np.repeat(first, sizes, axis=0)
        return Core(
            self.rows[stays],
            indptr,
            self.value[stays],
            use,
            np.where(hi == NONE, NONE, hi - shift),
            np.where(lo == -NONE, -NONE, lo - shift),
            np.concatenate([self.settled, self.rows[single]]),
            math.fsum([self.start, *self.value[single].tolist()]),
            self.size,
        )

    def ordered(self, groups: IntArray, choices: IntArray) -> Core:
        """The groups in another order [D], their choices in another [n], consistent with it."""
        indptr = np.concatenate([[0], np.cumsum(np.diff(self.indptr)[groups])])
        return dataclasses.replace(
            self, rows=self.rows[choices], indptr=indptr, value=self.value[choices], use=self.use[choices]
        )

    def tightened(self) -> Core | None:
        """Limits lowered to what sums can reach: least use plus a multiple of the divisor of all differences.

        Rows whose extremes keep a side lose that side. None where no allocation keeps a row.
        """
        hi, lo = self.hi.copy(), self.lo.copy()
        at = self.indptr[:-1]
        for r in range(len(hi)):
            least = sum(np.minimum.reduceat(self.use[:, r], at).tolist()) if self.depth else 0
            most = sum(np.maximum.reduceat(self.use[:, r], at).tolist()) if self.depth else 0
            divisor = int(np.gcd.reduce(self.use[:, r])) if self.depth else 0  # differences to a choice of use 0
            top, bottom = int(hi[r]), int(lo[r])
            if top != NONE:
                if least > top:
                    return None
                top -= (top - least) % divisor if divisor else 0
                hi[r] = NONE if top >= most else top
            if bottom != -NONE:
                if most < bottom:
                    return None
                bottom += (most - bottom) % divisor if divisor else 0
                lo[r] = -NONE if bottom <= least else bottom
            if hi[r] != NONE and lo[r] != -NONE and lo[r] > hi[r]:
                return None
        return dataclasses.replace(self, hi=hi, lo=lo)


@dataclass(frozen=True, eq=False)
class Scales:
    """How a core's rows came from the view's: integer use = 2^power · use. rounded: whether some row lost digits."""

    sides: tuple[Row, ...]
    power: NDArray[np.int64]
    rounded: bool

    def stated(self, prices: FloatArray, count: int) -> tuple[float, ...]:
        """Prices per budget row of the problem from those of a core."""
        values = [0.0] * count
        for row, price, power in zip(self.sides, prices.tolist(), self.power.tolist(), strict=True):
            values[row.budget] = math.ldexp(price, power)
        return tuple(values)


def core_of(linear: Linear) -> tuple[Core | None, Scales]:
    """All groups open, free choices only; no core where a group has none or a row cannot be kept.

    Float rows are rounded to integers; their limits give way by what that and a sum may lose, so a core keeps
    every allocation that the rows keep, and now and then one that they do not.
    """
    problem = linear.problem
    sides = tuple(r for r in linear.rows if r.hi is not None or r.lo is not None)
    rows = np.flatnonzero(linear.free)
    sizes = np.add.reduceat(linear.free.astype(np.int64), problem.indptr[:-1])
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    columns, hi, lo, powers, lossy = [], [], [], [], False
    at = indptr[:-1]
    hopeless = not sizes.all()
    for row in sides:
        column, power, margin = row.column, 0, 0
        if not row.exact:
            column, power, rounded = to_integers(row.column, problem.indptr)
            margin = problem.group_count if rounded else 0
        elif sum(np.maximum.reduceat(np.abs(column), problem.indptr[:-1]).tolist()) >= LARGEST_SUM // 2:
            column, power, margin = column >> 3, -3, problem.group_count
        lossy |= margin > 0
        column = column[rows]
        if hopeless:
            break
        first = column[at]
        shift = sum(first.tolist())
        columns.append(column - np.repeat(first, sizes))
        least = sum(np.minimum.reduceat(columns[-1], at).tolist())
        most = sum(np.maximum.reduceat(columns[-1], at).tolist())
        top = NONE if row.hi is None else _scaled(row.hi, power) + margin - shift
        bottom = -NONE if row.lo is None else -_scaled(-row.lo, power) - margin - shift
        hopeless |= top < least or bottom > most
        hi.append(NONE if top >= most else max(top, least))
        lo.append(-NONE if bottom <= least else min(bottom, most))
        powers.append(power)
    scales = Scales(sides, np.array(powers + [0] * (len(sides) - len(powers)), np.int64), lossy)
    if hopeless:
        return None, scales
    value = linear.value[rows].astype(np.float64)
    size = float(np.maximum.reduceat(np.abs(value), at).sum())
    use = np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0), np.int64)
    core = Core(
        rows,
        indptr,
        value,
        np.ascontiguousarray(use, np.int64),
        np.array(hi, np.int64),
        np.array(lo, np.int64),
        np.zeros(0, np.int64),
        0.0,
        size,
    )
    kept = core.kept(np.ones(len(rows), bool))
    return (None if kept is None else kept.tightened()), scales


def _scaled(limit: float, power: int) -> int:
    """floor(limit·2^power) in exact arithmetic."""
    numerator, denominator = limit.as_integer_ratio()
    return (numerator << power) // denominator if power >= 0 else numerator // (denominator << -power)
