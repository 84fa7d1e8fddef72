"""Outer approximation: integer programs in which tangents stand for squares, until bound and allocation meet."""

from __future__ import annotations

import math

import numpy as np

from allocator.statement import FloatArray, IntArray
from solvers._master import Master
from solvers._recovery import Recovery
from solvers._relaxations import Relaxations

CLOSED = 1e-6  # of the objective: the masters' bound is not sure of less


def outer(found: Relaxations, recovery: Recovery, most: int) -> None:
    """Integer programs, at most so many: each gives a bound, an allocation, and tangents for the next.

    Exact in the end where the form agrees with the objective on allocations: a master that comes back to an
    allocation has that allocation's own value (Kelley, 1960; Duran and Grossmann, 1986). One that comes back and
    leaves a gap, by tolerances or because the form lies below the objective, is excluded: it is no better than the
    best. Stops at the gap, at the clock, or where nothing is left.
    """
    limits = recovery.limits
    master = Master(found)
    for x in found.points.values():
        master.cut(x)
    seen: set[bytes] = set()
    for count in range(1, most + 1):
        bound, taken = master.solve(limits)
        found.statistics["masters"] = count
        if taken is not None:
            recovery.begin("outer", [taken])
        best = recovery.best
        bound = bound if best is None else min(bound, best.objective)
        if math.isfinite(bound):
            found.bounds["outer"] = max(bound, found.bounds.get("outer", -math.inf))
        if taken is None or limits.left <= 0:
            return
        if best is not None and best.objective - found.bound <= max(CLOSED, limits.gap) * abs(best.objective):
            return
        if taken.tobytes() in seen:
            master.exclude(taken)
            continue
        seen.add(taken.tobytes())
        master.cut(_parts(taken, found.model.problem.choice_count))


def _parts(taken: IntArray, count: int) -> FloatArray:
    x = np.zeros(count)
    x[taken] = 1.0
    return x
