"""One axis for methods that share out a single amount: what each choice uses of the budgets, and how much there is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.linear import Linear, Row
from allocator.statement import BoolArray, FloatArray, IntArray, Number

GIVE = 1e-13  # of a float limit: running sums of floats round, those of the core do not
TIGHT = 1e-9  # of a row's size: less room than that counts as none when rows are weighed against each other


@dataclass(frozen=True, eq=False)
class Axis:
    """Use of the budget by each choice `cost` [N], and what all groups may use together, `room`.

    One max row gives its own column and limit, in integers where they are exact. Several are added up, each in
    units of the room that it leaves above the least use of its groups: what fits is then not sure to keep each of
    them, and is repaired. Rows with a min alone are left to the repair too. Without a max row nothing costs
    anything.

    order [M]: the free choices by group, then cost, then value. starts [G]: first place of each group in it.
    """

    linear: Linear
    cost: NDArray[Any]
    room: Number
    order: IntArray
    starts: IntArray

    @staticmethod
    def of(linear: Linear) -> Axis | None:
        """The axis of a problem; None where some group has no choice within the largest cost allowed."""
        problem = linear.problem
        if not np.logical_or.reduceat(linear.free, problem.indptr[:-1]).all():
            return None
        cost, room = _added([row for row in linear.rows if row.hi is not None], linear)
        order = np.lexsort((linear.value, cost, problem.group_of))
        order = order[linear.free[order]]
        owner = problem.group_of[order]
        starts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
        return Axis(linear, cost, room, order, starts)

    @cached_property
    def front(self) -> IntArray:
        """Choices that no other of their group beats in both cost and value, by group, costs rising."""
        value = self.linear.value[self.order]
        ends = np.append(self.starts[1:], len(self.order))
        kept = np.zeros(len(self.order), bool)
        least = np.full(len(self.starts), np.inf)
        groups = np.arange(len(self.starts))
        for k in range(int((ends - self.starts).max())):
            groups = groups[self.starts[groups] + k < ends[groups]]
            at = self.starts[groups] + k
            kept[at] = value[at] < least[groups]
            least[groups] = np.minimum(least[groups], value[at])
        return np.asarray(self.order[kept])

    @cached_property
    def front_starts(self) -> IntArray:
        """First place of each group in the front [G]."""
        owner = self.linear.problem.group_of[self.front]
        return np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))

    @property
    def cheapest(self) -> IntArray:
        """The rows [G] of least cost, of those the one of least value."""
        return np.asarray(self.order[self.starts])

    @property
    def best(self) -> IntArray:
        """The rows [G] of least value, of those the cheapest one."""
        return np.asarray(self.front[np.append(self.front_starts[1:], len(self.front)) - 1])

    @cached_property
    def lo(self) -> FloatArray:
        """Least cost of each group [G]."""
        return self.cost[self.cheapest].astype(np.float64)

    @cached_property
    def hi(self) -> FloatArray:
        """Cost of each group's best choice [G]: what is dearer is no better."""
        return self.cost[self.best].astype(np.float64)

    def cheapest_of(self, usable: BoolArray) -> IntArray:
        """The cheapest usable row of each group [G]; `usable` [M] along `order`, some of each group."""
        hits = np.flatnonzero(usable)
        return np.asarray(self.order[hits[np.searchsorted(hits, self.starts)]])

    def nearest(self, target: FloatArray) -> IntArray:
        """The rows [G] of the front whose costs come nearest to the target costs [G]; of two the cheaper."""
        groups = self.linear.problem.group_of[self.front]
        distance = np.abs(self.cost[self.front] - target[groups])
        least = np.minimum.reduceat(distance, self.front_starts)
        hits = np.flatnonzero(distance == least[groups])
        return np.asarray(self.front[hits[np.searchsorted(hits, self.front_starts)]])

    def fits(self, rows: IntArray) -> bool:
        """Whether an allocation (rows [G]) stays within the room."""
        return bool(self.cost[rows].sum().item() <= self.room)


def _added(rows: list[Row], linear: Linear) -> tuple[NDArray[Any], Number]:
    if not rows:
        return np.zeros(linear.problem.choice_count, np.int64), 0
    if len(rows) == 1:
        (row,) = rows
        assert row.hi is not None
        return row.column, row.hi if row.exact else row.hi - GIVE * abs(row.hi)
    total = np.zeros(linear.problem.choice_count)
    for row in rows:
        assert row.hi is not None
        column = row.column.astype(np.float64)
        least = np.minimum.reduceat(np.where(linear.free, column, np.inf), linear.problem.indptr[:-1])
        room = float(row.hi) - float(least.sum())
        total += (column - least[linear.problem.group_of]) / max(room, TIGHT * (float(np.abs(column).sum()) or 1.0))
    return total, float(len(rows))
