"""Checks `enumeration`: looks at every allocation of a small problem, whatever parts of the format it uses.

Blocks of allocations are evaluated in numpy with a margin for rounding; whatever comes within the margin of
contradicting the claim is evaluated again exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from allocator.evaluation import Outcome, lexicographic, lower, scale_of, upper
from allocator.problem import Problem
from allocator.statement import Budget, Cardinality, Coupling, Implies, IntArray, MaxDistinct, Pairs

MOST_ALLOCATIONS = 1_000_000
MOST_DOUBTS = 2_000
BLOCK = 1 << 14


@dataclass(frozen=True)
class EnumerationCheck:
    """proved: nothing feasible is better (or exists at all); better: an allocation [G] that is."""

    proved: bool
    better: NDArray[np.int64] | None = None


def small_enough(problem: Problem) -> bool:
    """Whether there are at most a million allocations."""
    return math.fsum(np.log(problem.sizes).tolist()) <= math.log(MOST_ALLOCATIONS) + 1e-9


def enumerate_all(problem: Problem, best: Outcome | None) -> EnumerationCheck:
    """Prove that no feasible allocation beats `best` by more than 1e-12·S, or, with None, that there is none."""
    if not small_enough(problem):
        return EnumerationCheck(proved=False)
    tolerance = 1e-12 * scale_of(problem)
    doubts = 0
    for rows in _blocks(problem):
        view = _Block(problem, rows)
        suspect = view.possibly_feasible()
        if best is not None:
            margin = tolerance / 4
            objective = view.objective()
            below = objective < best.objective - tolerance + margin
            if lexicographic(problem):
                level = objective <= best.objective + tolerance
                below |= level & (view.unary.sum(axis=1) < best.tie - tolerance + margin)
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
    return found.objective <= best.objective + tolerance and found.tie < best.tie - tolerance


def _blocks(problem: Problem) -> Iterator[IntArray]:
    total = math.prod(problem.sizes.tolist())
    for first in range(0, total, BLOCK):
        number = np.arange(first, min(first + BLOCK, total))
        rows = np.empty((len(number), problem.group_count), np.int64)
        for g in range(problem.group_count - 1, -1, -1):
            number, rows[:, g] = np.divmod(number, problem.sizes[g])
        yield rows + problem.indptr[:-1]


class _Block:
    """Many allocations at once: `rows` [B, G]."""

    def __init__(self, problem: Problem, rows: IntArray) -> None:
        self.problem = problem
        self.rows = rows
        self.unary = problem.unary[rows]

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
                vectors = part.vectors[self.rows].astype(np.float64)
                cross = vectors.sum(axis=1) ** 2 - (vectors**2).sum(axis=1)
                total = total + 0.5 * weight * (cross @ part.eigenvalues)
        return np.asarray(total)

    def resource(self, name: str, tags: tuple[str, ...] | None) -> NDArray[np.float64]:
        spec = self.problem.resources[name]
        column = self.problem.cost(name)[self.rows[:, self.problem.in_scope(tags)]]
        offset = spec.offset if tags is None else 0
        if spec.aggregate == "max":
            return np.asarray(column.max(axis=1, initial=offset))
        if self.problem.exact(name):
            offset = int(offset)
        return np.asarray(column.sum(axis=1) + offset)

    def objective(self) -> NDArray[np.float64]:
        total = np.zeros(len(self.rows))
        for name, weight in self.problem.minimize.items():
            total = total + weight * (self.loss() if name == "loss" else self.resource(name, None))
        return total

    def possibly_feasible(self) -> NDArray[np.bool_]:
        """False only where a row or coupling is surely broken."""
        keep = self.problem.free[self.rows].all(axis=1)
        for budget in self.problem.budgets:
            use, exact, size = self._use(budget)
            margin = 0 if exact else 1e-13 * size
            if budget.max is not None:
                keep &= use <= upper(budget.max, exact) + margin
            if budget.min is not None:
                keep &= use >= lower(budget.min, exact) - margin
        for coupling in self.problem.couplings:
            keep &= self._kept(coupling)
        return np.asarray(keep)

    def _use(self, budget: Budget) -> tuple[NDArray[np.float64], bool, float]:
        if budget.loss:
            return self.loss(), False, scale_of(self.problem.replace(minimize={"loss": 1.0})) * 10
        if budget.score is not None:
            column = self.problem.scores[budget.score]
            if budget.include_remainder and budget.score in self.problem.remainder:
                column = column + self.problem.remainder[budget.score]
            taken = column[self.rows[:, self.problem.in_scope(budget.tags)]]
            return taken.sum(axis=1), False, float(np.abs(taken).sum(axis=1).max())
        assert budget.resource is not None
        exact = self.problem.exact(budget.resource)
        size = 0.0 if exact else float(np.abs(self.problem.cost(budget.resource)).sum())
        return self.resource(budget.resource, budget.tags), exact, size

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
