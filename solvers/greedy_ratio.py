"""Upgrades by the best loss saved per cost among all choices that still fit, until none does."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.features import LINEAR
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import IntArray
from solvers._axis import Axis
from solvers._closing import closed, feasible
from solvers._room import Room

POLL = 1024
Move = tuple[float, int, int]  # − ratio, group, row to go to


@dataclass(frozen=True, kw_only=True)
class GreedyRatio:
    """Starts from the cheapest choices and repeatedly takes the one upgrade of most loss saved per cost that fits.

    The search of exllamav3's `optimize_model.py`: from where a group stands every better choice is a candidate, so that
    a group may be upgraded again and again, and choices inside the convex hull count. `greedy` differs: it walks
    the hulls only, along one order fixed beforehand, and a group whose next hull step does not fit stands still;
    here it may take a smaller step. Repaired first where the cheapest choices do not keep several rows.

    damping: saved losses count as their power of this; exllamav3 has 0.69, which favours small upgrades.
    polish: go on by local search from there; what comes out is then the work of the search.
    """

    damping: float = 1.0
    polish: bool = False

    name: ClassVar[str] = "greedy_ratio"
    features: ClassVar[frozenset[str]] = LINEAR | {"loss_budgets", "pnorm_loss"}
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping={self.damping}: give a power above 0 and at most 1")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Cheapest first, then one upgrade at a time."""
        axis = Axis.of(linearise(problem))
        rows = None if axis is None else feasible(axis)
        if axis is None or rows is None:
            return Answer()
        if limits.report is not None:
            limits.report(rows - problem.indptr[:-1])
        search = _Upgrades(axis, rows.copy(), self.damping)
        done = search.run(limits)
        answer = closed(axis, search.rows, limits, polish=self.polish, statistics={"upgrades": search.taken})
        return answer if done else Answer(choice=answer.choice, limit="time", statistics=answer.statistics)


class _Upgrades:
    """The best upgrade of each group in a heap; one that no longer fits is looked up again when its turn comes.

    Room only shrinks, so that what stands in the heap is never worse than what a group could still do. Where room
    grows (an upgrade that costs less of some row), groups that had nothing left are not asked again.
    """

    def __init__(self, axis: Axis, rows: IntArray, damping: float) -> None:
        self.axis = axis
        self.rows = rows
        self.damping = damping
        self.room = Room(axis.linear, rows)
        self.indptr = axis.linear.problem.indptr
        self.taken = 0

    def run(self, limits: Limits) -> bool:
        """Upgrade until nothing fits; False when time ran out first."""
        heap: list[Move] = []
        for g in range(len(self.rows)):
            if g % POLL == 0 and limits.left <= 0:
                return False
            heap += self.best(g)
        heapq.heapify(heap)
        looked = 0
        while heap:
            looked += 1
            if looked % POLL == 0 and limits.left <= 0:
                return False
            _, g, row = heap[0]
            if self.room.fits(int(self.rows[g]), row):
                self.room.take(int(self.rows[g]), row)
                self.rows[g] = row
                self.taken += 1
            found = next(self.best(g), None)
            if found is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, found)
        return True

    def best(self, g: int) -> Iterator[Move]:
        """The upgrade of best ratio that fits, if there is one."""
        here, linear = int(self.rows[g]), self.axis.linear
        best: Move | None = None
        for row in range(self.indptr.item(g), self.indptr.item(g + 1)):
            saved = linear.value.item(here) - linear.value.item(row)
            if saved <= 0 or not linear.free.item(row):
                continue
            more = self.axis.cost.item(row) - self.axis.cost.item(here)
            move = (-(saved**self.damping / more) if more > 0 else -math.inf, g, row)
            if (best is None or move < best) and self.room.fits(here, row):
                best = move
        if best is not None:
            yield best
