"""Local search with interactions: repair, changes of one and two groups, kicks, annealing; C, or numpy without it.

A change of one group costs O(1) where W is held and O(r) with vectors; seeds and iterations decide, never time, so
that equal seeds give equal allocations. (Iterated local search: Lourenço, Martin and Stützle, 2003; annealing:
Kirkpatrick, Gelatt and Vecchi, 1983.)
"""

from __future__ import annotations

import math
from time import monotonic

import numpy as np

from allocator.engine import native
from allocator.engine.quadratic_model import Compact
from allocator.statement import FloatArray, IntArray

FOREVER = 1e9  # seconds
WIDTH = 3.0  # typical steps of a row: how far beyond its limit an annealing walks at no great cost


def searched(
    model: Compact,
    taken: IntArray,
    *,
    kicks: int = 0,
    seed: int = 0,
    seconds: float = math.inf,
    engine: str | None = None,
) -> IntArray | None:
    """The best allocation (rows [G]) reached from one that need not keep the rows; None where repair fails.

    Repair; descent; so many kicks.

    Args:
        model: the engine's form.
        taken: rows [G] of it.
        kicks: perturbations of the iterated local search.
        seed: of whatever is random.
        seconds: after so many the best so far is returned.
        engine: "c" or "numpy"; None takes C where it is there.
    """
    kernels = native() if engine != "numpy" else None
    seconds = min(max(seconds, 0.0), FOREVER)
    if kernels is None:
        from allocator.engine.quadratic_numpy import State

        state = State(model, taken, seed, monotonic() + seconds)
        return state.taken if state.climb(kicks) else None
    rows = taken.copy()
    kept = kernels.quadratic_search(model.frame.ctypes.data, rows.ctypes.data, kicks, seed, seconds)
    return rows if kept else None


def annealed(
    model: Compact,
    taken: IntArray,
    *,
    prices: FloatArray,
    proposals: int,
    heat: tuple[float, float],
    seed: int = 0,
    seconds: float = math.inf,
    engine: str | None = None,
) -> IntArray | None:
    """The best allocation that keeps the rows on an annealed walk to and fro across their limits, then descended.

    Args:
        model: the engine's form.
        taken: rows [G] where the walk begins; they need not keep the limits.
        prices: first ones of the rows' upper sides, then of their lower sides [2R], ≥ 0.
        proposals: changes of one group that are drawn.
        heat: first and last temperature, in units of the form's loss.
        seed: of whatever is random.
        seconds: after so many the best so far is returned.
        engine: "c" or "numpy"; None takes C where it is there.
    """
    hot, cold = heat
    kernels = native() if engine != "numpy" else None
    seconds = min(max(seconds, 0.0), FOREVER)
    if kernels is None:
        from allocator.engine.quadratic_numpy import State
        from allocator.engine.quadratic_walk import anneal

        state = State(model, taken, seed, monotonic() + seconds)
        anneal(state, proposals, hot, cold, WIDTH, prices.copy())
        return state.taken if state.climb(0) else None
    rows, price = taken.copy(), np.ascontiguousarray(prices, np.float64).copy()
    kept = kernels.quadratic_anneal(
        model.frame.ctypes.data, rows.ctypes.data, price.ctypes.data, proposals, seed, seconds, hot, cold, WIDTH
    )
    return rows if kept else None
