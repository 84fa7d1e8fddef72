"""Checks `enumeration`: looks at every allocation of a small problem, whatever parts of the format it uses.

Blocks of allocations are evaluated in numpy with a margin for rounding; whatever comes within the margin of
contradicting the claim is evaluated again exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from allocator.evaluation import Outcome, lexicographic, loss_size, lower, resource_size, scale_of, upper
from allocator.problem import Problem
from allocator.statement import Budget, Cardinality, Coupling, Implies, IntArray, MaxDistinct, Pairs

MOST_ALLOCATIONS = 1_000_000
MOST_LOOKS = 100_000_000
MOST_DOUBTS = 2_000
BLOCK = 1 << 14
CELLS = 1 << 22
ROUNDING = 1e-13  # of the sizes that are summed: what numpy's sums may differ by from exact ones


@dataclass(frozen=True)
class EnumerationCheck:
    """proved: nothing feasible is better (or exists at all); better: an allocation [G] that is."""

    proved: bool
    better: NDArray[np.int64] | None = None


def small_enough(problem: Problem, most: int = MOST_ALLOCATIONS) -> bool:
    """Whether there are at most so many allocations, and not too many groups to look at in each."""
    several = problem.sizes[problem.sizes > 1]
    if len(several) > math.log2(most) + 1:
        return False
    count = math.fsum(np.log(several).tolist())
    return count <= math.log(most) + 1e-9 and count + math.log(problem.group_count) <= math.log(MOST_LOOKS)


def enumerate_all(problem: Problem, best: Outcome | None) -> EnumerationCheck:
    """Prove that no feasible allocation beats `best` by more than 1e-12·S, or, with None, that there is none."""
    if not small_enough(problem):
        return EnumerationCheck(proved=False)
    tolerance = 1e-12 * scale_of(problem)
    sizes = _Sizes(problem)
    doubts = 0
    for rows in _blocks(problem):
        view = _Block(problem, rows, sizes)
        suspect = view.possibly_feasible()
        if best is not None:
            objective = view.objective()
            below = objective < best.objective - tolerance + sizes.objective
            if lexicographic(problem):
                level = objective <= best.objective + sizes.objective
                below |= level & (view.unary.sum(axis=1) < best.tie - tolerance + sizes.objective)
            suspect &= below
        for row in rows[suspect]:
            doubts += 1
            found = Outcome(problem, row)
            if found.feasible and (best is None or _beats(found, best, tolerance)):
                return EnumerationCheck(proved=False, better=row - problem.indptr[:-1])
            if doubts > MOST_DOUBTS:
                return EnumerationCheck(proved=False)
    return EnumerationCheck(proved=True)


def _beats(found: Outcome, best: Outcome, tolerance: float) -> bool:
    if found.objective < best.objective - tolerance:
        return True
    return found.objective <= best.objective and found.tie < best.tie - tolerance


def _blocks(problem: Problem) -> Iterator[IntArray]:
    total = math.prod(problem.sizes.tolist())
    step = max(1, min(BLOCK, CELLS // problem.group_count))
    for first in range(0, total, step):
        number = np.arange(first, min(first + step, total))
        rows = np.empty((len(number), problem.group_count), np.int64)
        for g in range(problem.group_count - 1, -1, -1):
            number, rows[:, g] = np.divmod(number, problem.sizes[g])
        yield rows + problem.indptr[:-1]


class _Sizes:
    """By how much rounding may move the sums of one problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @cached_property
    def loss(self) -> float:
        return ROUNDING * loss_size(self.problem)

    @cached_property
    def objective(self) -> float:
        parts = self.problem.minimize.items()
        return math.fsum(
            abs(w) * (self.loss if r == "loss" else ROUNDING * resource_size(self.problem, r)) for r, w in parts
        )

    def row(self, budget: Budget) -> float:
        """0 where integers decide."""
        if budget.loss:
            return self.loss
        if budget.score is not None:
            return ROUNDING * float(np.abs(_score_column(self.problem, budget)).sum())
        assert budget.resource is not None
        if self.problem.exact(budget.resource):
            return 0.0
        offset = abs(float(self.problem.resources[budget.resource].offset))
        return ROUNDING * (float(np.abs(self.problem.cost(budget.resource)).sum()) + offset)


def _score_column(problem: Problem, budget: Budget) -> NDArray[np.float64]:
    assert budget.score is not None
    column = problem.scores[budget.score]
    if budget.include_remainder and budget.score in problem.remainder:
        column = column + problem.remainder[budget.score]
    return column


class _Block:
    """Many allocations at once: `rows` [B, G]."""

    def __init__(self, problem: Problem, rows: IntArray, sizes: _Sizes) -> None:
        self.problem = problem
        self.rows = rows
        self.sizes = sizes
        self.unary = problem.unary[rows]

    @cached_property
    def loss(self) -> NDArray[np.float64]:
        spec = self.problem.loss
        if spec.aggregate == "max":
            return np.asarray(self.unary.max(axis=1))
        if spec.aggregate == "pnorm":
            p, most = spec.p or 1.0, self.unary.max(axis=1)
            scale = np.where(most > 0, most, 1.0)
            return np.asarray(most * ((self.unary / scale[:, None]) ** p).sum(axis=1) ** (1 / p))
        total = self.unary.sum(axis=1)
        for weight, part in self.problem.active_interactions:
            if isinstance(part, Pairs):
                first, second = self.problem.group_of[part.index].T
                both = (self.rows[:, first] == part.index[:, 0]) & (self.rows[:, second] == part.index[:, 1])
                total = total + weight * (both @ part.value)
            else:
                for e, column in zip(part.eigenvalues.tolist(), part.vectors.T, strict=True):
                    taken = column.astype(np.float64)[self.rows]
                    total = total + 0.5 * weight * e * (taken.sum(axis=1) ** 2 - (taken**2).sum(axis=1))
        return np.asarray(total)

    def resource(self, name: str, tags: tuple[str, ...] | None) -> NDArray[np.float64]:
        spec = self.problem.resources[name]
        column = self.problem.cost(name)[self.rows[:, self.problem.in_scope(tags)]]
        offset = spec.offset if tags is None else 0
        if self.problem.exact(name):
            offset = int(offset)
        if spec.aggregate == "max":
            return np.asarray(column.max(axis=1, initial=offset))
        return np.asarray(column.sum(axis=1) + offset)

    def objective(self) -> NDArray[np.float64]:
        total = np.zeros(len(self.rows))
        for name, weight in self.problem.minimize.items():
            total = total + weight * (self.loss if name == "loss" else self.resource(name, None))
        return total

    def possibly_feasible(self) -> NDArray[np.bool_]:
        """False only where a row or coupling is surely broken."""
        keep = self.problem.free[self.rows].all(axis=1)
        for budget in self.problem.budgets:
            use, margin = self._use(budget), self.sizes.row(budget)
            exact = budget.resource is not None and self.problem.exact(budget.resource)
            if budget.max is not None:
                keep &= use <= upper(budget.max, exact) + (0 if exact else margin)
            if budget.min is not None:
                keep &= use >= lower(budget.min, exact) - (0 if exact else margin)
        for coupling in self.problem.couplings:
            keep &= self._kept(coupling)
        return np.asarray(keep)

    def _use(self, budget: Budget) -> NDArray[np.float64]:
        if budget.loss:
            return self.loss
        if budget.score is not None:
            taken = _score_column(self.problem, budget)[self.rows[:, self.problem.in_scope(budget.tags)]]
            return np.asarray(taken.sum(axis=1))
        assert budget.resource is not None
        return self.resource(budget.resource, budget.tags)

    def _kept(self, coupling: Coupling) -> NDArray[np.bool_]:
        group_of = self.problem.group_of
        if isinstance(coupling, Implies):
            first = self.rows[:, group_of[coupling.if_row]] == coupling.if_row
            return np.asarray(~first | (self.rows[:, group_of[coupling.then_row]] == coupling.then_row))
        if isinstance(coupling, Cardinality):
            rows = np.array(coupling.rows)
            taken = (self.rows[:, group_of[rows]] == rows).sum(axis=1)
            if coupling.kind == "at_most":
                return np.asarray(taken <= coupling.count)
            return np.asarray(taken >= coupling.count if coupling.kind == "at_least" else taken == coupling.count)
        codes = self.problem.label_codes
        labels = codes.code[self.rows[:, list(coupling.groups)]]
        if not isinstance(coupling, MaxDistinct):
            return np.asarray((labels == labels[:, :1]).all(axis=1))
        counted = [c for c in np.unique(labels).tolist() if codes.table[c] not in coupling.ignore]
        different = sum(((labels == c).any(axis=1).astype(np.int64) for c in counted), np.zeros(len(labels), np.int64))
        return np.asarray(different <= coupling.count)
