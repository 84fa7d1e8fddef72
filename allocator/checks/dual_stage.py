"""What a stage of a dual tree says, worked out anew from the problem: q, N and the sides, with rounding taken off."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from allocator.certificate_dual import Stage
from allocator.checks.lagrangian import EPSILON
from allocator.quadratic import Quadratic
from allocator.statement import FloatArray, IntArray

SAFE = 2.0**52  # integers up to it are floats


@dataclass(frozen=True, eq=False)
class Base:
    """loss(x) ≥ linear·x + ½|Fᵀx|² + Σ_{pairs} apart + Σ_s (limit_s − column_s·x)(spare_s·x), times 2^lift.

    linear, size [m]: q, and what its rounding is relative to, taken off already. apart [m, m] ≥ 0, norm [m] = |F_k|.
    column [S, m], limit [S] widened by rounding. start [G + 1], group [m]: of the stage's rows.
    """

    linear: FloatArray
    size: FloatArray
    factor: FloatArray
    norm: FloatArray
    apart: FloatArray
    column: FloatArray
    limit: FloatArray
    spare: FloatArray
    start: IntArray
    group: IntArray


def base_of(model: Quadratic, stage: Stage) -> Base | None:
    """The stage's function; None where shapes or numbers cannot be meant."""
    rows = np.asarray(stage.rows, np.int64)
    n, groups = model.problem.choice_count, model.problem.group_count
    if not len(rows) or rows[0] < 0 or rows[-1] >= n or (np.diff(rows) <= 0).any():
        return None
    group = model.problem.group_of[rows]
    start = np.searchsorted(group, np.arange(groups + 1)).astype(np.int64)
    m, sides = len(rows), len(stage.side)
    shapes = ((stage.factor, (m, stage.factor.shape[-1])), (stage.face, (groups, m)), (stage.spare, (sides, m)))
    if (np.diff(start) < 1).any() or any(a.shape != shape or not np.isfinite(a).all() for a, shape in shapes):
        return None
    known = _sides(model, stage, rows, start)
    if known is None:
        return None
    column, limit = known
    return _base(model, stage, rows, group, start, column, limit)


def _sides(model: Quadratic, stage: Stage, rows: IntArray, start: IntArray) -> tuple[FloatArray, FloatArray] | None:
    """c [S, m] and limit [S] of the sides in their units; no feasible allocation has c·x above the limit."""
    columns, limits = np.zeros((len(stage.side), len(rows))), np.zeros(len(stage.side))
    for i, (at, sign, unit) in enumerate(
        zip(stage.side.tolist(), stage.sign.tolist(), stage.unit.tolist(), strict=True)
    ):
        if not (0 <= at < len(model.linear.rows) and sign in (1.0, -1.0) and 0 < unit < math.inf):
            return None
        row = model.linear.rows[at]
        stated = row.hi if sign > 0 else row.lo
        if stated is None:
            return None
        column = sign * row.column[rows].astype(np.float64)
        least = np.minimum.reduceat(column, start[:-1])
        size = math.fsum(np.maximum.reduceat(np.abs(column), start[:-1]).tolist()) + abs(float(stated))
        slip = 0.0 if row.exact and size < SAFE else 8 * EPSILON * (len(least) + 4) * size
        column = column - least[np.repeat(np.arange(len(least)), np.diff(start))]
        room = math.fsum([sign * float(stated), *(-least).tolist()])
        most = math.fsum(np.maximum.reduceat(column, start[:-1]).tolist())
        columns[i] = column / unit
        limits[i] = (room + slip + 8 * EPSILON * (abs(room) + most)) / unit
    return (columns, limits) if np.isfinite(columns).all() and np.isfinite(limits).all() else None


def _base(
    model: Quadratic,
    stage: Stage,
    rows: IntArray,
    group: IntArray,
    start: IntArray,
    column: FloatArray,
    limit: FloatArray,
) -> Base | None:
    m, places = len(rows), np.arange(len(rows))
    spare, face, factor = np.maximum(stage.spare, 0.0), stage.face, stage.factor
    value = np.ldexp(model.linear.value[rows], stage.lift)
    vectors, e = model.vectors[rows], np.ldexp(model.eigenvalues, stage.lift)
    between = (vectors * e) @ vectors.T
    place = np.full(model.problem.choice_count, -1, np.int64)
    place[rows] = places
    ends = place[model.pair]
    kept = (ends >= 0).all(axis=1)
    ends, worth = ends[kept], np.ldexp(model.pair_value[kept], stage.lift)
    np.add.at(between, (ends[:, 0], ends[:, 1]), worth)
    np.add.at(between, (ends[:, 1], ends[:, 0]), worth)
    traded = column.T @ spare
    sided = face[group]
    left = between + traded + traded.T - factor @ factor.T - sided - sided.T
    reach = np.sqrt(vectors**2 @ np.abs(e))
    norm = np.sqrt((factor**2).sum(axis=1))
    wide = np.abs(between) + traded + traded.T + np.abs(sided) + np.abs(sided.T)
    wide += np.outer(reach, reach) + np.outer(norm, norm)
    left -= 4 * EPSILON * (len(e) + factor.shape[1] + 2 * len(limit) + 8) * wide
    left[group[:, None] == group[None, :]] = 0.0
    lost = -0.5 * np.minimum(left, 0.0).sum(axis=1)
    own = (column * spare).sum(axis=0)
    paid = limit @ spare
    linear = value + own - 0.5 * norm**2 - sided[places, places] + face.sum(axis=0) - paid - lost
    size = np.abs(value) + own + norm**2 + np.abs(sided[places, places]) + np.abs(face).sum(axis=0)
    size += np.abs(limit) @ spare + lost
    linear -= 4 * EPSILON * ((len(start) + factor.shape[1] + 8) * size + m * lost)
    if not (np.isfinite(linear).all() and np.isfinite(left).all()):
        return None
    return Base(linear, size, factor, norm, np.maximum(left, 0.0), column, limit, spare, start, group)
