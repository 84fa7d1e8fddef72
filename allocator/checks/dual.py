"""Checks `dual`: a lower bound for losses with interactions, from a point and prices; any of them are valid.

The own squares of a basis, −½ Σ e v², go into the values (missing vectors are 0). What is left, ½ Σ e c² with
c = Σ_g v, is bent into sums over groups: ½ e c² ≥ y c − y²/(2e) for e > 0, and the secant between the least and the
largest c for e < 0. A pair of value v < 0 gives v/2 to each end, one of v > 0 gives μ(x_a + x_b − 1). Then the prices
bound the sums (`checks.lagrangian`). Rounding is taken off.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from allocator.certificate_dual import Dual
from allocator.checks.lagrangian import VANISHED, lowered, scan
from allocator.linear import Linear
from allocator.quadratic import Quadratic
from allocator.statement import BoolArray, FloatArray

EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class Bent:
    """column [N] and constant: Σ column[taken] + constant is below the loss of every allocation of choices alive."""

    column: FloatArray
    constant: float


def bent(model: Quadratic, given: Dual, alive: BoolArray) -> Bent | None:
    """The separable function that a certificate stands for; None where its shape or its numbers cannot be meant."""
    vectors, e = model.vectors, model.eigenvalues
    point = np.asarray(given.point, np.float64)
    if point.shape != e.shape or not np.isfinite(point).all():
        return None
    start, groups = model.problem.indptr[:-1], model.problem.group_count
    up = e > 0
    slope, parts = np.zeros(len(e)), np.zeros(len(e))
    slope[up] = point[up]
    with np.errstate(over="ignore", invalid="ignore"):
        parts[up] = -0.5 * point[up] * (point[up] / e[up])
    if not up.all():
        low, high = _ends(model, alive, start, groups)
        slope[~up] = 0.5 * e[~up] * (low + high)[~up]
        parts[~up] = -0.5 * e[~up] * low[~up] * high[~up]
    own, absolute = vectors**2, np.abs(vectors)
    column = model.linear.value - 0.5 * (own @ e) + vectors @ slope
    size = np.abs(model.linear.value) + 0.5 * (own @ np.abs(e)) + absolute @ np.abs(slope)
    terms = len(e) + 8
    constant, wide = math.fsum(parts.tolist()), math.fsum(np.abs(parts).tolist())
    if len(model.pair):
        ends, worth = model.pair, model.pair_value
        held = np.zeros(len(worth)) if given.held is None else np.asarray(given.held, np.float64)
        if held.shape != worth.shape or not np.isfinite(held).all():
            return None
        held = np.clip(held, 0.0, np.maximum(worth, 0.0))
        each = np.where(worth < 0, worth / 2, held)
        for end in (0, 1):
            column += np.bincount(ends[:, end], each, len(column))
            size += np.bincount(ends[:, end], np.abs(each), len(column))
        constant -= math.fsum(held.tolist())
        wide += math.fsum(held.tolist())
        terms += int(np.bincount(ends.ravel(), minlength=len(column)).max())
    column -= 4 * EPSILON * terms * size + VANISHED * terms
    constant -= 4 * EPSILON * terms * wide + VANISHED * terms
    if not (np.isfinite(column[alive]).all() and math.isfinite(constant)):
        return None
    return Bent(np.where(alive, column, 0.0), constant)


def dual_bound(model: Quadratic, given: Dual, alive: BoolArray) -> float:
    """A number that Σ value + Σ W of no feasible allocation of choices alive is below; −∞ for nonsense."""
    found = bent(model, given, alive)
    if found is None:
        return -math.inf
    return scan(_as_sums(model, found, alive), given.values).bound + found.constant


def narrowed(model: Quadratic, given: Dual, alive: BoolArray, target: float) -> tuple[float, BoolArray]:
    """The bound, and the choices alive [N] that can still be taken below the target."""
    found = bent(model, given, alive)
    if found is None:
        return -math.inf, alive
    linear = _as_sums(model, found, alive)
    looked = scan(linear, given.values)
    bound = looked.bound + found.constant
    if not math.isfinite(bound):
        return bound, alive
    every = slice(0, len(alive))
    reduced = lowered(linear, looked.sides, every, whole=False) - looked.minima[model.problem.group_of]
    return bound, alive & (bound + reduced < target)


def _as_sums(model: Quadratic, found: Bent, alive: BoolArray) -> Linear:
    return dataclasses.replace(model.linear, value=found.column, free=alive)


def _ends(model: Quadratic, alive: BoolArray, start: np.ndarray, groups: int) -> tuple[FloatArray, FloatArray]:
    """The least and the largest Σ_g v [R] over choices alive, a little beyond what rounding may hide."""
    low = np.minimum.reduceat(np.where(alive[:, None], model.vectors, np.inf), start, axis=0)
    high = np.maximum.reduceat(np.where(alive[:, None], model.vectors, -np.inf), start, axis=0)
    slip = 2 * EPSILON * (groups + 2) * (np.abs(low) + np.abs(high)).sum(axis=0)
    return low.sum(axis=0) - slip, high.sum(axis=0) + slip
