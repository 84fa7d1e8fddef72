"""Local search with interactions: repair, changes of one and two groups, kicks, annealing; C, or numpy without it.

A change of one group costs O(1) where W is held and O(r) with vectors; seeds and iterations decide, never time, so
that equal seeds give equal allocations. (Iterated local search: Lourenço, Martin and Stützle, 2003; annealing:
Kirkpatrick, Gelatt and Vecchi, 1983.)
"""

from __future__ import annotations

import math
from time import monotonic

from allocator.engine import native
from allocator.engine.quadratic_model import Compact
from allocator.statement import IntArray

FOREVER = 1e9  # seconds


def searched(
    model: Compact,
    taken: IntArray,
    *,
    kicks: int = 0,
    proposals: int = 0,
    heat: tuple[float, float] = (1.0, 1e-3),
    seed: int = 0,
    seconds: float = math.inf,
    engine: str | None = None,
) -> IntArray | None:
    """The best allocation (rows [G]) reached from one that need not keep the rows; None where repair fails.

    Repair; annealing with so many proposals from the first temperature to the second; descent; so many kicks.

    Args:
        model: the engine's form.
        taken: rows [G] of it.
        kicks: perturbations of the iterated local search.
        proposals: of the annealing, 0 for none.
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

        state = State(model, taken, seed, monotonic() + seconds)
        if not state.repair():
            return None
        if proposals:
            state.anneal(proposals, hot, cold)
        return state.taken if state.climb(kicks) else None
    rows = taken.copy()
    kept = kernels.quadratic_search(
        model.frame.ctypes.data, rows.ctypes.data, kicks, proposals, seed, seconds, hot, cold
    )
    return rows if kept else None
