"""Greedy by best ratio: start from the cheapest choices, buy the upgrade with the most loss saved per cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.engine.hull import Hull, hull_moves
from allocator.engine.knapsack import to_integers
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """Walks each group's lower convex hull (cost, loss) and takes steps by falling ratio until the budget is spent.

    Steps that no longer fit are passed over and later ones still tried, so what is left of the budget is filled.
    One max row only. The classical heuristic for the multiple-choice knapsack (Sinha and Zoltners, 1979).
    """

    name: ClassVar[str] = "greedy"
    features: ClassVar[frozenset[str]] = frozenset({"scoped_budgets", "score_budgets", "resource_objective"})
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Cheapest first, then upgrades by ratio."""
        linear = linearise(problem)
        if not np.logical_or.reduceat(linear.free, problem.indptr[:-1]).all():
            return Answer()  # a group has no choice within the largest cost allowed
        if not linear.rows:
            column = np.zeros(problem.choice_count)
            room: float = 0.0
        else:
            (row,) = linear.rows
            column, room = row.column, row.hi if row.hi is not None else np.inf
            room = room if row.exact else room - 1e-13 * abs(room)  # running sums of floats round; the core's do not
        first = problem.indptr[:-1]
        whole = (column if column.dtype == np.int64 else to_integers(column, problem.indptr)[0]).astype(
            np.int64, copy=False
        )
        hull = hull_moves(linear.value, whole, problem.indptr, linear.free)
        current = first + hull.base
        room = room - _total(column, current)
        if room < 0:
            return Answer()
        target = first[hull.group] + hull.choice
        source = _sources(hull, current, target)
        gain = column[target] - column[source]
        bought = int(np.searchsorted(np.cumsum(gain), room, side="right"))
        current[hull.group[:bought]] = target[:bought]
        room -= gain[:bought].sum().item()
        _fill(current, room, hull.group.astype(np.int64), source, target, gain, bought)
        choice = current - problem.indptr[:-1]
        if not problem.evaluate(choice).feasible:
            return Answer()  # sums of floats round
        if limits.report is not None:
            limits.report(choice)
        return Answer(choice=choice, statistics={"steps": len(target)})


def _sources(hull: Hull, base: IntArray, target: IntArray) -> IntArray:
    """Row that each step leaves: the one its group stood at before."""
    order = np.argsort(hull.group, kind="stable")
    group = hull.group[order]
    again = np.concatenate([[False], group[1:] == group[:-1]]) if len(group) else np.zeros(0, bool)
    source = np.empty_like(target)
    source[order] = np.where(again, np.roll(target[order], 1), base[group])
    return source


def _fill(
    current: IntArray,
    room: float,
    group: IntArray,
    source: IntArray,
    target: IntArray,
    gain: NDArray[Any],
    first: int,
) -> None:
    """Try the later steps one by one: each that continues its group's walk and still fits is taken."""
    if first == len(gain) or room < gain[first:].min():
        return
    fits = first + np.flatnonzero(gain[first:] <= room)
    for m in fits.tolist():
        g = group[m]
        if gain[m] <= room and current[g] == source[m]:
            current[g] = target[m]
            room -= gain[m].item()


def _total(column: NDArray[np.int64] | FloatArray, rows: IntArray) -> float:
    total: float = column[rows].sum().item()
    return total
