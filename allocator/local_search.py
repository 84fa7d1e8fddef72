"""Makes an allocation feasible and then better, one choice of a group at a time; deterministic, numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from allocator.linear import Linear
from allocator.statement import BoolArray, FloatArray, IntArray

PASSES = 300
TINY = 1e-12


def cheapest(linear: Linear) -> IntArray | None:
    """The rows [G] of least value; None where some group has no free choice."""
    start = linear.problem.indptr[:-1]
    value = np.where(linear.free, linear.value, np.inf)
    least = np.minimum.reduceat(value, start)
    return _first(linear, value == least[linear.problem.group_of]) if np.isfinite(least).all() else None


def repaired(linear: Linear, taken: IntArray) -> IntArray | None:
    """An allocation (rows [G]) that keeps all rows, from one that need not; None where the search ends before.

    Each pass takes, group by group in the order of excess removed per value lost, the best change of each
    group, as many as the excess asks for; fewer where together they overshoot.
    """
    state = _State.of(linear)
    taken = taken.copy()
    for _ in range(PASSES):
        use = state.use(taken)
        excess = float(state.excess(use[:, None])[0])
        if excess == 0.0:
            return taken
        change = state.columns - state.columns[:, taken][:, linear.problem.group_of]
        removed = excess - state.excess(use[:, None] + change)
        lost = np.maximum(linear.value - linear.value[taken][linear.problem.group_of], 0.0)
        best, score = state.best_per_group(removed / (lost + state.unit), linear.free & (removed > TINY * excess))
        best = best[np.argsort(-score, kind="stable")]
        count = int(np.searchsorted(np.cumsum(removed[best]), excess)) + 1
        while count:
            moved = _moved(linear, taken, best[:count])
            if len(best) and float(state.excess(state.use(moved)[:, None])[0]) < excess:
                taken = moved
                break
            count //= 2
        else:
            return None
    return None


def improved(linear: Linear, taken: IntArray) -> IntArray:
    """A feasible allocation from which no change of a single group is both feasible and better."""
    state = _State.of(linear)
    taken = taken.copy()
    for _ in range(PASSES):
        use = state.use(taken)
        change = state.columns - state.columns[:, taken][:, linear.problem.group_of]
        gain = linear.value[taken][linear.problem.group_of] - linear.value
        better = linear.free & (gain > TINY * state.unit) & (state.excess(use[:, None] + change) == 0)
        room = np.where(np.isfinite(state.hi), state.hi - use, np.inf) + TINY * state.size
        price = TINY + (np.maximum(change, 0.0) / room[:, None]).sum(axis=0)
        best, score = state.best_per_group(gain / price, better)
        if not len(best):
            break
        best = best[np.argsort(-score, kind="stable")]
        uses = use[:, None] + np.cumsum(change[:, best], axis=1)
        broken = np.flatnonzero(state.excess(uses) > 0)
        count = int(broken[0]) if len(broken) else len(best)
        taken = _moved(linear, taken, best[: max(count, 1)])
    return taken


@dataclass(frozen=True, eq=False)
class _State:
    """Rows as one matrix [R, N]. size: range of each row; unit: a value that is small but not nothing."""

    linear: Linear
    columns: FloatArray
    lo: FloatArray
    hi: FloatArray
    size: FloatArray
    unit: float

    @staticmethod
    def of(linear: Linear) -> _State:
        n = linear.problem.choice_count
        columns = np.array([r.column for r in linear.rows], np.float64).reshape(len(linear.rows), n)
        lo = np.array([-np.inf if r.lo is None else float(r.lo) for r in linear.rows])
        hi = np.array([np.inf if r.hi is None else float(r.hi) for r in linear.rows])
        size = np.abs(columns).sum(axis=1)
        spread = float(np.abs(linear.value).sum()) / n
        return _State(linear, columns, lo, hi, np.where(size > 0, size, 1.0), 1e-6 * spread or 1.0)

    def use(self, taken: IntArray) -> FloatArray:
        """Left side of each row."""
        return np.asarray(self.columns[:, taken].sum(axis=1))

    def excess(self, use: FloatArray) -> FloatArray:
        """By how much uses [R, M] leave the limits, each row against its size; [M]."""
        out = np.maximum(use - self.hi[:, None], 0.0) + np.maximum(self.lo[:, None] - use, 0.0)
        return np.asarray((out / self.size[:, None]).sum(axis=0))

    def best_per_group(self, score: FloatArray, usable: BoolArray) -> tuple[IntArray, FloatArray]:
        """The row of highest score in each group that has a usable one, and its score."""
        problem = self.linear.problem
        masked = np.where(usable, score, -np.inf)
        top = np.maximum.reduceat(masked, problem.indptr[:-1])
        rows = _first(self.linear, masked == top[problem.group_of])
        rows = rows[top > -np.inf]
        return rows, score[rows]


def _first(linear: Linear, mask: BoolArray) -> IntArray:
    hits = np.flatnonzero(mask)
    return np.asarray(hits[np.searchsorted(hits, linear.problem.indptr[:-1])])


def _moved(linear: Linear, taken: IntArray, rows: NDArray[np.int64]) -> IntArray:
    moved = taken.copy()
    moved[linear.problem.group_of[rows]] = rows
    return moved
