"""Normal form of one budget: min Σ value[taken] with Σ cost[taken] ≤ capacity, costs int64 whatever they were."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.linear import Linear, Row
from allocator.statement import BoolArray, FloatArray, IntArray

EPSILON = float(np.finfo(float).eps)
LARGEST_SUM = 61  # Σ of the largest costs stays below 2^61: sums and differences of sums fit int64


@dataclass(frozen=True, eq=False)
class Knapsack:
    """min Σ value[taken] subject to Σ cost[taken] ≤ capacity, one free choice per group.

    value [N] float64 and cost [N] int64 of any sign; indptr [G+1]; free [N] or None where all are.
    power: one unit of the row is 2^power units of cost. margin: what rounding a float row to integers took off
    the capacity (0 where nothing was rounded). sign: −1 where the row is a min (costs are negated).
    """

    value: FloatArray
    cost: IntArray
    indptr: IntArray
    free: BoolArray | None
    capacity: int
    power: int = 0
    margin: int = 0
    sign: int = 1

    def price(self, multiplier: float) -> float:
        """The multiplier of the stated row for one of this form's capacity."""
        try:
            return math.ldexp(self.sign * multiplier, self.power)
        except OverflowError:  # minute costs: any price is a price
            return self.sign * sys.float_info.max


def knapsack_of(linear: Linear) -> Knapsack:
    """The normal form of a separable problem with at most one row that has at most one side."""
    sides = [r for r in linear.rows if r.hi is not None or r.lo is not None]
    free = None if linear.free.all() else linear.free
    indptr = linear.problem.indptr
    if not sides:
        return Knapsack(linear.value, np.zeros(len(linear.value), np.int64), indptr, free, 0)
    (row,) = sides
    if row.hi is not None and row.lo is not None:
        raise ValueError("a row with two sides has no normal form with one capacity")
    sign, limit = (1, row.hi) if row.hi is not None else (-1, row.lo)
    assert limit is not None
    if row.exact:
        cost = row.column if sign > 0 else -row.column
        return Knapsack(linear.value, cost, indptr, free, sign * int(limit), sign=sign)
    return _rounded(linear, row, sign, float(limit), free)


def _rounded(linear: Linear, row: Row, sign: int, limit: float, free: BoolArray | None) -> Knapsack:
    """A float row in integers: what each choice uses beyond its group's least, as fine as the sums allow.

    Choices that alone break the limit are cut off just above it, so that they do not coarsen the rest.
    """
    indptr, group_of = linear.problem.indptr, linear.problem.group_of
    column = sign * row.column.astype(np.float64)
    least = np.minimum.reduceat(np.where(linear.free, column, np.inf), indptr[:-1])
    terms = [sign * limit, *(-least).tolist()]
    rest = math.fsum(terms)
    size = float(np.abs(least).sum()) + abs(limit)
    reach = max(rest, 0.0) * (1 + 1e-9) + 1e-9 * size
    more = np.where(linear.free, np.minimum(column - least[group_of], 2 * reach or 1.0), 0.0)
    largest = float(np.maximum.reduceat(more, indptr[:-1]).sum())
    if largest == 0.0:
        return Knapsack(linear.value, np.zeros(len(column), np.int64), indptr, free, 0 if rest >= 0 else -1, sign=sign)
    power = LARGEST_SUM - 1 - math.frexp(largest)[1]
    scaled = np.ldexp(more, power)
    whole = np.rint(scaled)
    kept = linear.free & (more <= reach)
    sizes = np.where(kept, np.abs(column), 0.0)
    lost = float(np.maximum.reduceat(sizes, indptr[:-1]).sum()) * EPSILON  # by the differences
    exact = lost == 0.0 or bool(((whole == scaled) & (_rounding_of(column, least[group_of]) == 0.0))[kept].all())
    margin = 0 if exact else linear.problem.group_count + math.ceil(math.ldexp(lost, power))
    capacity = _floor_scaled(rest, math.fsum([*terms, -rest]), power) - margin
    return Knapsack(linear.value, whole.astype(np.int64), indptr, free, capacity, power, margin, sign)


def _rounding_of(a: FloatArray, b: FloatArray) -> FloatArray:
    """(a − b) less its float, exactly (Knuth 1969: two-sum)."""
    difference = a - b
    back = difference - a
    return np.asarray((a - (difference - back)) - (b + back))


def to_integers(column: NDArray[Any], indptr: IntArray) -> tuple[IntArray, int, bool]:
    """A float column as integers times 2^−power, as fine as sums over all groups allow; and whether any was rounded.

    Each entry moves by at most half a unit, so a sum over G groups by at most G/2.
    """
    floats = column.astype(np.float64)
    largest = float(np.maximum.reduceat(np.abs(floats), indptr[:-1]).sum())
    power = LARGEST_SUM - 1 - math.frexp(largest)[1] if largest > 0 else 0
    scaled = np.ldexp(floats, power)
    whole = np.rint(scaled)
    return whole.astype(np.int64), power, not np.array_equal(whole, scaled)


def _floor_scaled(limit: float, residue: float, power: int) -> int:
    """floor((limit + residue)·2^power) in exact arithmetic."""
    numerator, denominator = (Fraction(limit) + Fraction(residue)).as_integer_ratio()
    return (numerator << power) // denominator if power >= 0 else numerator // (denominator << -power)
