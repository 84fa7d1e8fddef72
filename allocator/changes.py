"""Every single change of an allocation: one group takes another choice, all others stay.

What it does to the objective, and whether every budget and coupling then holds: all choices at once, in columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.coupling_changes import keeps
from allocator.evaluation import Outcome, lower, upper
from allocator.statement import BoolArray, Budget, Coupling, FloatArray, Number, Pairs
from allocator.sums import exact_sum

NEAR = 1e-9  # of a loss limit: closer than that, each change is evaluated by itself …
MOST_EVALUATED = 2_000  # … for so many choices at most


@dataclass(frozen=True, eq=False)
class Changes:
    """The changes of one allocation; entry r of each column [N] is the change to row r, at taken rows none at all."""

    outcome: Outcome
    _known: dict[Any, NDArray[Any]] = field(default_factory=dict)

    @cached_property
    def unary(self) -> FloatArray:
        """The unary, and under interactions what the row adds to the loss while all other groups stay [N]."""
        problem, rows = self.outcome.problem, self.outcome.rows
        column = problem.unary
        for weight, part in problem.active_interactions:
            if isinstance(part, Pairs):
                taken = np.zeros(problem.choice_count, bool)
                taken[rows] = True
                field = np.zeros(problem.choice_count)
                for mine, other in ((0, 1), (1, 0)):
                    met = taken[part.index[:, other]]
                    np.add.at(field, part.index[met, mine], part.value[met])
            else:
                vectors = part.vectors.astype(np.float64, copy=False)
                others = vectors[rows].sum(axis=0) - vectors[rows]
                field = np.einsum("nr,nr->n", vectors, (others * part.eigenvalues)[problem.group_of])
            column = column + weight * field
        return column

    @cached_property
    def loss(self) -> FloatArray:
        """Change of the loss [N]."""
        problem = self.outcome.problem
        if problem.loss.aggregate == "max":
            return self._largest(problem.unary, -math.inf, None) - self.outcome.loss
        if problem.loss.aggregate == "pnorm":
            return self._norm(problem.loss.p or 1.0)
        return self._difference(self.unary)

    @cached_property
    def objective(self) -> FloatArray:
        """Change of the objective [N]."""
        problem = self.outcome.problem
        total = np.zeros(problem.choice_count)
        for name, weight in problem.minimize.items():
            total += weight * (self.loss if name == "loss" else self.resource(name))
        return total

    @cached_property
    def tie(self) -> FloatArray:
        """Change of Σ unary [N], which tells equal maxima apart."""
        return self._difference(self.outcome.problem.unary)

    def resource(self, name: str) -> NDArray[Any]:
        """Change of a resource's total [N]."""
        if name not in self._known:
            self._known[name] = self._resource(name)
        return self._known[name]

    def _resource(self, name: str) -> NDArray[Any]:
        problem = self.outcome.problem
        spec, column = problem.resources[name], problem.cost(name)
        if spec.aggregate == "max":
            return self._largest(column, spec.offset, None) - self.outcome.totals[name]
        return self._difference(column)

    @cached_property
    def free(self) -> BoolArray:
        """Allowed, and not against a pin [N]."""
        return self.outcome.problem.free

    @cached_property
    def coupled(self) -> BoolArray:
        """Whether every coupling holds afterwards [N]."""
        kept = np.ones(self.outcome.problem.choice_count, bool)
        for coupling in self.outcome.problem.couplings:
            kept &= self.keeps(coupling)
        return kept

    @cached_property
    def within(self) -> BoolArray:
        """Whether every budget row holds afterwards [N]."""
        kept = np.ones(self.outcome.problem.choice_count, bool)
        for i in range(len(self.outcome.problem.budgets)):
            kept &= self.holds(i)
        return kept

    @cached_property
    def feasible(self) -> BoolArray:
        """Whether the change leads to a feasible allocation [N]; a pin or a ban broken elsewhere is not looked at."""
        return self.free & self.coupled & self.within

    def keeps(self, coupling: Coupling) -> BoolArray:
        """Whether a coupling holds after each change [N]."""
        if coupling not in self._known:
            self._known[coupling] = keeps(self.outcome.problem, self.outcome.rows, coupling)
        return self._known[coupling]

    def holds(self, i: int) -> BoolArray:
        """Whether budget row i holds after each change [N]."""
        if i not in self._known:
            self._known[i] = self._holds(i, self.outcome.problem.budgets[i])
        return self._known[i]

    def _holds(self, i: int, budget: Budget) -> BoolArray:
        exact = budget.resource is not None and self.outcome.problem.exact(budget.resource)
        after = self._use(i, budget, exact)
        kept = np.ones(len(after), bool)
        if budget.max is not None:
            kept &= after <= upper(budget.max, exact)
        if budget.min is not None:
            kept &= after >= lower(budget.min, exact)
        plain = self.outcome.problem.loss.aggregate == "sum" and not self.outcome.problem.active_interactions
        return kept if not budget.loss or plain else self._reconsidered(kept, after, budget)

    def _use(self, i: int, budget: Budget, exact: bool) -> NDArray[Any]:
        """Left side of a row after each change [N]."""
        problem, used = self.outcome.problem, self.outcome.used[i]
        offset: Number = 0
        if budget.loss:
            if problem.loss.aggregate != "sum" or problem.active_interactions:
                return self.outcome.loss + self.loss
            column: NDArray[Any] = problem.unary
        elif budget.score is not None:
            column = problem.scores[budget.score]
            if budget.include_remainder and budget.score in problem.remainder:
                column = column + problem.remainder[budget.score]
        else:
            assert budget.resource is not None
            spec, column = problem.resources[budget.resource], problem.cost(budget.resource)
            offset = spec.offset if budget.tags is None else 0
            if spec.aggregate == "max":
                return self._largest(column, offset, budget.tags)
        if budget.tags is not None:
            inside = problem.in_scope(budget.tags)[problem.group_of]
            column = np.where(inside, column, np.zeros((), column.dtype))
        if exact:
            return int(used) + self._difference(column)
        return self._summed(column, float(used), float(offset))

    def _summed(self, column: FloatArray, used: float, offset: float) -> FloatArray:
        """Σ column after each change, as if added without rounding: what the sum's own rounding lost is kept apart."""
        rows = self.outcome.rows
        lost = exact_sum(column[rows], offset, -used)
        old = column[rows][self.outcome.problem.group_of]
        change, rest = _two_sum(column, -old)
        total, more = _two_sum(np.full_like(change, used), change)
        return np.asarray(total + (more + (lost + rest)))

    def _difference(self, column: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(column - column[self.outcome.rows][self.outcome.problem.group_of])

    def _largest(self, column: NDArray[Any], floor: Number, tags: tuple[str, ...] | None) -> NDArray[Any]:
        """The largest taken entry after each change [N]; groups out of scope do not count."""
        problem, rows = self.outcome.problem, self.outcome.rows
        low = column.min() if floor == -math.inf else np.asarray(floor, column.dtype)
        inside = problem.in_scope(tags)
        values = np.where(inside, column[rows], low)
        first = int(values.argmax())
        others = np.full(problem.group_count, max(values[first], low))
        rest = np.delete(values, first)
        others[first] = max(rest.max(), low) if len(rest) else low
        counted = np.where(inside[problem.group_of], column, low)
        return np.asarray(np.maximum(others[problem.group_of], counted))

    def _norm(self, p: float) -> FloatArray:
        """Change of the p-norm [N], in shares of the present one: Σ of the taken powers is 1, and never cancels."""
        problem, rows, loss = self.outcome.problem, self.outcome.rows, self.outcome.loss
        unary = problem.unary
        if loss == 0:
            return unary.copy()
        share = np.minimum(unary / loss, 1.0) ** p
        old = share[rows][problem.group_of]
        change = share - old
        small = change > -0.5
        changed = loss * np.expm1(np.log1p(np.where(small, change, 0.0)) / p)
        over = unary > loss
        rest = np.maximum(1 - old[over], 0.0) * (loss / unary[over]) ** p
        changed[over] = unary[over] * (1 + rest) ** (1 / p) - loss
        for r in np.flatnonzero(~small & ~over).tolist():  # one group at most holds over half of the sum
            changed[r] = Outcome(problem, self.changed(r)).loss - loss
        changed[rows] = 0.0
        return changed

    def _reconsidered(self, kept: BoolArray, after: FloatArray, budget: Budget) -> BoolArray:
        """Changes that end within rounding of a loss limit, evaluated one by one."""
        problem = self.outcome.problem
        near = np.zeros(len(after), bool)
        for limit in (budget.max, budget.min):
            if limit is not None:
                near |= np.abs(after - limit) <= NEAR * (abs(limit) + abs(self.outcome.loss))
        for r in np.flatnonzero(near & self.free)[:MOST_EVALUATED].tolist():
            loss = Outcome(problem, self.changed(r)).loss
            kept[r] = (budget.max is None or loss <= upper(budget.max, False)) and (
                budget.min is None or loss >= lower(budget.min, False)
            )
        return kept

    def changed(self, row: int) -> NDArray[np.int64]:
        """The taken rows [G] after the change to a row."""
        rows = self.outcome.rows.copy()
        rows[self.outcome.problem.group_of[row]] = row
        return rows


def _two_sum(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """a + b rounded, and exactly what rounding took off (D. E. Knuth, TAOCP 2, 4.2.2)."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)
