"""Exact search under several budgets: price vectors, fixing by all of them, and a search of what is left.

The gap is guessed: only allocations below bound + gap are looked for, with what that rules out ruled out. Where
there are none the bound has risen to there, and the guess grows; where there is one the search goes on below it,
and its end proves it the best. A small gap leaves little to search, so guesses that fail cost next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np

from allocator.certificate_tree import Tree
from allocator.engine import native
from allocator.engine.several_blocks import BlockSearch
from allocator.engine.several_core import EPSILON, Core, Scales, core_of
from allocator.engine.several_prices import Top, top_prices
from allocator.engine.several_search import DONE, FOUND, OUT_OF_TIME, PAUSED, Search, arranged
from allocator.engine.several_stairs import Stair, best_row, stairs_of, through
from allocator.engine.several_vectors import Bounded, around, bounded, fixed, slip
from allocator.errors import UnsupportedError
from allocator.linear import SMALL, Linear
from allocator.local_search import improved, repaired
from allocator.statement import FloatArray, IntArray

MOST_ROWS = 4
MOST_NODES = 30_000_000
MOST_TREE_NODES = 5_000_000  # a checker in numpy goes through some ten million a second
PLAIN = 300_000  # nodes, after which a row is kept in integers
NARROWINGS = 4
FEW = 100_000  # with so many allocations no guess is needed
FIRST = 40  # the first gap: the reduced value of so many choices is below it
GROWTH = (
    (1_000, 4.0),
    (30_000, 2.0),
    (300_000, 1.4),
    (math.inf, 1.2),
)  # after so many nodes the next gap is so much larger
SMALLEST = 1e-300  # above 0, where all values are 0
REJECTED = 2_000  # nodes that a candidate counts which exact arithmetic refuses
LOOKS = 6  # allocations near the best prices that are repaired


@dataclass(frozen=True, eq=False)
class Several:
    """rows: row of each taken choice [G], or None. bound: no feasible Σ value is below it. prices: as certificates.

    proved: nothing is better than `total` by more than the tolerance. infeasible: proved, too. tree: the proof
    in a form that can be checked, where it is short enough. limit: "time" or "nodes" where one of them ended it.
    """

    rows: IntArray | None
    total: float
    bound: float
    prices: tuple[float, ...]
    proved: bool = False
    infeasible: bool = False
    tree: Tree | None = None
    nodes: int = 0
    limit: str | None = None


def solve_several(
    linear: Linear,
    *,
    tolerance: float,
    seconds: float = math.inf,
    start: IntArray | None = None,
    most_nodes: int = MOST_NODES,
    report: Callable[[IntArray], None] | None = None,
) -> Several:
    """The best allocation under at most four rows of any kind, with its bound.

    Args:
        linear: separable view; rows exact or float, max, min or both.
        tolerance: absolute, on Σ value; what is not better by a quarter of it counts as equal.
        seconds: on the clock; the best allocation and bound so far are returned when they are over.
        start: choice per group [G] to begin with, if it is feasible.
        most_nodes: of the search in all; reached, the answer says limit "nodes".
        report: called with each better allocation (choice per group [G]).

    Raises:
        UnsupportedError: more than four rows.
    """
    sides = [r for r in linear.rows if r.hi is not None or r.lo is not None]
    if len(sides) > MOST_ROWS:
        raise UnsupportedError(f"{len(sides)} budget rows; the search takes at most {MOST_ROWS}: use a MIP backend")
    return _Run(linear, tolerance, monotonic() + seconds, most_nodes, report).run(start)


@dataclass
class _Proof:
    """What a pass used: all its vectors, those under which a row was kept in integers, and the order."""

    vectors: FloatArray
    order: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    row: int | None = None
    stairs: list[FloatArray] = field(default_factory=list)
    nodes: int = 0

    def steps(self, row: int, stairs: list[FloatArray]) -> None:
        """Keep these; those of another row are forgotten."""
        self.stairs = [*(self.stairs if row == self.row else []), *stairs]
        self.row = row


@dataclass
class _Run:
    linear: Linear
    tolerance: float
    deadline: float
    most_nodes: int
    report: Callable[[IntArray], None] | None
    best: IntArray | None = None
    total: float = math.inf
    bound: float = -math.inf
    nodes: int = 0
    limit: str | None = None
    tree: Tree | None = None
    prices: tuple[float, ...] = field(default=())
    tried: bool = False

    def run(self, start: IntArray | None) -> Several:
        if start is not None:
            self._offer(self.linear.problem.indptr[:-1] + np.asarray(start, np.int64))
        core, scales = core_of(self.linear)
        self.prices = (0.0,) * len(self.linear.problem.budgets)
        self.tree = Tree((self.prices,), ())
        if core is None:
            return self._answer(infeasible=True)
        top = top_prices(core)
        self.prices = scales.stated(top.prices, len(self.prices))
        first = bounded(core, top.prices[None], 0.0)
        self.bound = first.bound
        ceiling = _above_all(core) + self.tolerance
        gap = math.inf if _count(core) <= FEW else self._first_gap(first)
        while True:
            before = self.nodes
            target = min(ceiling, first.bound + gap, self._below())
            done = self._pass(core, scales, top, target)
            if not done:
                self._heuristics(core, top)
                return self._answer()
            self.bound = max(self.bound, min(target, self._below()))
            if self.bound >= self._below():
                return self._answer(proved=True)
            if target >= ceiling:
                return self._answer(infeasible=True)
            self._heuristics(core, top)
            gap *= next(growth for nodes, growth in GROWTH if self.nodes - before <= nodes)

    # -- one guess ------------------------------------------------------------------------------------------------

    def _pass(self, core: Core, scales: Scales, top: Top, target: float) -> bool:
        """Look at everything below the target; False where a limit fires before."""
        allowance = self.tolerance / 2
        state = fixed(core, top.prices[None], target, allowance)
        vectors = [top.prices[None]]
        for _ in range(2):
            if state is None or not state.core.depth:
                break
            again = top_prices(state.core, state.prices[0])
            vectors.append(around(state.core, again.prices, target))
            state = fixed(state.core, vectors[-1], target, allowance)
            if monotonic() >= self.deadline:
                self.limit = "time"
                return False
        proof = _Proof(np.concatenate(vectors))
        if state is not None and not state.core.depth:
            self._offer(state.core.settled)
        elif state is not None and not self._search(state, target, proof):
            return False
        self._keep_tree(scales, proof)
        return True

    def _search(self, state: Bounded, target: float, proof: _Proof) -> bool:
        """Depth first; what is not done after a while is narrowed by keeping a row in integers, and begun again."""
        status = self._explore(arranged(state), target, (), proof, min(self.most_nodes - self.nodes, PLAIN))
        if status == PAUSED and self.nodes < self.most_nodes:
            target = min(target, self._below())
            again, row = self._narrowed(state, target, proof)
            if again is None:
                return True
            if not again.core.depth:
                self._offer(again.core.settled)
                return True
            again = arranged(again)
            stairs = [] if row is None else stairs_of(again, row, self.tolerance / 2)
            if row is not None:
                proof.steps(row, [s.prices for s in stairs])
            status = self._explore(again, target, stairs, proof, self.most_nodes - self.nodes)
        if status != DONE:
            self.limit = "time" if status == OUT_OF_TIME else "nodes"
        return status == DONE

    def _narrowed(self, state: Bounded, target: float, proof: _Proof) -> tuple[Bounded | None, int | None]:
        """Fixed by the best row in integers under every vector, as often as it helps."""
        allowance, row = self.tolerance / 2, None
        for _ in range(NARROWINGS):
            row = best_row(state, target, allowance)
            if row is None or monotonic() >= self.deadline:
                break
            stairs = stairs_of(state, row, allowance)
            alive = np.ones(len(state.core.value), bool)
            for stair in stairs:
                alive &= through(state.core, stair) < target
            proof.steps(row, [s.prices for s in stairs])
            if alive.all():
                break
            kept = state.core.kept(alive)
            kept = None if kept is None else kept.tightened()
            if kept is None:
                return None, row
            vectors = around(kept, top_prices(kept, state.prices[0]).prices, target)
            proof.vectors = np.concatenate([proof.vectors, vectors])
            again = fixed(kept, vectors, target, allowance)
            if again is None or not again.core.depth:
                return again, row
            state = again
        return state, row

    def _explore(self, state: Bounded, target: float, stairs: Sequence[Stair], proof: _Proof, most: int) -> int:
        compiled = native()
        proof.order = self.linear.problem.group_of[state.core.rows[state.core.indptr[:-1]]]
        search = BlockSearch(state, target, stairs) if compiled is None else Search(state, target, stairs)
        before = self.nodes
        while True:
            if isinstance(search, Search):
                status = search.run(compiled, most, self.deadline)
            else:
                status = search.run(most, self.deadline)
            self.nodes = before + search.nodes
            if status != FOUND:
                break
            rows = np.concatenate([state.core.settled, state.core.rows[search.taken()]])
            if self._offer(rows):
                search.target = min(search.target, self._below())
            else:
                most -= REJECTED
        proof.nodes = search.nodes
        return status

    def _keep_tree(self, scales: Scales, proof: _Proof) -> None:
        if proof.nodes > MOST_TREE_NODES:
            self.tree = None
            return
        count = len(self.prices)
        vectors = dict.fromkeys(scales.stated(v, count) for v in proof.vectors)
        stairs = dict.fromkeys(scales.stated(v, count) for v in proof.stairs)
        whole = None if proof.row is None else scales.sides[proof.row].budget
        self.tree = Tree(tuple(vectors), tuple(proof.order.tolist()), whole, tuple(stairs))

    # -- allocations ----------------------------------------------------------------------------------------------

    def _below(self) -> float:
        return self.total - self.tolerance / 4

    def _offer(self, rows: IntArray) -> bool:
        """Take an allocation if it is better and, in exact terms, feasible; whether it was."""
        problem = self.linear.problem
        rows = np.sort(rows)
        total = math.fsum(self.linear.value[rows].tolist())
        if total >= self.total or not problem.evaluate(rows - problem.indptr[:-1]).feasible:
            return False
        self.best, self.total = rows, total
        if self.report is not None:
            self.report(rows - problem.indptr[:-1])
        return True

    def _heuristics(self, core: Core, top: Top) -> None:
        """Repair what the best prices asked for last, once; the search itself finds better ones when it can."""
        if self.tried:
            return
        self.tried = True
        for taken in top.seen[: -LOOKS - 1 : -1]:
            rows = np.sort(np.concatenate([core.settled, core.rows[taken]]))
            found = repaired(self.linear, rows)
            if found is not None:
                self._offer(improved(self.linear, found))

    def _first_gap(self, state: Bounded) -> float:
        """Small enough that few choices cost less: the rest is fixed at once."""
        costs = np.sort(state.reduced[0][state.reduced[0] > 0])
        gap = float(costs[min(FIRST, len(costs) - 1)]) if len(costs) else 0.0
        return max(gap, 8 * self.tolerance, 8 * float(slip(state.core, state.prices)[0]), 1e-300)

    def _answer(self, *, proved: bool = False, infeasible: bool = False) -> Several:
        if infeasible and self.best is not None:  # `start` or a candidate is feasible: the bound's rounding was wrong
            infeasible = False
        if self.linear.power != 1 and self.total < SMALL:  # powers that vanish tell nothing apart
            proved = False
        bound = math.inf if infeasible else min(self.bound - self.tolerance / 2, self.total)  # what slips through
        if proved:
            bound = self.total - self.tolerance
        tree = self.tree if proved or infeasible else None
        return Several(self.best, self.total, bound, self.prices, proved, infeasible, tree, self.nodes, self.limit)


def _count(core: Core) -> float:
    """Allocations of the open groups."""
    return math.exp(min(float(np.log(np.diff(core.indptr)).sum()), 700.0))


def _above_all(core: Core) -> float:
    """A number above the Σ value of every allocation."""
    most = np.maximum.reduceat(core.value, core.indptr[:-1]).tolist() if core.depth else []
    return math.fsum([core.start, *most]) + 8 * EPSILON * core.size + SMALLEST
