"""The least largest loss, by bisection on a threshold; what the budget leaves goes to the largest losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.evaluation import lexicographic
from allocator.features import LINEAR
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import IntArray
from solvers._axis import Axis
from solvers._closing import closed, feasible
from solvers._cut import least_cut
from solvers._room import Room

POLL = 1024


@dataclass(frozen=True, kw_only=True)
class BottleneckBisection:
    """Minimises the largest loss of a choice over the groups, then fills.

    Each group takes the cheapest format whose loss is within a threshold, and the threshold is bisected: the search
    of ModelOpt's `auto_quantize` by KL divergence. It halves an interval a hundred times and returns the last
    threshold tried, over the budget or not; here the bisection is over the losses that occur and ends at the least
    that fits. Under one max row the largest loss is then the least possible; under several it is repaired. Groups
    are next gone through once from the largest loss down, each to the best choice that still fits; ModelOpt leaves
    that budget unused.

    fill: whether to do that.
    polish: go on by local search from there; what comes out is then the work of the search.
    """

    fill: bool = True
    polish: bool = False

    name: ClassVar[str] = "bottleneck_bisection"
    features: ClassVar[frozenset[str]] = LINEAR - {"resource_objective"} | {"loss_budgets", "pnorm_loss", "max_loss"}
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Threshold, repair, fill."""
        axis = Axis.of(linearise(problem, cap=np.inf if lexicographic(problem) else None))
        if axis is None:
            return Answer()
        rows, _ = least_cut(axis, problem.unary, limits)
        kept = feasible(axis, rows)
        if kept is None:
            return Answer()
        told = {"largest_loss": float(problem.unary[kept].max())}
        if self.fill:
            if limits.report is not None:
                limits.report(kept - problem.indptr[:-1])
            kept = filled(axis, kept, limits)
        return closed(axis, kept, limits, polish=self.polish, statistics=told)


def filled(axis: Axis, rows: IntArray, limits: Limits) -> IntArray:
    """Group by group from the largest value down: the choice of least value that fits beside the others."""
    linear, indptr = axis.linear, axis.linear.problem.indptr
    room, rows = Room(linear, rows), rows.copy()
    value = linear.value
    able = np.flatnonzero(value[axis.best] < value[rows])
    for i, g in enumerate(able[np.argsort(-value[rows[able]], kind="stable")].tolist()):
        if i % POLL == 0 and limits.left <= 0:
            break
        old = int(rows[g])
        own = np.arange(indptr[g], indptr[g + 1])
        better = own[linear.free[own] & (value[own] < value[old])]
        for new in better[np.lexsort((axis.cost[better], value[better]))].tolist():
            if room.fits(old, new):
                room.take(old, new)
                rows[g] = new
                break
    return rows
