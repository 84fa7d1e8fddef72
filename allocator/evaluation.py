"""What an allocation is worth: loss, objective, totals, and each budget and coupling it breaks.

The meaning is that of the format: sums by `math.fsum`, exact cost columns in integers, float limits
relaxed by 1e-12 of their size and by nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from allocator.blocks import per_group, spans
from allocator.statement import (
    Budget,
    Cardinality,
    Coupling,
    Implies,
    IntArray,
    Number,
    Pairs,
    SameChoice,
)
from allocator.sums import exact_sum

if TYPE_CHECKING:
    from allocator.problem import Problem

SLACK = 1 + 1e-12


def upper(limit: Number, exact: bool) -> Number:
    """The largest use that a row's max lets through: floored where exact, else relaxed by 1e-12."""
    if exact:
        return math.floor(limit)
    return limit * SLACK if limit > 0 else limit / SLACK


def lower(limit: Number, exact: bool) -> Number:
    """The least use that a row's min lets through."""
    if exact:
        return math.ceil(limit)
    return limit / SLACK if limit > 0 else limit * SLACK


@dataclass(frozen=True, eq=False)
class Outcome:
    """One allocation of one problem, evaluated; parts are computed when asked for."""

    problem: Problem
    rows: IntArray

    @cached_property
    def loss(self) -> float:
        """Aggregate of the unaries plus the interactions."""
        return loss_of(self.problem, self.rows)

    @cached_property
    def objective(self) -> float:
        """What is minimised: Σ weight·(loss or a resource's total)."""
        return math.fsum(
            weight * (self.loss if name == "loss" else self.totals[name])
            for name, weight in self.problem.minimize.items()
        )

    @cached_property
    def tie(self) -> float:
        """Second criterion among equal objectives: Σ unary where the least maximum is sought, else 0."""
        if not lexicographic(self.problem):
            return 0.0
        return exact_sum(self.problem.unary[self.rows])

    @cached_property
    def totals(self) -> dict[str, Number]:
        """Use of each resource, offset included."""
        return {r: resource_use(self.problem, self.rows, r, None) for r in self.problem.costs}

    @cached_property
    def used(self) -> tuple[Number, ...]:
        """Left side of each budget row."""
        return tuple(self._use(row) for row in self.problem.budgets)

    @property
    def slack(self) -> tuple[float | None, ...]:
        """Room left in each row: max − used or used − min, the smaller where both stand."""
        return tuple(_room(row, use) for row, use in zip(self.problem.budgets, self.used, strict=True))

    @cached_property
    def violations(self) -> tuple[str, ...]:
        """Everything that this allocation breaks, in words; empty when it is feasible."""
        return tuple(self._violations())

    @property
    def feasible(self) -> bool:
        """Whether nothing is broken."""
        return not self.violations

    def _use(self, row: Budget) -> Number:
        if row.loss:
            return self.loss
        if row.score is not None:
            kept = self.rows[self.problem.in_scope(row.tags)]
            values = self.problem.scores[row.score][kept]
            if row.include_remainder and row.score in self.problem.remainder:
                values = values + self.problem.remainder[row.score][kept]
            return exact_sum(values)
        assert row.resource is not None
        return (
            self.totals[row.resource]
            if row.tags is None
            else resource_use(self.problem, self.rows, row.resource, row.tags)
        )

    def _violations(self) -> Iterator[str]:
        problem = self.problem
        if problem.allowed is not None:
            for g in np.flatnonzero(~problem.allowed[self.rows])[:100].tolist():
                yield f"group {problem.group_names[g]!r}: choice {self._name(g)!r} is not allowed"
        for g, row in problem.pins.items():
            if self.rows[g] != row:
                yield f"group {problem.group_names[g]!r} is pinned to {problem.choice_name(row)!r}"
        for budget, use in zip(problem.budgets, self.used, strict=True):
            exact = budget.resource is not None and problem.exact(budget.resource)
            if budget.max is not None and use > upper(budget.max, exact):
                yield f"{budget.name}: {use} is over the max {budget.max}"
            if budget.min is not None and use < lower(budget.min, exact):
                yield f"{budget.name}: {use} is under the min {budget.min}"
        for coupling in problem.couplings:
            if (reason := self._broken(coupling)) is not None:
                yield reason

    def _broken(self, coupling: Coupling) -> str | None:
        problem = self.problem
        if isinstance(coupling, Implies):
            if self._taken(coupling.if_row) and not self._taken(coupling.then_row):
                return f"implies: {self._where(coupling.if_row)} is taken but {self._where(coupling.then_row)} is not"
            return None
        if isinstance(coupling, Cardinality):
            n = sum(self._taken(row) for row in coupling.rows)
            broken = {
                "at_most": n > coupling.count,
                "at_least": n < coupling.count,
                "exactly": n != coupling.count,
            }[coupling.kind]
            return f"{coupling.kind} {coupling.count}: {n} of {len(coupling.rows)} choices taken" if broken else None
        codes = problem.label_codes
        labels = {codes.table[c] for c in np.unique(codes.code[self.rows[list(coupling.groups)]]).tolist()}
        if isinstance(coupling, SameChoice):
            return f"same_choice: labels {sorted(labels)} differ" if len(labels) > 1 else None
        labels -= coupling.ignore
        return f"max_distinct {coupling.count}: {len(labels)} labels" if len(labels) > coupling.count else None

    def _taken(self, row: int) -> bool:
        return bool(self.rows[self.problem.group_of[row]] == row)

    def _name(self, group: int) -> str:
        return self.problem.choice_name(int(self.rows[group]))

    def _where(self, row: int) -> str:
        return f"{self.problem.group_names[int(self.problem.group_of[row])]!r}={self.problem.choice_name(row)!r}"


def _room(row: Budget, use: Number) -> float | None:
    room: list[float] = [] if row.max is None else [row.max - use]
    room += [] if row.min is None else [use - row.min]
    return min(room, default=None)


def evaluate(problem: Problem, choice: NDArray[Any]) -> Outcome:
    """Evaluate an allocation given as the index of the choice within each group [G].

    Raises:
        ValueError: wrong length, not integers, or an index outside its group.
    """
    if choice.shape != (problem.group_count,) or choice.dtype.kind not in "iu":
        raise ValueError(f"an allocation is {problem.group_count} integers, not {choice.dtype} of shape {choice.shape}")
    index = choice.astype(np.int64)
    outside = (index < 0) | (index >= problem.sizes)
    if outside.any():
        g = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"group {problem.group_names[g]!r} has choices 0 to {problem.sizes[g] - 1}, not {int(index[g])}"
        )
    return Outcome(problem, problem.indptr[:-1] + index)


def lexicographic(problem: Problem) -> bool:
    """Whether equal objectives are told apart by Σ unary: least maximum of the loss, nothing else minimised."""
    return problem.loss.aggregate == "max" and list(problem.minimize) == ["loss"]


def loss_of(problem: Problem, rows: IntArray) -> float:
    """Loss of the taken rows: sum, maximum or p-norm of the unaries, plus the interactions under a sum."""
    taken = problem.unary[rows]
    if problem.loss.aggregate == "max":
        return float(taken.max())
    if problem.loss.aggregate == "pnorm":
        values: list[float] = taken.tolist()
        p, m = problem.loss.p or 1.0, max(values)
        return m and m * math.fsum((v / m) ** p for v in values) ** (1 / p)
    between: list[float] = []
    for weight, part in problem.active_interactions:
        if isinstance(part, Pairs):
            present = np.zeros(problem.choice_count, bool)
            present[rows] = True
            both = present[part.index[:, 0]] & present[part.index[:, 1]]
            between += (weight * part.value[both]).tolist()
        else:
            columns = part.vectors[rows].astype(np.float64).T.tolist()
            for e, column in zip(part.eigenvalues.tolist(), columns, strict=True):
                between.append(weight * 0.5 * e * (math.fsum(column) ** 2 - math.fsum(x * x for x in column)))
    return exact_sum(taken, *between)


def resource_use(problem: Problem, rows: IntArray, resource: str, tags: tuple[str, ...] | None) -> Number:
    """Total of a resource: offset plus sum, or the maximum; a row with tags leaves the offset out."""
    spec = problem.resources[resource]
    exact = problem.exact(resource)
    column = problem.cost(resource)[rows if tags is None else rows[problem.in_scope(tags)]]
    offset: Number = spec.offset if tags is None else 0
    if spec.aggregate == "max":
        most = max([offset, *([column.max().item()] if len(column) else [])])
        return int(most) if exact else float(most)
    if exact:
        return int(offset) + int(column.sum())
    return exact_sum(column.astype(np.float64, copy=False), offset)


def scale_of(problem: Problem) -> float:
    """S, the size that tolerances are relative to: Σ |weight|·S_part over the parts of the objective.

    S_loss = Σ_g max_k |unary − ½ Σ_i e_i v_i²| + Σ |pairs|; S_resource = |offset| + Σ_g max_k |cost|,
    over the choices that may be taken.
    """
    total = 0.0
    for name, weight in problem.minimize.items():
        if name == "loss":
            value = problem.unary
            size = 0.0
            for term, part in problem.active_interactions:
                if isinstance(part, Pairs):
                    size += abs(term) * float(np.abs(part.value).sum())
                else:
                    value = value - 0.5 * term * (part.vectors.astype(np.float64) ** 2 @ part.eigenvalues)
            size += _sum_of_largest(problem, value)
        else:
            size = resource_size(problem, name)
        total += abs(weight) * size
    return total


def resource_size(problem: Problem, resource: str) -> float:
    """|offset| + Σ_g max_k |cost|, over the choices that may be taken."""
    return abs(float(problem.resources[resource].offset)) + _sum_of_largest(problem, problem.cost(resource))


def loss_size(problem: Problem) -> float:
    """What the rounding of a loss is relative to: Σ_g max_k |unary| + Σ |pairs| + ½ Σ_i |e_i| (Σ_g max_k |v_gi|)².

    Unlike S it does not shrink where the unaries and the interactions cancel.
    """
    size = _sum_of_largest(problem, problem.unary)
    for term, part in problem.active_interactions:
        if isinstance(part, Pairs):
            size += term * float(np.abs(part.value).sum())
        else:
            reach = [_sum_of_largest(problem, v.astype(np.float64)) for v in part.vectors.T]
            size += 0.5 * term * float(np.abs(part.eigenvalues) @ np.square(reach)) if reach else 0.0
    return size


def _sum_of_largest(problem: Problem, column: NDArray[Any]) -> float:
    """Σ_g max_k |column| over the choices that may be taken."""
    free = None if problem.allowed is None and not problem.pins else problem.free
    sizes = []
    for span in spans(problem):
        size = np.abs(column[span.rows])
        if free is not None:
            size[~free[span.rows]] = 0
        sizes.append(float(per_group(problem, span, np.maximum, size).astype(np.float64).sum()))
    return math.fsum(sizes)
