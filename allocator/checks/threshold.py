"""Checks `threshold`: the least maximum of the loss, and among those the least Σ unary.

Under a cap on the unaries the budget rows stay sums. If no allocation keeps them at the largest unary below the
level, no maximum is below the level; and if at the level itself none has a smaller Σ unary (a `core` proof), the
allocation is optimal in both. Couplings are left out: what they forbid proves nothing less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from allocator.blocks import pieces
from allocator.checks.core import MOST_STATES, CoreCheck, exhaust
from allocator.checks.lagrangian import proves_infeasible, single_row_infeasible
from allocator.evaluation import lexicographic
from allocator.linear import linearise
from allocator.problem import Problem


@dataclass(frozen=True)
class ThresholdCheck:
    """least: no allocation has a maximum below the level. tie: the check of Σ unary at the level, if it came to it."""

    least: bool
    tie: CoreCheck | None = None

    @property
    def proved(self) -> bool:
        """Both."""
        return self.least and self.tie is not None and self.tie.proved


def applies(problem: Problem) -> bool:
    """Whether the least maximum of the loss is sought, and nothing else."""
    return lexicographic(problem) and problem.minimize["loss"] > 0


def check_threshold(
    problem: Problem,
    values: Sequence[float],
    below: Sequence[float],
    level: float,
    tie: float,
    tolerance: float,
    most_states: int = MOST_STATES,
) -> ThresholdCheck:
    """Whether no allocation has a maximum below `level`, or that maximum and Σ unary below tie − tolerance.

    Args:
        problem: one for which `applies` holds.
        values: prices per budget row for Σ unary at the level.
        below: prices that show that the rows cannot be kept below it; none: a single row shows it.
        level: largest unary of the allocation in question.
        tie: its Σ unary.
        tolerance: on Σ unary.
        most_states: at which the check of Σ unary gives up.
    """
    if not (np.isfinite(level) and _impossible(problem, _next_below(problem, level), below)):
        return ThresholdCheck(False)
    return ThresholdCheck(True, exhaust(linearise(problem, cap=level), values, tie, tolerance, most_states))


def _next_below(problem: Problem, level: float) -> float:
    """The largest unary below a level, −∞ where there is none."""
    unary = problem.unary
    return max(float(unary[p].max(initial=-np.inf, where=unary[p] < level)) for p in pieces(len(unary)))


def _impossible(problem: Problem, cap: float, prices: Sequence[float]) -> bool:
    """Whether no allocation with unaries up to the cap keeps all rows."""
    linear = linearise(problem, cap=cap)
    if not np.logical_or.reduceat(linear.free, problem.indptr[:-1]).all():
        return True
    return single_row_infeasible(linear) is not None or proves_infeasible(linear, prices)
