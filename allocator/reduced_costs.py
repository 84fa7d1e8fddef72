"""What prices make of an allocation: each choice's priced value, reduced cost, and the prices at which it is best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.bounds import find_prices
from allocator.changes import Changes
from allocator.checks.lagrangian import active
from allocator.errors import UnsupportedError
from allocator.evaluation import lexicographic
from allocator.linear import Linear, linearise
from allocator.problem import Problem
from allocator.statement import BoolArray, Budget, FloatArray, IntArray, Loss

EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class Priced:
    """An allocation under prices of the budget rows.

    value [N]: what a choice adds to the objective. prices: per budget row λ, ≥ 0 for a max, ≤ 0 for a min; None for
    a row that only forbids choices. free [N]: what may be taken. per: what prices are in, in words. notes: how far
    they go. found: whether the prices were searched for here, instead of taken from the solution.
    """

    problem: Problem
    rows: IntArray
    linear: Linear
    value: FloatArray
    prices: tuple[float | None, ...]
    per: str
    found: bool
    notes: tuple[str, ...] = ()
    _intervals: dict[int, tuple[FloatArray, FloatArray]] = field(default_factory=dict)

    @property
    def free(self) -> BoolArray:
        """Choices that may be taken [N]."""
        return self.linear.free

    @cached_property
    def lowered(self) -> FloatArray:
        """value + Σ λ·use [N]."""
        total = self.value
        for row in self.linear.rows:
            if price := self.prices[row.budget]:
                total = total + price * row.column
        return total

    @cached_property
    def rounding(self) -> FloatArray:
        """How far rounding may have moved each priced value [N]."""
        size = np.abs(self.value)
        for row in self.linear.rows:
            if price := self.prices[row.budget]:
                size = size + np.abs(price * row.column)
        return size * (4 * (len(self.linear.rows) + 1) * EPSILON)

    @cached_property
    def least(self) -> FloatArray:
        """Smallest priced value among each group's free choices [G]; infinite where there are none."""
        return np.asarray(np.minimum.reduceat(np.where(self.free, self.lowered, np.inf), self.problem.indptr[:-1]))

    @property
    def reduced_cost(self) -> FloatArray:
        """Of each choice [N]: priced value − the group's least; 0 for the best by price, in units of the objective."""
        return self.lowered - self.least[self.problem.group_of]

    @cached_property
    def best(self) -> BoolArray:
        """Whether the taken choice is its group's best by price, but for rounding [G]."""
        excess = self.lowered[self.rows] - self.least
        return np.asarray(excess <= 2 * self.rounding[self.rows])

    def interval(self, budget: int) -> tuple[FloatArray, FloatArray]:
        """Prices λ of a budget row, the others fixed, at which the taken choice is its group's best [G], [G].

        From low to high; nan where there is no such price. Over the prices whose sign the row allows. A choice r
        holds λ to value(r) + λ·use(r) ≥ value(taken) + λ·use(taken).
        """
        if budget not in self._intervals:
            self._intervals[budget] = self._interval(budget)
        return self._intervals[budget]

    def _interval(self, budget: int) -> tuple[FloatArray, FloatArray]:
        line = next((row for row in self.linear.rows if row.budget == budget), None)
        start, owner = self.problem.indptr[:-1], self.problem.group_of
        if line is None:
            nothing = np.full(self.problem.group_count, np.nan)
            return nothing, nothing
        price = self.prices[budget]
        base = self.lowered - price * line.column if price else self.lowered
        gain = base - base[self.rows][owner] + self.rounding + self.rounding[self.rows][owner]
        use = (line.column - line.column[self.rows][owner]).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            turn = -gain / use
        low = np.maximum.reduceat(np.where(self.free & (use > 0), turn, -np.inf), start)
        high = np.minimum.reduceat(np.where(self.free & (use < 0), turn, np.inf), start)
        beaten = np.logical_or.reduceat(self.free & (use == 0) & (gain < 0), start)
        low = np.maximum(low, 0.0 if line.lo is None else -np.inf)
        high = np.minimum(high, 0.0 if line.hi is None else np.inf)
        empty = beaten | (low > high) | ~self.free[self.rows]
        return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def first_least(problem: Problem, column: NDArray[Any]) -> IntArray:
    """Row of the smallest entry of each group [G], the first among equals; −1 where all are infinite."""
    start = problem.indptr[:-1]
    least = np.minimum.reduceat(column, start)
    hits = np.flatnonzero(column == least[problem.group_of])
    first = hits[np.searchsorted(hits, start)]
    return np.asarray(np.where(np.isinf(least), -1, first))


def priced(changes: Changes, multipliers: Sequence[float | None] | None) -> Priced | str:
    """The allocation under a solution's multipliers, or under prices found here; why there are none, in words.

    Under a p-norm a value is the power of the unary times the slope of the norm there; with interactions it is what
    the choice adds while all other groups stay; for the least maximum it is the unary, among those that do not
    exceed the maximum reached.
    """
    outcome = changes.outcome
    problem, rows = outcome.problem, outcome.rows
    per = " + ".join(_part(name, weight) for name, weight in problem.minimize.items())
    try:
        if lexicographic(problem):
            level = outcome.loss
            linear = linearise(problem, cap=level)
            note = (
                f"prices are of Σ unary among allocations whose largest unary is at most {level:.6g}, the loss reached"
            )
            return _searched(problem, rows, linear, linear.value, "Σ unary", (note,))
        if problem.features & {"pairs", "basis"}:
            linear = linearise(_frozen(changes))
            note = "with interactions, prices and reduced costs hold while all other groups stay as they are"
            return _searched(problem, rows, linear, linear.value, per, (note,))
        linear = linearise(problem)
    except UnsupportedError as error:
        return f"no prices and no intervals: {error}"
    if linear.power != 1:
        total = float(linear.value[rows].sum())
        if total == 0:
            return "no prices and no intervals: the p-norm is 0, where it has no slope"
        slope = outcome.objective / (linear.power * total)
        note = "under the p-norm, values and prices are those of its slope at this allocation"
        return _searched(problem, rows, linear, linear.value * slope, per, (note,), slope)
    if multipliers is None or len(multipliers) < len(problem.budgets):
        return _searched(problem, rows, linear, linear.value, per, ())
    values = [m or 0.0 for m in multipliers]
    return Priced(problem, rows, linear, linear.value, _prices(linear, values), per, False)


def _searched(
    problem: Problem, rows: IntArray, linear: Linear, value: FloatArray, per: str, notes: tuple[str, ...],
    slope: float = 1.0,
) -> Priced:  # fmt: skip
    found = _prices(linear, find_prices(linear).values)
    prices = tuple(None if price is None else price * slope for price in found)
    return Priced(problem, rows, linear, value, prices, per, True, notes)


def _prices(linear: Linear, values: Sequence[float]) -> tuple[float | None, ...]:
    known = {row.budget: active(row, values)[0] for row in linear.rows}
    return tuple(known.get(i) for i in range(len(linear.problem.budgets)))


def _part(name: str, weight: float) -> str:
    return name if weight == 1 else f"{weight:g}·{name}"


def _frozen(changes: Changes) -> Problem:
    """The problem with each interaction as the others' present choices make it: a sum again."""
    problem, outcome = changes.outcome.problem, changes.outcome
    name = "(unary while the others stay)"
    column = changes.unary
    moved = outcome.loss - float(column[outcome.rows].sum())

    def row(budget: Budget) -> Budget:
        if not budget.loss:
            return budget
        most, least = (None if limit is None else limit - moved for limit in (budget.max, budget.min))
        return dataclasses.replace(budget, max=most, min=least)

    return problem.replace(
        scores={**problem.scores, name: column},
        loss=Loss({name: 1.0}),
        interactions=(),
        budgets=tuple(row(b) for b in problem.budgets),
    )
