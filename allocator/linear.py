"""The separable view of a problem: one objective value and one column per budget row for each choice.

A maximum over groups becomes a mask, a p-norm becomes a sum of powers; what does not fit is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.errors import UnsupportedError
from allocator.evaluation import lexicographic, lower, upper
from allocator.problem import Problem
from allocator.statement import Budget, FloatArray, Number

ROUNDING = 2 * float(np.finfo(float).eps)
SMALL = 1e-280  # below it powers lose digits
VANISHED = 1e-322  # what a power may lose at the end of the range of floats


@dataclass(frozen=True, eq=False)
class Row:
    """lo ≤ Σ column[taken] ≤ hi, limits as enforced, offsets taken off, out-of-scope entries 0.

    budget: the row of the problem it came from. exact: int64 arithmetic decides.
    """

    budget: int
    column: NDArray[Any]
    lo: Number | None
    hi: Number | None
    exact: bool


@dataclass(frozen=True, eq=False)
class Linear:
    """min Σ value[taken] + constant subject to the rows, over choices in `free`.

    value [N]; under a p-norm value = (unary/largest)^p and `objective` maps a sum back: scale·sum^(1/p), where
    scale = weight·largest.
    """

    problem: Problem
    value: FloatArray
    constant: float
    rows: tuple[Row, ...]
    free: NDArray[np.bool_]
    power: float = 1.0
    scale: float = 1.0

    @cached_property
    def whole(self) -> bool:
        """Whether all choices are free."""
        return bool(self.free.all())

    def objective(self, total: float) -> float:
        """The problem's objective (or a bound on it) for a sum (or a bound on the sum) of values."""
        if self.power != 1.0:
            return float(self.scale * max(total, 0.0) ** (1 / self.power))
        return total + self.constant

    def total(self, objective: float) -> float:
        """Inverse of `objective`."""
        if self.power != 1.0:
            return (max(objective, 0.0) / self.scale) ** self.power if self.scale else 0.0
        return objective - self.constant


def linearise(problem: Problem, *, cap: float | None = None, with_interactions: bool = False) -> Linear:
    """Build the separable view.

    Args:
        problem: any problem whose objective and rows are sums over groups, masks, or a p-norm alone.
        cap: for the least maximum of the loss: forbid unaries above it and minimise Σ unary instead.
        with_interactions: leave the interactions to the caller instead of refusing them.

    Raises:
        UnsupportedError: naming the part that is not separable.
    """
    if problem.active_interactions and not with_interactions and problem.features & {"pairs", "basis"}:
        raise UnsupportedError("interactions between groups are not separable; use a solver that takes pairs or basis")
    masked = cap is not None or any(_masks(problem, budget) for budget in problem.budgets)
    free = problem.free.copy() if masked else problem.free
    if cap is not None:
        free &= problem.unary <= cap
    rows = []
    for i, budget in enumerate(problem.budgets):
        row = _row(problem, i, budget, free)
        if row is not None:
            rows.append(row)
    value, constant, power, scale = _objective(problem, cap)
    return Linear(problem, value, constant, tuple(rows), free, power, scale)


def _objective(problem: Problem, cap: float | None) -> tuple[FloatArray, float, float, float]:
    aggregate = problem.loss.aggregate
    if list(problem.minimize) == ["loss"] and aggregate == "pnorm":
        weight = problem.minimize["loss"]
        if weight < 0:
            raise UnsupportedError("maximising a p-norm is not separable; give the loss a weight above 0")
        p = problem.loss.p or 1.0
        if p == 1.0:
            return weight * problem.unary, 0.0, 1.0, 1.0
        scale = float(problem.unary.max())
        return (problem.unary / (scale or 1.0)) ** p, 0.0, p, weight * scale
    if cap is not None and lexicographic(problem):
        return problem.unary, 0.0, 1.0, 1.0
    value: FloatArray | None = None
    constant = 0.0
    for name, weight in problem.minimize.items():
        if name == "loss":
            if aggregate != "sum":
                raise UnsupportedError(f"minimising a {aggregate} loss is not separable; use a solver that takes it")
            column: NDArray[Any] = problem.unary
        else:
            if problem.resources[name].aggregate == "max":
                raise UnsupportedError(f"the largest {name!r} is not separable; use a solver that takes max_resource")
            column = problem.cost(name)
            constant += weight * problem.resources[name].offset
        part: FloatArray = column.astype(np.float64, copy=False) if weight == 1 else weight * column
        value = part if value is None else value + part
    assert value is not None
    return value, constant, 1.0, 1.0


def _masks(problem: Problem, budget: Budget) -> bool:
    """Whether a row forbids choices: the max of a maximum."""
    if budget.max is None or budget.score is not None:
        return False
    if budget.loss:
        return problem.loss.aggregate == "max"
    return problem.resources[budget.resource or ""].aggregate == "max"


def _row(problem: Problem, i: int, budget: Budget, free: NDArray[np.bool_]) -> Row | None:
    """The row as sums; a maximum narrows `free` instead, and its min asks for one large enough choice."""
    if budget.loss:
        return _loss_row(problem, i, budget, free)
    inside = None if budget.tags is None else problem.in_scope(budget.tags)[problem.group_of]
    if budget.score is not None:
        column = problem.scores[budget.score]
        if budget.include_remainder and budget.score in problem.remainder:
            column = column + problem.remainder[budget.score]
        return _sum_row(i, budget, column if inside is None else np.where(inside, column, 0.0), 0, False)
    assert budget.resource is not None
    spec = problem.resources[budget.resource]
    offset: Number = spec.offset if budget.tags is None else 0
    exact = problem.exact(budget.resource)
    costs = problem.cost(budget.resource)
    if spec.aggregate == "sum":
        zero = np.zeros((), costs.dtype)
        return _sum_row(i, budget, costs if inside is None else np.where(inside, costs, zero), offset, exact)
    inside = np.ones(problem.choice_count, bool) if inside is None else inside
    if budget.max is not None:
        most = upper(budget.max, exact)
        free &= ~inside | (costs <= most)
        if offset > most:
            free[:] = False
    if budget.min is not None and offset < lower(budget.min, exact):
        return Row(i, (inside & (costs >= lower(budget.min, exact))).astype(np.int64), 1, None, True)
    return None


def _sum_row(i: int, budget: Budget, column: NDArray[Any], offset: Number, exact: bool) -> Row:
    hi = None if budget.max is None else _rest(upper(budget.max, exact), offset, 1, exact)
    lo = None if budget.min is None else _rest(lower(budget.min, exact), offset, -1, exact)
    return Row(i, column, lo, hi, exact)


def _rest(limit: Number, offset: Number, sign: int, exact: bool) -> Number:
    """limit − offset, a float one loosened by what rounding the total and this difference may hide."""
    if exact:
        return int(limit) - int(offset)
    return limit - offset + sign * ROUNDING * (abs(limit) + abs(offset))


def _loss_row(problem: Problem, i: int, budget: Budget, free: NDArray[np.bool_]) -> Row | None:
    unary, aggregate = problem.unary, problem.loss.aggregate
    if aggregate == "sum":
        return _sum_row(i, budget, unary, 0, False)
    if aggregate == "max":
        if budget.max is not None:
            free &= unary <= upper(budget.max, False)
        if budget.min is not None:
            return Row(i, (unary >= lower(budget.min, False)).astype(np.int64), 1, None, True)
        return None
    p = problem.loss.p or 1.0
    scale = float(unary.max()) or 1.0
    widen = 1 + 32 * p * ROUNDING  # powers round; the core rechecks what this lets through

    def power(limit: Number) -> float:
        return float((max(limit, 0.0) / scale) ** p)

    hi = None if budget.max is None else power(upper(budget.max, False)) * widen if budget.max >= 0 else -1.0
    lo = None if budget.min is None else power(lower(budget.min, False)) / widen
    lost = VANISHED * problem.group_count
    hi, lo = None if hi is None else hi + lost, None if lo is None else lo - lost
    return Row(i, (unary / scale) ** p, lo, hi, False)
