"""Convex programs over choices in part, under the rows and a convex limit on the loss, and the bounds they prove."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np

from allocator.bounds import Prices, find_prices
from allocator.checks.lagrangian import lower_bound
from allocator.protocols import Limits
from allocator.quadratic import Quadratic
from allocator.statement import FloatArray
from solvers._convex import GOOD, membership, run, sides_of
from solvers._convexify import Convex

ROUNDING = 4 * float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class Point:
    """Where an engine ended. x: parts of choices [N] or None. price: of the limit on the loss, ≥ 0."""

    engine: str
    status: str
    x: FloatArray | None = None
    price: float = 0.0

    @property
    def empty(self) -> bool:
        """Whether the engine says that nothing keeps the rows."""
        return self.status.startswith("infeasible")


class Program:
    """min linear·x + ½‖factor·x‖² over x ≥ 0 of groups that sum to 1, under the rows and loss(x) ≤ limit.

    Each group's least is taken off `linear` and the whole is divided by its size; rows and loss have ranges of
    about 1. `linear` may change from one solve to the next, the rest is set up once. seconds: the last solve took.
    """

    def __init__(self, model: Quadratic, form: Convex, loss: tuple[Convex, float] | None = None) -> None:
        import cvxpy

        cp: Any = cvxpy  # typed in parts only
        self.model = model
        self.free = np.flatnonzero(model.linear.free)
        count = len(self.free)
        factor = form.factor[:, self.free]
        self.unit = self._mean(form.linear) + 0.5 * float((factor**2).sum()) / count or 1.0
        self.x = cp.Variable(count, nonneg=True)
        self.slope = cp.Parameter(count)
        goal = self.slope @ self.x
        if factor.shape[0]:
            goal = goal + 0.5 * cp.sum_squares((factor / math.sqrt(self.unit)) @ self.x)
        rows = [membership(model.linear) @ self.x == 1]
        sides = sides_of(model.linear)
        if sides:
            columns = np.array([s.column[self.free] for s in sides])
            rows.append(columns @ self.x <= np.array([s.limit for s in sides]))
        self.loss_row: Any = None
        self.loss_unit = 1.0
        if loss is not None:
            self.loss_row = self._limited(cp, *loss)
            rows.append(self.loss_row)
        self.problem = cp.Problem(cp.Minimize(goal), rows)
        self.seconds = 0.0

    def _mean(self, linear: FloatArray) -> float:
        return float(np.abs(self._shifted(linear)).mean())

    def _shifted(self, linear: FloatArray) -> FloatArray:
        least = self._least(linear)
        return np.asarray((linear - least[self.model.problem.group_of])[self.free])

    def _least(self, linear: FloatArray) -> FloatArray:
        start = self.model.problem.indptr[:-1]
        return np.minimum.reduceat(np.where(self.model.linear.free, linear, np.inf), start)

    def _limited(self, cp: Any, form: Convex, limit: float) -> Any:
        factor = form.factor[:, self.free]
        self.loss_unit = self._mean(form.linear) + 0.5 * float((factor**2).sum()) / len(self.free) or 1.0
        unit = self.loss_unit
        left = (self._shifted(form.linear) / unit) @ self.x
        if factor.shape[0]:
            left = left + 0.5 * cp.sum_squares((factor / math.sqrt(unit)) @ self.x)
        room = limit - form.constant - float(self._least(form.linear).sum())
        return left <= room / unit

    def solve(self, linear: FloatArray, limits: Limits) -> Point:
        """The least point for this linear part [N].

        Raises:
            SolverError: no engine of cvxpy came to an end.
        """
        self.slope.value = self._shifted(linear) / self.unit
        begun = monotonic()
        engine, status = run(self.problem, limits)
        self.seconds = monotonic() - begun
        if status not in GOOD or self.x.value is None:
            return Point(engine, status)
        x = np.zeros(self.model.problem.choice_count)
        x[self.free] = np.clip(np.asarray(self.x.value, np.float64), 0.0, 1.0)
        price = 0.0
        if self.loss_row is not None and self.loss_row.dual_value is not None:
            price = max(float(np.asarray(self.loss_row.dual_value).item()), 0.0) * self.unit / self.loss_unit
        return Point(engine, status, x, price)


def tangent_bound(
    model: Quadratic, form: Convex, x: FloatArray, loss: tuple[Convex, float] | None = None, price: float = 0.0
) -> tuple[Prices, float]:
    """Prices of the rows, and a bound on the objective that the tangent at x proves, wherever x is.

    With a limit on the loss: objective ≥ objective + price·(loss − limit) for any price ≥ 0.
    """
    gradient, constant = form.gradient(x)
    if loss is not None and price > 0 and math.isfinite(price):
        slope, height = loss[0].gradient(x)
        gradient = gradient + price * slope
        constant += price * (height - loss[1]) - ROUNDING * price * (abs(height) + abs(loss[1]))
    tangent = dataclasses.replace(model.linear, value=gradient)
    prices = find_prices(tangent)
    return prices, model.linear.objective(lower_bound(tangent, prices.values) + constant)
