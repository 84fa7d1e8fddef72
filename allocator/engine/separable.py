"""A separable problem under any number of rows, exactly: one row by the knapsack engine, more by the search."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from allocator.certificate import Certificate, Core
from allocator.engine.found import Found
from allocator.engine.knapsack import EPSILON, Knapsack, knapsack_of
from allocator.engine.single import solve_single
from allocator.evaluation import lower, upper
from allocator.linear import Linear
from allocator.statement import IntArray
from allocator.sums import exact_sum

CLOSE = 2.5e-13  # of Σ_g max |value|
MOST_STEPS = 20


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
    tolerance: float | None,
    seconds: Callable[[], float],
    start: IntArray | None = None,
    engine: str | None = None,
) -> Separated:
    """Least Σ value over the free choices within every row.

    Args:
        linear: the separable view.
        tolerance: gains in Σ value up to it may be left alone; None for `closeness`.
        seconds: time left.
        start: rows [G] to begin from.
        engine: "c" or "numpy"; None takes C where it is there.
    """
    count = len(linear.problem.budgets)
    sides = [r for r in linear.rows if r.hi is not None or r.lo is not None]
    if not _every_group_is_free(linear):
        return Separated(None, math.inf, math.inf, True, (0.0,) * count, None, None)
    if len(sides) > 1 or any(r.hi is not None and r.lo is not None for r in sides):
        return _several(linear, closeness(linear) if tolerance is None else tolerance, seconds(), start)
    if tolerance is None and linear.power != 1:
        tolerance = closeness(linear)
    knapsack = knapsack_of(linear)
    found, limit = _kept(
        linear, knapsack, partial(solve_single, tolerance=tolerance, seconds=seconds(), start=start, engine=engine)
    )
    prices = [0.0] * count
    if sides:
        prices[sides[0].budget] = knapsack.price(found.multiplier)
    if found.rows is None and limit is not None:
        return Separated(None, math.inf, -math.inf, False, tuple(prices), None, limit, found.statistics)
    if found.rows is None:
        if sides:
            prices[sides[0].budget] = float(knapsack.sign)
        return Separated(None, math.inf, math.inf, True, tuple(prices), None, None, found.statistics)
    total = exact_sum(linear.value[found.rows])
    certificate = Core(tuple(prices))
    return Separated(found.rows, total, total - found.short, False, tuple(prices), certificate, limit, found.statistics)


def closeness(linear: Linear) -> float:
    """A quarter of what `optimal` leaves open, in Σ value; under a p-norm T, dT/T = p·d(objective)/objective."""
    start = linear.problem.indptr[:-1]
    if linear.power != 1:
        return CLOSE * linear.power * math.fsum(np.minimum.reduceat(linear.value, start).tolist())
    return CLOSE * float(np.maximum.reduceat(np.where(linear.free, np.abs(linear.value), 0.0), start).sum())


def _kept(linear: Linear, knapsack: Knapsack, solve: Callable[[Knapsack], Found]) -> tuple[Found, str | None]:
    """The engine's allocation and limit; a rounded row is tried a little loose, then a little tight.

    What is best in the loose one and keeps the stated limit is best. Otherwise the tight one's must be as good;
    "rounding" is the limit where it is not.
    """
    if not knapsack.margin:
        found = solve(knapsack)
        whole = all(r.exact for r in linear.rows)
        for _ in range(MOST_STEPS):  # a float limit is loosened by what rounding may hide, but sums here are exact
            if whole or found.rows is None or _keeps_rows(linear, found.rows):
                return found, found.limit
            used = sum(knapsack.cost[found.rows].tolist())
            found = solve(dataclasses.replace(knapsack, capacity=used - 1))
        return dataclasses.replace(found, rows=None), "rounding"
    found = solve(dataclasses.replace(knapsack, capacity=knapsack.capacity + 2 * knapsack.margin))
    if found.rows is None or _keeps_rows(linear, found.rows):
        return found, found.limit
    tight = solve(knapsack)
    loose = float(linear.value[found.rows].sum())
    if tight.rows is None or not _keeps_rows(linear, tight.rows):
        return dataclasses.replace(found, rows=None), "rounding"
    worse = float(linear.value[tight.rows].sum()) - loose
    close = 4 * EPSILON * float(np.abs(linear.value[tight.rows]).sum())
    limit = tight.limit or found.limit or ("rounding" if worse > close else None)
    return dataclasses.replace(tight, short=max(worse, 0.0) + found.short), limit


def _keeps_rows(linear: Linear, rows: IntArray) -> bool:
    """Whether an allocation keeps the stated budgets behind the rows."""
    outcome = linear.problem.evaluate(rows - linear.problem.indptr[:-1])
    for row in linear.rows:
        budget, use = linear.problem.budgets[row.budget], outcome.used[row.budget]
        if budget.max is not None and use > upper(budget.max, row.exact):
            return False
        if budget.min is not None and use < lower(budget.min, row.exact):
            return False
    return True


def _several(linear: Linear, tolerance: float, seconds: float, start: IntArray | None) -> Separated:
    """Several rows: depth-first search under many price vectors."""
    from allocator.engine.several import solve_several  # loaded when it is needed: it is half of the engine

    first = linear.problem.indptr[:-1]
    begin = None if start is None else start - first
    found = solve_several(linear, tolerance=tolerance, seconds=seconds, start=begin)
    limit = None if found.proved or found.infeasible else found.limit or "nodes"
    certificate: Certificate = found.tree if found.tree is not None else Core(found.prices)
    statistics = {"nodes": found.nodes}
    return Separated(
        found.rows, found.total, found.bound, found.infeasible, found.prices, certificate, limit, statistics
    )


def _every_group_is_free(linear: Linear) -> bool:
    return bool(linear.free.all() or np.logical_or.reduceat(linear.free, linear.problem.indptr[:-1]).all())
