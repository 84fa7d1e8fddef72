"""Where adding numbers in another order, or in integers, could decide whether a budget row holds."""

from __future__ import annotations

import math

import numpy as np

from allocator.evaluation import loss_size
from allocator.problem import Problem
from allocator.statement import Budget, FloatArray

NEAR_ZERO = 1e-3  # of the sizes that are summed: limits below it are relaxed by no more than rounding may move


def sums_may_merge(problem: Problem) -> bool:
    """Whether sums rounded in advance stay well inside the 1e-12 of its limit by which a float row is relaxed.

    Numbers of one sign cannot cancel: their rounding is small against the sum, and so against a limit near it.
    """
    return all(_harmless(problem, b) for b in problem.budgets)


def _harmless(problem: Problem, b: Budget) -> bool:
    column: FloatArray
    offset = 0.0
    if b.loss:
        column, size = problem.unary, loss_size(problem)
    elif b.score is not None:
        column = problem.scores[b.score]
        if b.include_remainder and b.score in problem.remainder:
            column = column + problem.remainder[b.score]
        size = float(np.abs(column).sum())
    else:
        assert b.resource is not None
        spec = problem.resources[b.resource]
        if problem.exact(b.resource) or spec.aggregate == "max":
            return True
        column = problem.cost(b.resource).astype(np.float64, copy=False)
        offset = float(spec.offset) if b.tags is None else 0.0
        size = float(np.abs(column).sum()) + abs(offset)
    one_sign = bool((column >= 0).all() and offset >= 0) or bool((column <= 0).all() and offset <= 0)
    if one_sign and not (b.loss and problem.active_interactions):
        return True
    return min(abs(limit) for limit in (b.max, b.min) if limit is not None) >= NEAR_ZERO * size


def last_integer(limit: float) -> int:
    """The largest integer that is at most the limit once it is rounded to a float."""
    last = math.floor(limit)
    if abs(last) >= 2**53:
        last = (last + math.floor(math.nextafter(limit, math.inf))) // 2
        last -= float(last) > limit
    return last
