"""The groups that the numpy engine works on, in tables of equal width."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from allocator.engine.knapsack import Knapsack
from allocator.statement import FloatArray, IntArray

BLOCK = 1 << 15  # groups whose prices fit the cache


@dataclass(frozen=True, eq=False)
class Table:
    """Groups [M] with K choices each: value and cost [M, K], first item [M]."""

    groups: IntArray
    first: IntArray
    value: NDArray[np.float64]
    cost: NDArray[np.int64]

    def part(self, kept: NDArray[np.bool_]) -> Table:
        """Some of the groups."""
        return Table(self.groups[kept], self.first[kept], self.value[kept], self.cost[kept])

    def blocks(self) -> Iterator[Table]:
        """The same in portions; the columns are shared."""
        for at in range(0, len(self.groups), BLOCK):
            part = slice(at, at + BLOCK)
            yield Table(self.groups[part], self.first[part], self.value[part], self.cost[part])


@dataclass(frozen=True, eq=False)
class Core:
    """Groups with their free choices ("items"), side by side: start [G+1], value and cost [items].

    rows: the stated row of each item; None where items are the stated rows.
    """

    start: IntArray
    value: FloatArray
    cost: IntArray
    rows: IntArray | None = None

    @staticmethod
    def of(knapsack: Knapsack) -> Core:
        """All groups, without the choices that are not free."""
        core = Core(knapsack.indptr, knapsack.value, knapsack.cost)
        if knapsack.free is None:
            return core
        rows = np.flatnonzero(knapsack.free)
        start = np.searchsorted(rows, knapsack.indptr)
        return Core(start, knapsack.value[rows], knapsack.cost[rows], rows)

    @property
    def group_count(self) -> int:
        """G."""
        return len(self.start) - 1

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """The groups by their number of choices; where all have the same, the columns are shared."""
        sizes = np.diff(self.start)
        found = []
        for width in np.unique(sizes).tolist():
            groups = np.flatnonzero(sizes == width)
            first = self.start[:-1][groups]
            if len(groups) == self.group_count:
                value, cost = self.value.reshape(-1, width), self.cost.reshape(-1, width)
            else:
                items = first[:, None] + np.arange(width)
                value, cost = self.value[items], self.cost[items]
            found.append(Table(groups, first, value, cost))
        return tuple(found)

    def of_groups(self, groups: IntArray) -> Core:
        """Some of the groups; rows lead back to this core's items (or to what its own rows name)."""
        sizes = np.diff(self.start)[groups]
        start = np.concatenate([[0], np.cumsum(sizes)])
        items = np.arange(start[-1]) + np.repeat(self.start[:-1][groups] - start[:-1], sizes)
        rows = items if self.rows is None else self.rows[items]
        return Core(start, self.value[items], self.cost[items], rows)

    @cached_property
    def scale(self) -> float:
        """Σ over the groups of the largest |value|."""
        return math.fsum(float(np.abs(b.value).max(axis=1).sum()) for t in self.tables for b in t.blocks())

    @cached_property
    def divisor(self) -> int:
        """gcd of the cost differences within the groups; 0 where there are none."""
        found = 0
        for table in self.tables:
            for block in table.blocks():
                if found != 1:
                    found = math.gcd(found, common_divisor(block.cost - block.cost[:, :1], found))
        return found


def common_divisor(differences: IntArray, known: int = 0) -> int:
    """gcd of some integers (0 where all are 0); known: a number it is sought together with."""
    if known == 1:
        return 1
    if known and not (differences & (known - 1) if known & (known - 1) == 0 else differences % known).any():
        return known
    return int(np.gcd.reduce(np.abs(differences), axis=None, initial=0))
