"""Min-sum elimination: the least Σ unary + Σ pairs over a graph of groups, exact, at a cost that its width decides."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from allocator.errors import UnsupportedError
from allocator.statement import BoolArray, FloatArray, IntArray

Table = FloatArray
Graph = dict[int, set[int]]


@dataclass(frozen=True, eq=False)
class _Step:
    """One group taken out. scope: the groups its table stands on, ascending; axis: its own place among them.

    base: Σ of its pairs [sizes of scope]. messages: earlier steps whose result stands on part of this scope, each
    with the shape that spreads it here.
    """

    group: int
    scope: tuple[int, ...]
    axis: int
    base: Table
    messages: tuple[tuple[int, tuple[int, ...]], ...]


class Elimination:
    """A graph of groups with a table of values for each two that are joined; minimised for any unaries.

    Groups are taken out in min-fill order (Rose 1972; Dechter 1999, "Bucket elimination"): the table of a group
    stands on itself and its neighbours that are left. width: the largest number of such neighbours. cells: of all
    tables together.
    """

    def __init__(
        self,
        rows: Mapping[int, IntArray],
        joined: Mapping[tuple[int, int], Table],
        width: int,
        cells: int,
    ) -> None:
        """Plan the elimination.

        Args:
            rows: group → the rows that it may take.
            joined: (g, h), g < h → values [size of g, size of h].
            width: neighbours at most.
            cells: of all tables at most.

        Raises:
            UnsupportedError: naming the width or the cells that the graph needs.
        """
        self.rows = rows
        order, scopes = _order({g: set() for g in rows}, joined)
        self.width = max((len(s) - 1 for s in scopes), default=0)
        self.cells = sum(math.prod(len(rows[g]) for g in scope) for scope in scopes)
        if self.width > width:
            raise UnsupportedError(
                f"the graph of interactions joins groups so densely that tables over {self.width + 1} groups at once "
                f"are needed, more than width={width} allows ({width + 1}); raise width, or use ortools_cpsat, "
                "cvxpy_qp or cvxpy_sdp"
            )
        if self.cells > cells:
            raise UnsupportedError(
                f"the graph of interactions needs tables of {self.cells:,} cells, more than cells={cells:,}; raise "
                "cells, forbid choices, or use ortools_cpsat or cvxpy_qp"
            )
        place = {g: i for i, g in enumerate(order)}
        incoming: dict[int, list[int]] = {g: [] for g in rows}
        rests = [tuple(h for h in scope if h != g) for g, scope in zip(order, scopes, strict=True)]
        for i, rest in enumerate(rests):
            if rest:
                incoming[min(rest, key=place.__getitem__)].append(i)
        self.steps: list[_Step] = []
        for g, scope, rest in zip(order, scopes, rests, strict=True):
            base = np.zeros([len(rows[h]) for h in scope])
            for h in rest:
                table = joined.get((min(g, h), max(g, h)))
                if table is not None:
                    base += table.reshape(self._shape((g, h), scope))
            messages = tuple((i, self._shape(rests[i], scope)) for i in incoming[g])
            self.steps.append(_Step(g, scope, scope.index(g), base, messages))

    def _shape(self, part: tuple[int, ...], scope: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(len(self.rows[h]) if h in part else 1 for h in scope)

    def minimise(self, unary: FloatArray) -> tuple[float, dict[int, int]]:
        """The least value for unaries [N], and the row taken in each group; the first among equals."""
        results: list[Table] = []
        taken: list[IntArray] = []
        constants = []
        for step in self.steps:
            table = step.base + unary[self.rows[step.group]].reshape(self._shape((step.group,), step.scope))
            for i, shape in step.messages:
                table += results[i].reshape(shape)
            taken.append(table.argmin(axis=step.axis))
            results.append(table.min(axis=step.axis))
            if len(step.scope) == 1:
                constants.append(float(results[-1]))
        place: dict[int, int] = {}
        for step, best in zip(reversed(self.steps), reversed(taken), strict=True):
            place[step.group] = int(best[tuple(place[h] for h in step.scope if h != step.group)])
        return math.fsum(constants), {g: int(self.rows[g][k]) for g, k in place.items()}


def tables(
    group_of: IntArray, free: BoolArray, indptr: IntArray, pair: IntArray, value: FloatArray
) -> tuple[dict[int, IntArray], dict[tuple[int, int], Table]]:
    """The rows of each group that has pairs, and a table for each two groups that are joined."""
    count = len(indptr) - 1
    key = group_of[pair[:, 0]] * count + group_of[pair[:, 1]]
    rows = {g: indptr[g] + np.flatnonzero(free[indptr[g] : indptr[g + 1]]) for g in np.unique(group_of[pair]).tolist()}
    place = np.zeros(len(group_of), np.int64)
    for mine in rows.values():
        place[mine] = np.arange(len(mine))
    joined: dict[tuple[int, int], Table] = {}
    order = np.argsort(key, kind="stable")
    ends = np.flatnonzero(np.diff(key[order], append=-1)) + 1
    begin = 0
    for end in ends.tolist():
        part = order[begin:end]
        g, h = divmod(int(key[part[0]]), count)
        table = np.zeros((len(rows[g]), len(rows[h])))
        np.add.at(table, (place[pair[part, 0]], place[pair[part, 1]]), value[part])
        joined[g, h] = table
        begin = end
    return rows, joined


def _order(graph: Graph, joined: Mapping[tuple[int, int], Table]) -> tuple[list[int], list[tuple[int, ...]]]:
    """Groups as they are taken out, by least fill, degree and number; and each one's scope, itself included.

    Scopes are in ascending order, so that tables and messages line up by plain reshaping.
    """
    for g, h in joined:
        graph[g].add(h)
        graph[h].add(g)
    heap = [(_fill(graph, g), len(graph[g]), g) for g in graph]
    heapq.heapify(heap)
    order: list[int] = []
    scopes: list[tuple[int, ...]] = []
    while heap:
        fill, degree, g = heapq.heappop(heap)
        if g not in graph:
            continue
        if (now := (_fill(graph, g), len(graph[g]))) != (fill, degree):
            heapq.heappush(heap, (*now, g))
            continue
        near = sorted(graph.pop(g))
        touched = set(near)
        for h in near:
            graph[h].discard(g)
            graph[h].update(k for k in near if k != h)
            touched |= graph[h]
        for h in touched:
            heapq.heappush(heap, (_fill(graph, h), len(graph[h]), h))
        order.append(g)
        scopes.append(tuple(sorted((*near, g))))
    return order, scopes


def _fill(graph: Graph, g: int) -> int:
    """Pairs of neighbours that are not joined yet."""
    near = graph[g]
    return sum(len(near) - 1 - len(near & graph[h]) for h in near) // 2
