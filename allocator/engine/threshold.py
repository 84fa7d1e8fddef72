"""The least maximum of the loss: the smallest level at which the cheapest allocation keeps every row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from allocator.certificate import Threshold
from allocator.engine.separable import Separated
from allocator.linear import Linear, linearise
from allocator.problem import Problem


def solve_threshold(problem: Problem, solve: Callable[[Linear], Separated]) -> Separated:
    """Least max_g unary by bisection over the unaries that occur; then least Σ unary at that level.

    Args:
        problem: whose objective is a largest unary alone.
        solve: least Σ value of a separable view (couplings included), exactly.
    """
    levels = np.unique(problem.unary[problem.free])
    low, high = 0, len(levels)  # the answer is in [low, high]; high = nothing is feasible
    below: tuple[float, ...] = ()
    limit = None
    while low < high:
        middle = (low + high) // 2
        linear = linearise(problem, cap=float(levels[middle]))
        found = solve(dataclasses.replace(linear, value=np.zeros_like(linear.value)))
        if found.rows is not None:
            high = middle
            continue
        limit = limit or found.limit
        below, low = found.prices, middle + 1
    if low == len(levels):
        linear = linearise(problem, cap=float(levels[-1]))
        found = solve(dataclasses.replace(linear, value=np.zeros_like(linear.value)))
        if found.rows is None:
            return found
        return dataclasses.replace(found, bound=-np.inf, limit=limit, certificate=None)  # a limit hid it before
    found = solve(linearise(problem, cap=float(levels[low])))
    return dataclasses.replace(
        found,
        bound=float(levels[low]) if limit is None else -np.inf,
        limit=found.limit or limit,
        certificate=Threshold(found.prices, below),
    )
