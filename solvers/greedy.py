"""Greedy by best ratio: start from the cheapest choices, buy the upgrade with the most loss saved per cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.linear import Linear, linearise
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
        current, moves = hull_moves(linear, column)
        room = room - _total(column, current)
        if room < 0:
            return Answer()
        ratio, source, target = moves
        order = np.argsort(-ratio, kind="stable")  # a group's own steps come in the order of its walk
        gain = (column[target] - column[source])[order]
        bought = int(np.searchsorted(np.cumsum(gain), room, side="right"))
        current[problem.group_of[target[order[:bought]]]] = target[order[:bought]]
        room -= gain[:bought].sum().item()
        _fill(current, room, problem.group_of[target[order]], source[order], target[order], gain, bought)
        choice = current - problem.indptr[:-1]
        if not problem.evaluate(choice).feasible:
            return Answer()  # sums of floats round
        if limits.report is not None:
            limits.report(choice)
        return Answer(choice=choice, statistics={"steps": len(order)})


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


def hull_moves(
    linear: Linear, column: NDArray[np.int64] | FloatArray
) -> tuple[IntArray, tuple[FloatArray, IntArray, IntArray]]:
    """Cheapest row of each group [G], and every step along the hulls as (loss saved per cost, from row, to row)."""
    problem, value = linear.problem, linear.value
    order = np.lexsort((value, column, problem.group_of))
    order = order[linear.free[order]]
    owner = problem.group_of[order]
    first = np.concatenate([[True], owner[1:] != owner[:-1]])
    current = order[first].copy()
    ratios, sources, targets = [], [], []
    standing, least = current.copy(), np.full(problem.group_count, np.inf)
    for _ in range(int(problem.sizes.max()) - 1):
        here = standing[problem.group_of]
        saved, spent = value[here] - value, (column - column[here]).astype(np.float64)
        useful = linear.free & (saved > 0) & (spent > 0)
        ratio = np.where(useful, saved / np.where(spent > 0, spent, 1.0), -np.inf)
        best = np.maximum.reduceat(ratio, problem.indptr[:-1])
        hits = np.flatnonzero(useful & (ratio == best[problem.group_of]))
        if not len(hits):
            break
        groups = problem.group_of[hits]
        last = np.concatenate([groups[1:] != groups[:-1], [True]])
        hits, groups = hits[last], groups[last]
        least[groups] = np.minimum(least[groups], ratio[hits])  # rounding must not put a step before the one it needs
        ratios.append(least[groups])
        sources.append(standing[groups])
        targets.append(hits)
        standing[groups] = hits
    if not ratios:
        empty = np.zeros(0, np.int64)
        return current, (np.zeros(0), empty, empty)
    return current, (np.concatenate(ratios), np.concatenate(sources), np.concatenate(targets))
