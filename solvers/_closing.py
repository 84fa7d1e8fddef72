"""From the allocation that a method asks for to a feasible one: repair, and local search where it is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from allocator.local_search import improved, repaired
from allocator.protocols import Limits
from allocator.solution import Answer
from allocator.statement import IntArray
from solvers._axis import Axis


def feasible(axis: Axis, *guesses: IntArray) -> IntArray | None:
    """The first of the guesses (rows [G]), or else of the cheapest choices, that keeps all rows or can be repaired.

    Under one max row the cheapest choices keep it if anything does, so that None means that nothing is feasible;
    under several rows the repair may miss what there is.
    """
    problem, first = axis.linear.problem, axis.linear.problem.indptr[:-1]
    for rows in (*guesses, axis.cheapest):
        if problem.evaluate(rows - first).feasible:
            return rows
        kept = repaired(axis.linear, rows)
        if kept is not None and problem.evaluate(kept - first).feasible:
            return kept
    return None


def closed(
    axis: Axis, guess: IntArray, limits: Limits, *, polish: bool = False, statistics: Mapping[str, Any] | None = None
) -> Answer:
    """The answer of a method that asks for one allocation (rows [G]).

    Args:
        axis: of the problem.
        guess: what the method asks for, rounded to choices.
        limits: its `report` is told of the allocation, and its clock is looked at before the polish.
        polish: go on by local search to an allocation that no change of one group improves.
        statistics: of the method; `repaired` is added, the number of groups that the repair changed.
    """
    linear, first = axis.linear, axis.linear.problem.indptr[:-1]
    rows = feasible(axis, guess)
    if rows is None:
        return Answer(statistics=dict(statistics or {}))
    told = dict(statistics or {}) | {"repaired": int((rows != guess).sum())}
    if limits.report is not None:
        limits.report(rows - first)
    limit = None
    if polish and limits.left <= 0:
        limit = "time"
    elif polish:
        better = improved(linear, rows)
        if (better != rows).any() and linear.problem.evaluate(better - first).feasible:
            rows = better
            if limits.report is not None:
                limits.report(rows - first)
    return Answer(choice=rows - first, limit=limit, statistics=told)
