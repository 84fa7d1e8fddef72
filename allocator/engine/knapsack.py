"""Normal form of one budget: min Σ value[taken] with Σ cost[taken] ≤ capacity, costs int64 whatever they were."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from allocator.linear import Linear, Row
from allocator.statement import BoolArray, FloatArray, IntArray

LARGEST_SUM = 61  # Σ of the largest costs stays below 2^61: sums and differences of sums fit int64


@dataclass(frozen=True, eq=False)
class Knapsack:
    """min Σ value[taken] subject to Σ cost[taken] ≤ capacity, one free choice per group.

    value [N] float64 and cost [N] int64 of any sign; indptr [G+1]; free [N] or None where all are.
    power: integer costs are the row's own times 2^power. margin: what rounding a float row to integers
    took off the capacity (0 where nothing was rounded). sign: −1 where the row is a min (costs are negated).
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
        return math.ldexp(self.sign * multiplier, self.power)


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
    cost, power, rounded = to_integers(row, indptr)
    cost = cost if sign > 0 else -cost
    margin = linear.problem.group_count if rounded else 0
    capacity = _floor_scaled(sign * float(limit), power) - margin
    return Knapsack(linear.value, cost, indptr, free, capacity, power, margin, sign)


def to_integers(row: Row, indptr: IntArray) -> tuple[NDArray[np.int64], int, bool]:
    """A float column as integers times 2^−power, the finest that sums allow, and whether anything was rounded.

    Each entry moves by at most half a unit, so a sum over G groups by at most G/2 units: relative to the sum
    of the largest entries that is G·2^−61, less than a running sum in floats would lose.
    """
    column = row.column.astype(np.float64)
    largest = float(np.maximum.reduceat(np.abs(column), indptr[:-1]).sum())
    power = LARGEST_SUM - 1 - math.frexp(largest)[1] if largest > 0 else 0
    scaled = np.ldexp(column, power)
    whole = np.rint(scaled)
    return whole.astype(np.int64), power, not np.array_equal(whole, scaled)


def _floor_scaled(limit: float, power: int) -> int:
    """floor(limit·2^power) in exact arithmetic."""
    numerator, denominator = limit.as_integer_ratio()
    return (numerator << power) // denominator if power >= 0 else numerator // (denominator << -power)
