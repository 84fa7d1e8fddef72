"""Checks `multipliers`: a lower bound, or infeasibility, from prices of the budget rows.

For any λ (≥ 0 on a max, ≤ 0 on a min) every feasible x has
Σ value(x) ≥ Σ_g min_k(value + Σ_r λ_r·column_r) − Σ_r λ_r·limit_r. Rounding is taken off, so the bound
holds for the numbers of the file, not for their sums in floating point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from allocator.blocks import per_group, spans
from allocator.linear import Linear, Row
from allocator.statement import FloatArray, Number
from allocator.sums import exact_sum

EPSILON = float(np.finfo(float).eps)
HUGE = 1e290  # sums of products above it could overflow: such a price counts 0
VANISHED = 1e-322  # what products of minute prices may lose


@dataclass(frozen=True, eq=False)
class Side:
    """A row, its price (not 0) and the limit that it prices."""

    row: Row
    price: float
    limit: Number


@dataclass(frozen=True, eq=False)
class Scan:
    """All groups at given prices.

    sides: the rows that count. minima [G]: of `lowered` over each group's free choices, infinite where there are
    none. bound: Σ minima − Σ λ·limit, below the true sum.
    """

    sides: tuple[Side, ...]
    minima: FloatArray
    bound: float


def active(row: Row, values: Sequence[float]) -> tuple[float, float]:
    """A row's price and the limit it prices; (0, 0) where the price is on a side without limit, or absurd."""
    value = float(values[row.budget]) if row.budget < len(values) else 0.0
    limit = row.hi if value > 0 else row.lo
    if value == 0.0 or limit is None or not math.isfinite(value):
        return 0.0, 0.0
    largest = max(abs(float(limit)), abs(float(row.column.max())), abs(float(row.column.min())))
    return (value, float(limit)) if abs(value) * largest < HUGE else (0.0, 0.0)


def sides_of(linear: Linear, values: Sequence[float]) -> tuple[Side, ...]:
    """The rows that prices given per budget row of the problem count."""
    found = []
    for row in linear.rows:
        price_, _ = active(row, values)
        limit = row.hi if price_ > 0 else row.lo
        if price_ and limit is not None:
            found.append(Side(row, price_, limit))
    return tuple(found)


def _priced(linear: Linear, sides: tuple[Side, ...], rows: slice, objective: bool) -> tuple[FloatArray, FloatArray]:
    """value + Σ λ·column of some rows, and how far rounding may have moved each."""
    value = linear.value[rows]
    total = value.copy() if objective else np.zeros_like(value)
    size = np.abs(total)
    if linear.power != 1:
        size *= 1 + 2 * linear.power
    for side in sides:
        part = side.row.column[rows] * side.price
        total += part
        size += np.abs(part, out=part)
    size *= 4 * (len(sides) + 1) * EPSILON
    size += VANISHED * len(sides)
    return total, size


def _paid(sides: tuple[Side, ...]) -> tuple[float, float]:
    paid = [s.price * float(s.limit) for s in sides]
    return math.fsum(paid), 4 * EPSILON * math.fsum(map(abs, paid)) + VANISHED * len(paid)


def lowered(linear: Linear, sides: tuple[Side, ...], rows: slice, whole: bool, objective: bool = True) -> FloatArray:
    """value + Σ λ·column of some rows, less what rounding may have added; infinite where a choice is not free.

    whole: all choices are free.
    """
    total, error = _priced(linear, sides, rows, objective)
    total -= error
    if not whole:
        total[~linear.free[rows]] = np.inf
    return total


def scan(linear: Linear, values: Sequence[float], *, objective: bool = True) -> Scan:
    """Minima and bound under prices given per budget row of the problem, in blocks."""
    sides, whole, problem = sides_of(linear, values), linear.whole, linear.problem
    minima = np.empty(problem.group_count)
    for span in spans(problem):
        minima[span.groups] = per_group(problem, span, np.minimum, lowered(linear, sides, span.rows, whole, objective))
    if not np.isfinite(minima).all():
        return Scan(sides, minima, math.inf)
    paid, paid_error = _paid(sides)
    return Scan(sides, minima, exact_sum(minima, -paid, -paid_error))


def lower_bound(linear: Linear, values: Sequence[float]) -> float:
    """A number that no feasible allocation's Σ value falls below, rounding included."""
    return scan(linear, values).bound


def proves_infeasible(linear: Linear, values: Sequence[float]) -> bool:
    """Whether the prices show that no allocation keeps all rows: min_x Σ λ(column − limit) > 0 beyond rounding."""
    return scan(linear, values, objective=False).bound > 0


def single_row_infeasible(linear: Linear) -> tuple[Row, float] | None:
    """A row that even the cheapest (for a min, the dearest) choices break, and its price: 1 for a max, −1 for a min.

    In exact arithmetic where the row is exact.
    """
    start = linear.problem.indptr[:-1]
    for row in linear.rows:
        for sign, limit in ((1, row.hi), (-1, row.lo)):
            if limit is None:
                continue
            if row.exact:
                far = np.int64(np.iinfo(np.int64).max)
                best = np.minimum.reduceat(np.where(linear.free, sign * row.column, far), start)
                used = sum(best.tolist())
                broken = used > sign * int(limit)
            else:
                column = sign * row.column.astype(np.float64)
                best = np.minimum.reduceat(np.where(linear.free, column, np.inf), start)
                room = 4 * EPSILON * (math.fsum(np.abs(best).tolist()) + abs(float(limit)))
                broken = math.fsum([*best.tolist(), -sign * float(limit)]) > room
            if broken:
                return row, float(sign)
    return None
