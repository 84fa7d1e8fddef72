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

from allocator.linear import Linear, Row
from allocator.statement import FloatArray

EPSILON = float(np.finfo(float).eps)
HUGE = 1e290  # sums of products above it could overflow: such a price counts 0
VANISHED = 1e-322  # what products of minute prices may lose


@dataclass(frozen=True, eq=False)
class Priced:
    """Columns at given prices: `value` [N] = value + Σ λ·column, and `paid` = Σ λ·limit.

    error [N]: how far rounding may have moved each entry; paid_error likewise.
    """

    value: FloatArray
    error: FloatArray
    paid: float
    paid_error: float


def price(linear: Linear, values: Sequence[float], *, objective: bool = True) -> Priced:
    """Columns under prices given per budget row of the problem; a price without a limit on its side counts 0."""
    total = linear.value.copy() if objective else np.zeros_like(linear.value)
    size = np.abs(total) * (4 + 8 * linear.power if linear.power != 1 else 4)
    paid = []
    for row in linear.rows:
        price_, limit = active(row, values)
        if price_ == 0.0:
            continue
        part = price_ * row.column.astype(np.float64)
        total += part
        size += 4 * np.abs(part)
        paid.append(price_ * limit)
    size *= len(paid) + 1
    lost = VANISHED * len(paid)
    return Priced(total, EPSILON * size + lost, math.fsum(paid), 4 * EPSILON * math.fsum(map(abs, paid)) + lost)


def active(row: Row, values: Sequence[float]) -> tuple[float, float]:
    """A row's price and the limit it prices; (0, 0) where the price is on a side without limit, or absurd."""
    value = float(values[row.budget]) if row.budget < len(values) else 0.0
    limit = row.hi if value > 0 else row.lo
    if limit is None or not math.isfinite(value):
        return 0.0, 0.0
    largest = max(abs(float(limit)), float(np.abs(row.column.astype(np.float64)).max()))
    return (value, float(limit)) if abs(value) * largest < HUGE else (0.0, 0.0)


def smallest(linear: Linear, column: FloatArray) -> FloatArray:
    """Minimum of a column over each group's free choices [G]; infinite where there are none."""
    return np.minimum.reduceat(np.where(linear.free, column, np.inf), linear.problem.indptr[:-1])


def lower_bound(linear: Linear, values: Sequence[float]) -> float:
    """A number that no feasible allocation's Σ value falls below, rounding included."""
    priced = price(linear, values)
    minima = smallest(linear, priced.value - priced.error)
    if not np.isfinite(minima).all():
        return math.inf
    return math.fsum([*minima.tolist(), -priced.paid, -priced.paid_error])


def proves_infeasible(linear: Linear, values: Sequence[float]) -> bool:
    """Whether the prices show that no allocation keeps all rows: min_x Σ λ(column − limit) > 0 beyond rounding."""
    priced = price(linear, values, objective=False)
    minima = smallest(linear, priced.value - priced.error)
    return not np.isfinite(minima).all() or math.fsum([*minima.tolist(), -priced.paid, -priced.paid_error]) > 0


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
