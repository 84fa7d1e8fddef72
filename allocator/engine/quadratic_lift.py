"""Multipliers for products of choices: the doubly nonnegative relaxation, by an augmented Lagrangian in numpy.

Products Y of z = (1, x, room) are positive semidefinite, at least 0, 1 in the corner, equal to x on the diagonal and 0
between choices of a group; the choices of a group sum to 1 and rooms are what is left of the sides, so that Y = V R Vᵀ
with R of order m − G + 1 (facial reduction). What the multipliers say is made into a bound elsewhere
(`quadratic_minorant`): the objective of this iteration is none. (Wen, Goldfarb and Yin 2010, alternating directions;
Burer 2009 and 2010, completely positive and doubly nonnegative; Oliveira, Wolkowicz and Xu 2018, the reduced face.)
"""

from __future__ import annotations

import numpy as np

from allocator.engine.quadratic_minorant import Minorant, Part, minorant, tangent
from allocator.statement import FloatArray, IntArray

OVER = 1.6  # step of the multipliers
POWER = 0.5  # of a choice's own value in its unit
AVERAGED = 25  # latest multipliers, whose mean bounds better than the last
PENALTY = 0.1  # of the augmented Lagrangian, the loss in its unit (fixed: adapting it made it slower)


class Lift:
    """The iteration over the choices of a part; each `step` costs one eigendecomposition of order m − G + 1."""

    def __init__(self, part: Part, unit: float) -> None:
        m, sides = len(part.group), len(part.limit)
        self.part = part
        self.unit = unit
        order = 1 + m + sides
        face = tangent(part.start)
        centre = 1.0 / np.diff(part.start)[part.group]
        room = np.concatenate([part.limit - part.column @ centre])
        first = np.concatenate([[1.0], centre, room])[:, None]
        rest = np.concatenate([np.zeros((1, face.shape[1])), face, -part.column @ face])
        self.scale = np.ones(order)
        self.scale[1 : m + 1] = np.maximum(part.value / unit, 1.0) ** POWER
        basis, _ = np.linalg.qr(self.scale[:, None] * np.concatenate([first, rest], axis=1))
        self.basis = basis
        self.form = np.zeros((order, order))
        self.form[0, 1 : m + 1] = self.form[1 : m + 1, 0] = part.value / (2 * unit)
        self.form[1 : m + 1, 1 : m + 1] = part.matrix / (2 * unit)
        self.form /= self.scale[:, None] * self.scale
        same = part.group[:, None] == part.group[None, :]
        self.zero = np.zeros((order, order), bool)
        self.zero[1 : m + 1, 1 : m + 1] = same
        first = self.scale[:, None] * first
        self.y = self._kept(first @ first.T)
        self.z = np.zeros((order, order))
        self.mean = np.zeros((order, order))  # of multipliers, each with −Vᵀ z V PSD
        self.steps = 0

    def step(self, count: int) -> None:
        """So many more iterations."""
        for _ in range(count):
            lifted = self._lifted()
            self.steps += 1
            self.mean += (self.z + PENALTY * (self.y - lifted) - self.mean) / min(self.steps, AVERAGED)
            self.y = self._kept(lifted - (self.form + self.z) / PENALTY)
            self.z += OVER * PENALTY * (self.y - lifted)

    def narrowed(self, part: Part, kept: IntArray) -> Lift:
        """The iteration over fewer choices, begun where this one is; kept: their places in this part."""
        other = Lift(part, self.unit)
        if len(part.limit) == len(self.part.limit):
            places = np.concatenate([[0], 1 + kept, 1 + len(self.part.group) + np.arange(len(part.limit))])
            ratio = other.scale / self.scale[places]
            other.y = other._kept(self.y[np.ix_(places, places)] * ratio[:, None] * ratio)
            other.z = self.z[np.ix_(places, places)] / (ratio[:, None] * ratio)
            other.mean = self.mean[np.ix_(places, places)] / (ratio[:, None] * ratio)
        other.steps = self.steps
        return other

    def _lifted(self) -> FloatArray:
        """V Π(Vᵀ(Y + Z/β)V) Vᵀ, by the shorter of the two sides of the spectrum."""
        inner = self.basis.T @ (self.y + self.z / PENALTY) @ self.basis
        value, vector = np.linalg.eigh((inner + inner.T) / 2)
        up = value > 0
        if 2 * int(up.sum()) <= len(value):
            wide = self.basis @ (vector[:, up] * np.sqrt(value[up]))
            return np.asarray(wide @ wide.T)
        wide = self.basis @ (vector[:, ~up] * np.sqrt(-value[~up]))
        return np.asarray(self.basis @ inner @ self.basis.T + wide @ wide.T)

    def _kept(self, y: FloatArray) -> FloatArray:
        """The nearest matrix with 1 in the corner, x on the diagonal and first row, 0 in groups, the rest ≥ 0."""
        m = len(self.part.group)
        along = np.arange(1, m + 1)
        s = self.scale[along]
        x = np.maximum((s * y[along, along] + y[0, along] + y[along, 0]) / (s * (s * s + 2)), 0.0)
        y = np.maximum(y, 0.0)
        y[self.zero] = 0.0
        y[along, along] = s * s * x
        y[0, along] = y[along, 0] = s * x
        y[0, 0] = 1.0
        return y

    @property
    def parts(self) -> FloatArray:
        """Parts of choices [m]."""
        inside = slice(1, len(self.part.group) + 1)
        x = np.maximum(self.y[0, inside] / self.scale[inside], 1e-9)
        return np.asarray(x / np.add.reduceat(x, self.part.start[:-1])[self.part.group])

    def minorant(self) -> Minorant:
        """The convex function that the multipliers stand for; valid however far the iteration is."""
        m = len(self.part.group)
        z = self.mean
        back = self.scale[:, None] * self.scale * (2 * self.unit)
        left = (self.form + z) * back
        inside = slice(1, m + 1)
        return minorant(self.part, left[inside, inside], left[m + 1 :, inside], -(z * back)[inside, inside])
