"""Annealing with prices in numpy: the twin of quadratic_anneal.c, step by step."""

from __future__ import annotations

import math

import numpy as np

from allocator.engine.quadratic_numpy import State
from allocator.statement import FloatArray

STEADY, LOOK = 64, 1024
RATE, FLOOR = 0.05, 1e-3


def anneal(state: State, proposals: int, hot: float, cold: float, share: float, price: FloatArray) -> None:
    """Random changes of one group, worse ones with probability exp(−gain/t); the best that keeps the rows is taken.

    A use of `over` beyond its limit costs ½ρ max(0, over + price/ρ)², ρ = t/width². ``price`` [2R] is changed.
    """
    width, least = _widths(state, share), FLOOR * price
    mean = np.zeros(len(price))
    t, cooling = hot, math.exp(math.log(cold / hot) * STEADY / proposals)
    lowest, best = math.inf, state.taken
    if not state.excess(state.use) > 0:
        lowest, best = state.total, state.taken.copy()
    for i in range(proposals):
        if i % STEADY == 0 and i:
            t *= cooling
            if state.late:
                break
        if i % LOOK == 0 and i:
            price *= np.exp(RATE * np.clip(mean / LOOK / np.tile(width, 2), -1.0, 1.0))
            np.maximum(price, least, out=price)
            mean[:] = 0.0
        over = _over(state, state.use)
        mean += np.where(np.isinf(over), 0.0, over)
        row = _other(state)
        if row is None:
            continue
        use = state.use + state.changes()[row]
        gain = float(state.gains()[row]) + _pressed(over, _over(state, use), price, np.tile(t / (width * width), 2))
        if gain > 0 and state.draw() >= math.exp(-gain / t):
            continue
        state.move(row)
        if state.total < lowest and not state.excess(state.use) > 0:
            lowest, best = state.total, state.taken.copy()
    if lowest < math.inf:
        state.set(best)


def _over(state: State, use: FloatArray) -> FloatArray:
    """By how much uses [R] are beyond each upper, then each lower limit [2R]; −∞ where there is none."""
    return np.concatenate([use - state.model.hi, state.model.lo - use])


def _pressed(now: FloatArray, then: FloatArray, price: FloatArray, rho: FloatArray) -> float:
    lift = price / rho
    now, then = np.maximum(now + lift, 0.0), np.maximum(then + lift, 0.0)
    return float((0.5 * rho * (then - now) * (then + now)).sum())


def _widths(state: State, share: float) -> FloatArray:
    """Mean step of each row between neighbouring choices of a group, times `share` [R]."""
    m = state.model
    inside = m.group[1:] == m.group[:-1]
    step = np.abs(np.diff(m.column, axis=0))[inside]
    mean = step.sum(axis=0) / max(int(inside.sum()), 1)
    return np.where(mean > 0, share * mean, 1.0)


def _other(state: State) -> int | None:
    """Another row of a random group, mostly the next one up or down; None where there is none."""
    m = state.model
    g = state.below(m.groups)
    first, size = int(m.start[g]), int(m.start[g + 1] - m.start[g])
    now, way = int(state.taken[g]) - first, state.draw()
    to = now + 1 if way < 0.35 else now - 1 if way < 0.7 else state.below(size)
    return None if to < 0 or to >= size or to == now else first + to
