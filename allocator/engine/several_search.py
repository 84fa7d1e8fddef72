"""The search of a core: depth first in C, in blocks of nodes in numpy; both look at the same tree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.engine.several_core import Core
from allocator.engine.several_stairs import Stair
from allocator.engine.several_vectors import Bounded
from allocator.statement import FloatArray, IntArray

FOUND, DONE, PAUSED, OUT_OF_TIME = 1, 2, 3, 4
LEAF = 8  # points in a bucket of the table
TABLES = ((150_000, 1 << 12), (1_000_000, 1 << 15), (8_000_000, 1 << 18))  # after so many nodes, so many points
A_POINT = 8e-8  # seconds that a point of a table takes under each vector, at most
WIDTH = 4  # vectors come in fours, as wide registers take them


def arranged(state: Bounded) -> Bounded:
    """Groups first whose second best choice costs most, on average over the vectors; choices by ascending cost.

    Under the first vector alone a group may seem undecided whose choices differ by much of a budget: the other
    vectors see that, and with such groups first they cut early (measured: 30 to 1000 times fewer nodes).
    """
    core = state.core
    second = [np.partition(state.reduced[:, s:e], 1, axis=1)[:, 1].mean() for s, e in _spans(core)]
    order = np.argsort(-np.array(second), kind="stable")
    place = np.empty(core.depth, np.int64)
    place[order] = np.arange(core.depth)
    take = np.lexsort((state.reduced[0], place[core.group_of]))
    return Bounded(core.ordered(order, take), state.prices, state.bounds, state.reduced[:, take])


def _spans(core: Core) -> Iterator[tuple[int, int]]:
    return zip(core.indptr[:-1].tolist(), core.indptr[1:].tolist(), strict=True)


@dataclass
class Search:
    """A resumable search below a target; `choices` [D] is the candidate after FOUND."""

    state: Bounded
    target: float
    stairs: Sequence[Stair] = ()
    nodes: int = 0
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        core, count = self.state.core, len(self.state.bounds)
        depth, rows = core.depth, len(core.hi)
        padded = -(-count // WIDTH) * WIDTH
        reduced = np.zeros((len(core.value), padded))
        reduced[:, :count] = self.state.reduced.T
        bound = np.full((depth + 1, padded), -math.inf)
        bound[0, :count] = self.state.bounds
        least = np.zeros((depth + 1, rows), np.int64)
        most = np.zeros((depth + 1, rows), np.int64)
        at = core.indptr[:-1]
        least[:-1] = np.cumsum(np.minimum.reduceat(core.use, at)[::-1], axis=0)[::-1]
        most[:-1] = np.cumsum(np.maximum.reduceat(core.use, at)[::-1], axis=0)[::-1]
        total = np.zeros(depth + 1)
        total[0] = core.start
        self.arrays = {
            "indptr": np.ascontiguousarray(core.indptr, np.int64),
            "reduced": reduced,
            "value": np.ascontiguousarray(core.value),
            "use": np.ascontiguousarray(core.use),
            "least": least,
            "most": most,
            "hi": core.hi,
            "lo": core.lo,
            "position": np.concatenate([core.indptr[:-1], [0]]).astype(np.int64),
            "bound": bound,
            "total": total,
            "used": np.zeros((depth + 1, rows), np.int64),
            "state": np.zeros(4, np.int64),
            "real": np.array([self.target, math.inf]),
            "point_paid": np.zeros(0),
            "point_use": np.zeros((0, rows), np.int64),
            "box_paid": np.zeros(0),
            "box_least": np.zeros((0, rows), np.int64),
            "box_most": np.zeros((0, rows), np.int64),
            "price": np.ascontiguousarray(self.state.prices[0]),
        }
        self._add_stairs(depth)
        self.sizes = [depth, padded, rows, 0, 0, LEAF]
        self.tables = list(TABLES)

    def _add_stairs(self, depth: int) -> None:
        """Numbers and addresses of each stair, in the order of stair_t."""
        self.tables_of_stairs = [(np.ascontiguousarray(s.column), np.ascontiguousarray(s.table)) for s in self.stairs]
        numbers = [
            [s.row, s.sign, s.divisor, s.limit, table.shape[1] - 1, column.ctypes.data, table.ctypes.data]
            for s, (column, table) in zip(self.stairs, self.tables_of_stairs, strict=True)
        ]
        bound = np.zeros((depth + 1, len(numbers)))
        bound[0] = [s.base for s in self.stairs]
        self.arrays["stairs"] = np.array(numbers, np.int64).reshape(-1)
        self.arrays["stair_bound"] = bound

    def run(self, native: Any, most_nodes: int, deadline: float) -> int:
        """Go on until a candidate below the target, the end, or a limit."""
        self.arrays["real"][:] = self.target, deadline
        state = self.arrays["state"]
        while True:
            state[2] = min(most_nodes, self.tables[0][0] if self.tables else most_nodes)
            frame = self._frame()
            status = int(native.several_search(frame.ctypes.data))
            self.nodes = int(state[1])
            if status != PAUSED or self.nodes >= most_nodes:
                return status
            points = self.tables.pop(0)[1]
            if deadline - monotonic() > A_POINT * points * self.sizes[1]:  # else the time is better spent on nodes
                self._hang_table(native, points)

    def taken(self) -> IntArray:
        """The candidate: index of a choice per open group [D]."""
        return np.append(self.arrays["position"][: self.state.core.depth - 1] - 1, self.arrays["state"][3])

    def _frame(self) -> NDArray[np.int64]:
        addresses = [a.ctypes.data for a in self.arrays.values()]
        return np.array([*self.sizes, *addresses[:-2], len(self.stairs), *addresses[-2:]], np.int64)

    def _hang_table(self, native: Any, points: int) -> None:
        depth, paid, use = completions(self.state, self.target, points)
        count = len(paid)
        boxes = 2 ** (max(math.ceil(math.log2(max(count / LEAF, 1))), 0) + 2)
        rows = use.shape[1]
        self.arrays["point_paid"], self.arrays["point_use"] = paid, use
        self.arrays["box_paid"] = np.zeros(boxes)
        self.arrays["box_least"] = np.zeros((boxes, rows), np.int64)
        self.arrays["box_most"] = np.zeros((boxes, rows), np.int64)
        self.sizes[3:5] = [count, depth]
        native.several_table(self._frame().ctypes.data)


def completions(state: Bounded, target: float, most: int) -> tuple[int, FloatArray, IntArray]:
    """Every choice of the last groups that the bounds let through: first depth, paid [T], uses [T, R]."""
    core = state.core
    paid = np.zeros((1, len(state.bounds)))
    use = np.zeros((1, len(core.hi)), np.int64)
    depth = core.depth
    while depth > 1:
        s, e = core.indptr[depth - 1], core.indptr[depth]
        if len(paid) * (e - s) > 8 * most:
            break
        wider = (paid[:, None] + state.reduced[:, s:e].T).reshape(-1, paid.shape[1])
        keep = (wider + state.bounds).max(axis=1) < target
        if int(keep.sum()) > most:
            break
        paid = wider[keep]
        use = (use[:, None] + core.use[s:e]).reshape(len(keep), len(core.hi))[keep]
        depth -= 1
    return depth, np.ascontiguousarray(paid[:, 0]), np.ascontiguousarray(use)
