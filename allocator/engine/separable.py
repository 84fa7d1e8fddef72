"""A separable problem under any number of rows, exactly: one row by the knapsack engine, more by the search."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from allocator.certificate import Certificate, Core
from allocator.engine.knapsack import Knapsack, knapsack_of
from allocator.engine.single import solve_single
from allocator.errors import UnsupportedError
from allocator.linear import Linear
from allocator.statement import IntArray


@dataclass(frozen=True, eq=False)
class Separated:
    """rows: taken [G], None where none was found. total: Σ value of it. bound: no allocation's is below it.

    infeasible: no allocation keeps every row. prices: per budget row of the problem. limit: what stopped it.
    """

    rows: IntArray | None
    total: float
    bound: float
    infeasible: bool
    prices: tuple[float, ...]
    certificate: Certificate | None
    limit: str | None
    statistics: dict[str, Any] = field(default_factory=dict)

    @property
    def proved(self) -> bool:
        """Whether the rows are optimal, or nothing keeps every row."""
        return self.limit is None


def solve_separable(
    linear: Linear,
    *,
    tolerance: float,
    seconds: Callable[[], float],
    start: IntArray | None = None,
    engine: str | None = None,
) -> Separated:
    """Least Σ value over the free choices within every row.

    Args:
        linear: the separable view.
        tolerance: gains in Σ value up to it may be left alone.
        seconds: time left.
        start: rows [G] to begin from.
        engine: "c" or "numpy"; None takes C where it is there.
    """
    count = max((r.budget for r in linear.rows), default=-1) + 1
    sides = [r for r in linear.rows if r.hi is not None or r.lo is not None]
    if not _every_group_is_free(linear):
        return Separated(None, math.inf, math.inf, True, (0.0,) * count, None, None)
    if len(sides) > 1 or any(r.hi is not None and r.lo is not None for r in sides):
        return _several(linear, tolerance, seconds, start, engine)
    knapsack = knapsack_of(linear)
    first = linear.problem.indptr[:-1]
    for capacity in _capacities(knapsack):
        found = solve_single(
            Knapsack(**{**vars(knapsack), "capacity": capacity}),
            tolerance=tolerance,
            seconds=seconds(),
            start=start,
            engine=engine,
        )
        exact = not sides or sides[0].exact
        if exact or found.rows is None or linear.problem.evaluate(found.rows - first).feasible:
            break
    prices = [0.0] * count
    if sides:
        prices[sides[0].budget] = knapsack.price(found.multiplier)
    if found.rows is None:
        if sides:
            prices[sides[0].budget] = float(knapsack.sign)
        return Separated(None, math.inf, math.inf, True, tuple(prices), None, None, found.statistics)
    total = math.fsum(linear.value[found.rows].tolist())
    certificate = Core(tuple(prices))
    return Separated(
        found.rows, total, total - found.short, False, tuple(prices), certificate, found.limit, found.statistics
    )


def _several(
    linear: Linear, tolerance: float, seconds: Callable[[], float], start: IntArray | None, engine: str | None
) -> Separated:
    raise UnsupportedError("several budgets")


def _capacities(knapsack: Knapsack) -> list[int]:
    """The capacity; for a rounded row also smaller ones, where the stated limit turns out to be broken."""
    if not knapsack.margin:
        return [knapsack.capacity]
    return [knapsack.capacity - step * knapsack.margin for step in (0, 4, 64, 1024)]


def _every_group_is_free(linear: Linear) -> bool:
    return bool(linear.free.all() or np.logical_or.reduceat(linear.free, linear.problem.indptr[:-1]).all())
