"""The search of a core in numpy: blocks of nodes, depth first by blocks; what C does node by node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from allocator.engine.several_search import DONE, FOUND, OUT_OF_TIME, PAUSED
from allocator.engine.several_stairs import Stair
from allocator.engine.several_vectors import Bounded
from allocator.statement import FloatArray, IntArray

BLOCK = 1 << 12  # nodes that are widened together


@dataclass(frozen=True, eq=False)
class _Block:
    """Nodes at one depth: bounds [B, K], paid per stair [B, S], uses [B, R], Σ value [B], choices [B, depth]."""

    bounds: FloatArray
    stairs: FloatArray
    used: IntArray
    total: FloatArray
    path: NDArray[np.int64]


@dataclass
class BlockSearch:
    """As `several_search.Search`: resumable, below a target; `taken` is the candidate after FOUND."""

    state: Bounded
    target: float
    stairs: Sequence[Stair] = ()
    nodes: int = 0
    stack: list[_Block] = field(default_factory=list)
    leaves: list[tuple[float, IntArray]] = field(default_factory=list)
    candidate: IntArray | None = None

    def __post_init__(self) -> None:
        core = self.state.core
        at = core.indptr[:-1]
        none = np.zeros((1, len(core.hi)), np.int64)
        self.least = np.concatenate([np.cumsum(np.minimum.reduceat(core.use, at)[::-1], axis=0)[::-1], none])
        self.most = np.concatenate([np.cumsum(np.maximum.reduceat(core.use, at)[::-1], axis=0)[::-1], none])
        stairs = np.array([[s.base for s in self.stairs]])
        root = _Block(self.state.bounds[None], stairs, none, np.array([core.start]), np.zeros((1, 0), np.int64))
        self.stack.append(root)

    def run(self, most_nodes: int, deadline: float) -> int:
        """Go on until a candidate below the target, the end, or a limit."""
        while True:
            while self.leaves:
                total, path = self.leaves.pop()
                if total < self.target:
                    self.candidate = path
                    return FOUND
            if not self.stack:
                return DONE
            if self.nodes >= most_nodes:
                return PAUSED
            if monotonic() >= deadline:
                return OUT_OF_TIME
            self._widen(self.stack.pop())

    def taken(self) -> IntArray:
        """The candidate: index of a choice per open group [D]."""
        assert self.candidate is not None
        return self.candidate

    def _widen(self, block: _Block) -> None:
        core = self.state.core
        depth = block.path.shape[1]
        if depth == core.depth:
            order = np.argsort(-block.total, kind="stable")  # the best is popped first
            self.leaves = [(float(block.total[i]), block.path[i]) for i in order]
            return
        span = slice(int(core.indptr[depth]), int(core.indptr[depth + 1]))
        width = span.stop - span.start
        self.nodes += len(block.total) * width
        used = block.used[:, None] + core.use[span]
        keep = ((used + self.least[depth + 1] <= core.hi) & (used + self.most[depth + 1] >= core.lo)).all(axis=2)
        keep &= block.bounds[:, :1] + self.state.reduced[0, span] < self.target
        node, choice = np.nonzero(keep)
        bounds = block.bounds[node] + self.state.reduced[:, span].T[choice]
        below = bounds.max(axis=1) < self.target
        node, choice, bounds = node[below], choice[below], bounds[below]
        total = block.total[node] + core.value[span][choice]
        path = np.concatenate([block.path[node], (choice + span.start)[:, None]], axis=1)
        used, stairs = used[node, choice], block.stairs[node]
        if self.stairs:
            stairs = stairs + np.stack([s.column[span] for s in self.stairs], axis=1)[choice]
            bounds = np.concatenate([bounds, self._stepped(depth + 1, stairs, used)], axis=1)
        order = np.argsort(-bounds[:, 0], kind="stable")
        order = order[bounds[order].max(axis=1) < self.target]
        for part in _parts(order):
            kept = bounds[part, : block.bounds.shape[1]]
            self.stack.append(_Block(kept, stairs[part], used[part], total[part], path[part]))

    def _stepped(self, depth: int, paid: FloatArray, used: IntArray) -> FloatArray:
        """Bounds [B, S] with a row in integers, of nodes at a depth."""
        found = []
        for i, s in enumerate(self.stairs):
            rest = self.least[depth, s.row] if s.sign > 0 else self.most[depth, s.row]
            left = s.sign * (s.limit - used[:, s.row] - rest) // s.divisor
            found.append(paid[:, i] + s.table[depth, np.minimum(left, s.table.shape[1] - 1)])
        return np.stack(found, axis=1)


def _parts(order: IntArray) -> Iterator[IntArray]:
    for start in range(0, len(order), BLOCK):
        yield order[start : start + BLOCK]
