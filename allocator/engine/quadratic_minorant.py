"""A convex function below the loss at every allocation, in the terms that the search and its checker need.

With room_s = limit_s − c_s·x ≥ 0 of every side of a row, N ≥ 0 between groups and ν ≥ 0,

    loss(x) = q·x + ½ xᵀMx + Σ_{pairs} N_kl x_k x_l + Σ_s room_s·(ν_s·x)    for one choice of each group,

whatever N and ν are: what they take from the pairs, M and q give back. Blocks of M within a group are free, because
x_k x_l = 0 and x_k² = x_k there; M has to be PSD only along directions that keep every group's sum. (Burer 2009, On
the copositive representation; Billionnet, Elloumi and Plateau 2009, QCR.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from allocator.engine.quadratic_model import Compact
from allocator.statement import FloatArray, IntArray

EPSILON = float(np.finfo(float).eps)
ROOM = 1e-13  # that a limit in units of 1 is widened by, for sums that round
AHEAD = 4.0  # times the rounding of a product that N is set above 0, so that the check finds it there


@dataclass(frozen=True, eq=False)
class Part:
    """Some choices of a form: `keep` [m] are rows of it; start [G + 1], group [m], value [m], W [m, m].

    column [S, m], limit [S]: sides of the rows as c·x ≤ limit, each group's least taken off and in units that make
    the limit 1. unit [S], sign [S], side [S]: those units, −1 for a min, and the form's row.
    """

    form: Compact
    keep: IntArray
    start: IntArray
    group: IntArray
    value: FloatArray
    matrix: FloatArray
    column: FloatArray
    limit: FloatArray
    unit: FloatArray
    sign: FloatArray
    side: IntArray


def part_of(form: Compact, alive: np.ndarray) -> Part:
    """The choices alive [n] of a form whose matrix is held; every group has one."""
    assert form.matrix is not None
    keep = np.flatnonzero(alive)
    group = form.group[keep]
    start = np.searchsorted(group, np.arange(form.groups + 1)).astype(np.int64)
    columns, units, signs, sides = [], [], [], []
    for r in range(len(form.lo)):
        for sign, limit in ((1.0, form.hi[r]), (-1.0, form.lo[r])):
            column = sign * form.column[keep, r]
            least = np.minimum.reduceat(column, start[:-1])
            column = column - least[group]
            room = math.fsum([sign * limit, *(-least).tolist()])
            if not math.isfinite(room) or np.maximum.reduceat(column, start[:-1]).sum() <= room:
                continue
            unit = room if room > ROOM * form.size[r] else float(column.max())
            columns.append(column / unit)
            units.append((max(room, 0.0) / unit, unit))
            signs.append(sign)
            sides.append(r)
    limit = np.array([u[0] + ROOM for u in units])
    return Part(
        form=form,
        keep=keep,
        start=start,
        group=np.ascontiguousarray(group),
        value=form.value[keep],
        matrix=np.ascontiguousarray(form.matrix[np.ix_(keep, keep)]),
        column=np.ascontiguousarray(np.array(columns, np.float64).reshape(len(columns), len(keep))),
        limit=limit,
        unit=np.array([u[1] for u in units]),
        sign=np.array(signs),
        side=np.array(sides, np.int64),
    )


@dataclass(frozen=True, eq=False)
class Minorant:
    """q·x + ½|Fᵀx|² + (terms dropped): linear q [m], factor F [m, r], face A [G, m], apart N [m, m], spare ν [S, m].

    M = FFᵀ + SA + AᵀSᵀ with S the indicator of the groups, so that ½ xᵀMx = ½|Fᵀx|² + Σ_g A_g·x.
    """

    part: Part
    linear: FloatArray
    factor: FloatArray
    face: FloatArray
    apart: FloatArray
    spare: FloatArray

    @property
    def rounding(self) -> float:
        """What the check may lose of a bound to rounding, about."""
        part, places = self.part, np.arange(len(self.part.group))
        size = np.abs(part.value) + (self.factor**2).sum(axis=1) + np.abs(self.face[part.group, places])
        size += np.abs(self.face).sum(axis=0) + (part.column * self.spare).sum(axis=0) + part.limit @ self.spare
        terms = len(part.start) + self.factor.shape[1] + len(part.limit) + 16
        return float(12 * EPSILON * terms * np.maximum.reduceat(size, part.start[:-1]).sum())


def minorant(part: Part, apart: FloatArray, spare: FloatArray, blocks: FloatArray) -> Minorant:
    """Made convex: M = W + Σ (c νᵀ + ν cᵀ) − N between groups, `blocks` within them, shifted as far as it needs.

    Args:
        part: the choices.
        apart: N [m, m], of which what is negative counts as 0.
        spare: ν [S, m], likewise.
        blocks: M within groups [m, m] before c νᵀ + ν cᵀ join it there too; the rest of it is not read.
    """
    same = part.group[:, None] == part.group[None, :]
    spare = np.maximum(spare, 0.0)
    traded = part.column.T @ spare
    traded = traded + traded.T
    whole, blocks = part.matrix + traded, blocks + traded
    size = np.sqrt(np.maximum(np.abs(np.diagonal(blocks)), np.abs(whole).max(axis=1, initial=0.0)))
    apart = np.where(same, 0.0, np.maximum(apart, 0.0) + AHEAD * EPSILON * (len(size) + 16) * np.outer(size, size))
    curved = np.where(same, blocks, whole - apart)
    curved = (curved + curved.T) / 2
    face = tangent(part.start)
    inner = face.T @ curved @ face
    inner = (inner + inner.T) / 2
    least = float(np.linalg.eigvalsh(inner)[0]) if len(inner) else 0.0
    miss = max(0.0, -least) * (1 + 1e-9) + 4 * EPSILON * len(inner) * float(np.abs(inner).max(initial=0.0))
    curved = curved + miss * np.eye(len(curved))
    value, vector = np.linalg.eigh(face.T @ curved @ face) if face.shape[1] else (np.zeros(0), np.zeros((0, 0)))
    kept = value > 0
    factor = face @ (vector[:, kept] * np.sqrt(value[kept]))
    mean = np.add.reduceat(curved, part.start[:-1], axis=0) / np.diff(part.start)[:, None]
    across = np.add.reduceat(mean, part.start[:-1], axis=1) / np.diff(part.start)[None, :]
    side = mean - 0.5 * across[:, part.group]
    own = (factor**2).sum(axis=1) + 2 * side[part.group, np.arange(len(part.group))]
    linear = part.value + 0.5 * (2 * (part.column * spare).sum(axis=0) - own)
    linear = linear + side.sum(axis=0) - part.limit @ spare
    return Minorant(part, linear, np.ascontiguousarray(factor), side, apart, spare)


def tangent(start: IntArray) -> FloatArray:
    """An orthonormal basis [m, m − G] of the directions that keep every group's sum: Helmert's, group by group."""
    face = np.zeros((int(start[-1]), int(start[-1]) - len(start) + 1))
    column = 0
    for first, last in zip(start[:-1].tolist(), start[1:].tolist(), strict=True):
        for k in range(1, last - first):
            face[first : first + k, column] = 1.0
            face[first + k, column] = -float(k)
            face[first:last, column] /= math.sqrt(k * (k + 1.0))
            column += 1
    return face


def plain(part: Part) -> Minorant:
    """Nothing dropped: W with the blocks of its vectors where all eigenvalues are positive, else what it needs."""
    form = part.form
    vectors = form.vectors[part.keep]
    zero = np.zeros_like(part.matrix)
    if len(form.worth) or (form.sign < 0).any():
        return minorant(part, zero, np.zeros_like(part.column), zero)
    return minorant(part, zero, np.zeros_like(part.column), (vectors * form.sign) @ vectors.T)
