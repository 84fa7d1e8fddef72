"""How far the summed error of an allocation can reach along the axes of negative curvature."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from allocator.bounds import find_prices
from allocator.checks.lagrangian import lower_bound
from allocator.protocols import Limits
from allocator.quadratic import Quadratic
from allocator.statement import FloatArray

MOST_TIGHTENED = 40  # axes whose ends are sought under the rows: two price searches each
WIDENED = 1e-12  # of an axis's reach, for sums that round


@dataclass(frozen=True, eq=False)
class Box:
    """lo ≤ Σ_g v_gi ≤ hi [m] for each eigenvalue e_i < 0, in the order of the basis."""

    lo: FloatArray
    hi: FloatArray


def wide_box(model: Quadratic) -> Box:
    """The ends over all allocations, whatever the rows say: Σ_g of each group's least and largest."""
    start, free = model.problem.indptr[:-1], model.linear.free[:, None]
    down = model.vectors[:, model.eigenvalues < 0]
    lo = np.minimum.reduceat(np.where(free, down, np.inf), start, axis=0).sum(axis=0)
    hi = np.maximum.reduceat(np.where(free, down, -np.inf), start, axis=0).sum(axis=0)
    return Box(lo, hi)


def tight_box(model: Quadratic, limits: Limits) -> Box:
    """The ends over allocations that keep the rows, as far as prices of the rows can tell: never too narrow.

    Only for the axes whose secants miss most, |e|·(hi − lo)², and while there is time.
    """
    wide = wide_box(model)
    lo, hi = wide.lo.copy(), wide.hi.copy()
    down = np.flatnonzero(model.eigenvalues < 0)
    missed = -model.eigenvalues[down] * (hi - lo) ** 2
    for i in np.argsort(-missed, kind="stable")[:MOST_TIGHTENED].tolist():
        if limits.left <= 0:
            break
        axis, room = model.vectors[:, down[i]], WIDENED * (abs(lo[i]) + abs(hi[i]))
        lo[i] = max(lo[i], _least(model, axis) - room)
        hi[i] = min(hi[i], -_least(model, -axis) + room)
    narrowed = lo <= hi  # where not, no allocation keeps the rows: somebody else proves it
    return Box(np.where(narrowed, lo, wide.lo), np.where(narrowed, hi, wide.hi))


def _least(model: Quadratic, column: FloatArray) -> float:
    linear = dataclasses.replace(model.linear, value=column)
    bound = lower_bound(linear, find_prices(linear).values)
    return bound if math.isfinite(bound) else -math.inf
