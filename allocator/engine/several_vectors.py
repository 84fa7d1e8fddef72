"""Many price vectors around the best one: each gives a valid bound, the largest of them fixes choices and cuts nodes.

Directions follow the spread of the choices that are near their group's best: budgets that move together (bytes and
the time to read them) would make steps along single prices nearly alike. Along each direction the bound falls by
a set share of the gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from allocator.engine.several_core import EPSILON, NONE, Core
from allocator.engine.several_prices import bounds_of
from allocator.statement import FloatArray

SHARES = (0.15, 0.6)
WIDENINGS, HALVINGS = 12, 4
ROUNDS = 6


@dataclass(frozen=True, eq=False)
class Bounded:
    """A core, price vectors [K, R], their bounds less rounding [K], and the reduced values [K, n] (≥ 0)."""

    core: Core
    prices: FloatArray
    bounds: FloatArray
    reduced: FloatArray

    @property
    def bound(self) -> float:
        """The best of the bounds."""
        return float(self.bounds.max())


def bounded(core: Core, prices: FloatArray, allowance: float) -> Bounded:
    """Bounds and reduced values. allowance: rounding that the caller's tolerance absorbs."""
    prices = core.usable(prices)
    bounds, reduced = bounds_of(core, prices)
    return Bounded(core, prices, bounds - np.maximum(slip(core, prices) - allowance, 0.0), reduced)


def slip(core: Core, prices: FloatArray) -> FloatArray:
    """What rounding may add to a bound and a running sum of reduced values, per price vector [K]."""
    sides = np.abs(prices * core.limits(prices)).sum(axis=1)
    if core.depth:
        largest = np.maximum.reduceat(np.abs(core.weight), core.indptr[:-1], axis=1).sum(axis=1)
        sides = sides + np.abs(prices) @ largest
    terms = core.depth + len(core.hi) + 4
    return np.asarray(EPSILON * terms * (2 * sides + np.abs(core.value).sum()) + 8 * EPSILON * core.size)


def around(core: Core, top: FloatArray, target: float) -> FloatArray:
    """Price vectors [K, R], the given one first."""
    count, top = len(top), core.usable(top)
    sided = (core.hi != NONE) | (core.lo != -NONE)
    if not core.depth or not sided.any():
        return top[None]
    (bound,), reduced = bounds_of(core, top[None])
    gap = target - bound
    if not (gap > 0 and np.isfinite(gap)):
        return top[None]
    basis = _axes(core, reduced[0], gap, sided)
    directions = [basis, -basis]
    if count > 1:
        signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * basis.shape[0])).reshape(basis.shape[0], -1).T
        directions.append(signs @ basis / np.sqrt(basis.shape[0]))
    ways = np.concatenate(directions)
    return np.concatenate([top[None], *(_at(core, top, ways, bound - share * gap) for share in SHARES)])


def _axes(core: Core, reduced: FloatArray, gap: float, sided: FloatArray) -> FloatArray:
    """Directions [B, R]: columns of the inverse root of Σ use·useᵀ over the choices near their group's best."""
    near = np.exp(-np.minimum(reduced / gap, 50.0)) * (reduced > 0)
    best = np.repeat(core.weight[:, _first_zero(core, reduced)], np.diff(core.indptr), axis=1)
    change = core.weight - best
    scale = np.maximum(core.spread, 1.0)
    change = change / scale[:, None]
    matrix = (change * near) @ change.T
    matrix = matrix[np.ix_(sided, sided)] + 1e-12 * np.eye(int(sided.sum())) * max(float(np.trace(matrix)), 1e-30)
    worth, frame = np.linalg.eigh(matrix)
    inner = frame @ np.diag(worth**-0.5) @ frame.T
    axes = np.zeros((len(inner), len(sided)))
    axes[:, sided] = inner * gap
    return axes / scale


def _first_zero(core: Core, reduced: FloatArray) -> FloatArray:
    hits = np.flatnonzero(reduced <= 0)
    return np.asarray(hits[np.searchsorted(hits, core.indptr[:-1])])


def _at(core: Core, top: FloatArray, ways: FloatArray, level: float) -> FloatArray:
    """Points along each way where the bound has fallen to the level; prices keep the sign that their side allows."""

    def point(length: FloatArray) -> FloatArray:
        moved = top + length[:, None] * ways
        return core.usable(moved)

    low, high = np.zeros(len(ways)), np.full(len(ways), 0.5)  # the axes are scaled so that 1 is about right
    for _ in range(WIDENINGS):
        above = bounds_of(core, point(high))[0] > level
        if not above.any():
            break
        low, high = np.where(above, high, low), np.where(above, high * 2, high)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        above = bounds_of(core, point(middle))[0] > level
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return point(low)


def fixed(core: Core, prices: FloatArray, target: float, allowance: float) -> Bounded | None:
    """The core without what cannot be in an allocation below the target; None where nothing is left.

    A choice goes when its reduced value lifts the bound to the target under any one of the vectors, or when
    with it a row cannot be kept. What is left has larger minima and divisors: repeated until nothing goes.
    """
    for _ in range(ROUNDS):
        state = bounded(core, prices, allowance)
        if state.bound >= target:
            return None
        if not core.depth:
            return state
        alive = (state.bounds[:, None] + state.reduced).max(axis=0) < target
        alive &= _reachable(core)
        if alive.all():
            return state
        kept = core.kept(alive)
        kept = None if kept is None else kept.tightened()
        if kept is None:
            return None
        core = kept
    return bounded(core, prices, allowance)


def _reachable(core: Core) -> FloatArray:
    """Choices [n] that the other groups can still complete: exact integers."""
    at, sizes = core.indptr[:-1], np.diff(core.indptr)
    alive = np.ones(len(core.value), bool)
    for r in range(len(core.hi)):
        use = core.use[:, r]
        if core.hi[r] != NONE:
            least = np.minimum.reduceat(use, at)
            alive &= use - np.repeat(least, sizes) <= core.hi[r] - least.sum()
        if core.lo[r] != -NONE:
            most = np.maximum.reduceat(use, at)
            alive &= np.repeat(most, sizes) - use <= most.sum() - core.lo[r]
    return alive
