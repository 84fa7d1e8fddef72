"""A problem with interactions in the engine's own form: free choices only, numbers near 1, what C reads as a frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.quadratic import Quadratic
from allocator.statement import FloatArray, IntArray

DENSE = 5_000  # choices up to which W is held: 200 MB
THIN = 16_000  # in half the precision: 1 GB; vectors above it
LEAST = 1e-14  # of Σ_g max |value| + the interactions: a smaller gain is rounding


@dataclass(frozen=True, eq=False)
class Compact:
    """min Σ value[x] + Σ_{g<h} W[x_g, x_h] within lo ≤ Σ column[x] ≤ hi, over one row x_g of each group.

    All numbers of the loss are 2^lift times those of the problem. row [n]: the problem's row behind each; start
    [G + 1], group [n], value [n], column [n, R], lo, hi, size [R]. vectors [n, r] and sign [r]: W = Σ sign·v·vᵀ plus
    pairs (first [n + 1], partner, worth: both ends, ascending). stated [R]: place of each row in the linear view.
    """

    source: Quadratic
    lift: int
    row: IntArray
    start: IntArray
    group: IntArray
    value: FloatArray
    vectors: FloatArray
    sign: FloatArray
    first: IntArray
    partner: IntArray
    worth: FloatArray
    column: FloatArray
    lo: FloatArray
    hi: FloatArray
    size: FloatArray
    stated: IntArray

    @property
    def groups(self) -> int:
        """G."""
        return len(self.start) - 1

    @property
    def choices(self) -> int:
        """n."""
        return len(self.value)

    @cached_property
    def least(self) -> float:
        """Gains below it are rounding."""
        alone = float(np.maximum.reduceat(np.abs(self.value), self.start[:-1]).sum())
        reach = np.maximum.reduceat(np.abs(self.vectors), self.start[:-1], axis=0).sum(axis=0)
        return LEAST * (alone + 0.5 * float(np.abs(self.sign) @ reach**2) + 0.5 * float(np.abs(self.worth).sum()))

    @cached_property
    def frame(self) -> NDArray[np.int64]:
        """Numbers and addresses in the order of model_t; valid while this object lives."""
        self._kept.append(np.array([self.least]))
        double = self.matrix is not None and self.matrix.dtype == np.float64
        at: list[NDArray[Any] | None] = [self.start, self.group, self.value]
        at += [self.matrix, None] if double else [None, self.matrix]
        at += [self.vectors, self.sign, self.first, self.partner, self.worth, self.column, self.lo, self.hi, self.size]
        at += [self._kept[0]]
        where = [0 if a is None else a.ctypes.data for a in at]
        return np.array([self.groups, self.choices, len(self.lo), len(self.sign), *where], np.int64)

    @cached_property
    def _kept(self) -> list[FloatArray]:
        return []

    @cached_property
    def matrix(self) -> NDArray[Any] | None:
        """W [n, n], 0 within a group: in double precision up to `DENSE` choices, in single up to `THIN`, else None."""
        n = self.choices
        if n > max(DENSE, THIN):
            return None
        thin = n > DENSE
        left, right = self.vectors * self.sign, self.vectors
        matrix = left.astype(np.float32) @ right.T.astype(np.float32) if thin else left @ right.T
        matrix[self.ends, self.partner] += self.worth
        for a, b in zip(self.start[:-1].tolist(), self.start[1:].tolist(), strict=True):
            matrix[a:b, a:b] = 0.0
        if not thin:
            matrix = np.ascontiguousarray((matrix + matrix.T) / 2)
        return matrix

    @cached_property
    def ends(self) -> IntArray:
        """The choice at the near end of each entry of `partner`."""
        return np.repeat(np.arange(self.choices), np.diff(self.first))

    def down(self, total: float) -> float:
        """A total of this form as one of Σ value + Σ W of the problem."""
        return math.ldexp(total, -self.lift)

    def inside(self, rows: IntArray) -> IntArray | None:
        """An allocation of the problem (rows [G]) in this form; None where it takes a choice that is not free."""
        place = np.searchsorted(self.row, rows)
        place = np.minimum(place, self.choices - 1)
        return place if np.array_equal(self.row[place], rows) else None

    def total(self, taken: IntArray) -> float:
        """Σ value + Σ W of an allocation in this form."""
        along = self.vectors[taken]
        between = float(self.sign @ along.sum(axis=0) ** 2) - float((along**2 @ self.sign).sum())
        if len(self.partner):
            present = np.zeros(self.choices, bool)
            present[taken] = True
            between += float(self.worth[present[self.ends] & present[self.partner]].sum())
        return float(self.value[taken].sum()) + 0.5 * between

    def field(self, taken: IntArray) -> FloatArray:
        """Σ_h W[:, x_h] [n], the own group left out."""
        if self.matrix is not None:
            return np.asarray(self.matrix[taken].sum(axis=0, dtype=np.float64))
        along = self.vectors[taken]
        field = self.vectors @ (self.sign * along.sum(axis=0))
        field -= np.einsum("nr,nr->n", self.vectors * self.sign, along[self.group])
        present = np.zeros(self.choices, bool)
        present[taken] = True
        hits = present[self.partner]
        return np.asarray(field + np.bincount(self.ends[hits], self.worth[hits], self.choices))


def compact(model: Quadratic) -> Compact:
    """The engine's form of a problem in which every group has a free choice."""
    linear, problem = model.linear, model.problem
    row = np.flatnonzero(linear.free)
    group = problem.group_of[row]
    start = np.searchsorted(group, np.arange(problem.group_count + 1)).astype(np.int64)
    kept = linear.free[model.pair].all(axis=1)
    ends, worth = model.pair[kept], model.pair_value[kept]
    vectors = model.vectors if len(row) == problem.choice_count else np.ascontiguousarray(model.vectors[row])
    lift = _lift(linear.value[row], vectors, model.eigenvalues, worth)
    place = np.full(problem.choice_count, -1, np.int64)
    place[row] = np.arange(len(row))
    both = place[np.concatenate([ends, ends[:, ::-1]])]
    order = np.lexsort((both[:, 1], both[:, 0]))
    both, worth = both[order], np.ldexp(np.tile(worth, 2)[order], lift)
    first = np.searchsorted(both[:, 0], np.arange(len(row) + 1)).astype(np.int64)
    sign = np.ldexp(model.eigenvalues, lift)
    stated = [i for i, r in enumerate(linear.rows) if r.hi is not None or r.lo is not None]
    sides = [linear.rows[i] for i in stated]
    column = np.array([r.column[row] for r in sides], np.float64).reshape(len(sides), len(row)).T
    size = np.abs(column).sum(axis=0)
    return Compact(
        source=model,
        lift=lift,
        row=row,
        start=start,
        group=np.ascontiguousarray(group, np.int64),
        value=np.ldexp(linear.value[row], lift),
        vectors=vectors,
        sign=sign,
        first=first,
        partner=np.ascontiguousarray(both[:, 1]),
        worth=worth,
        column=np.ascontiguousarray(column),
        lo=np.array([-np.inf if r.lo is None else float(r.lo) for r in sides]),
        hi=np.array([np.inf if r.hi is None else float(r.hi) for r in sides]),
        size=np.where(size > 0, size, 1.0),
        stated=np.array(stated, np.int64),
    )


def _lift(value: FloatArray, vectors: FloatArray, sign: FloatArray, worth: FloatArray) -> int:
    """The power of two that brings the largest number of the loss near 1; 0 where all are 0."""
    exponents = [math.frexp(float(np.abs(part).max()))[1] for part in (value, worth) if len(part) and part.any()]
    largest: Any = np.abs(vectors).max(axis=0, initial=0.0) if len(sign) else np.zeros(0)
    _, of_sign = np.frexp(sign)
    _, of_vector = np.frexp(largest)
    exponents += (of_sign + 2 * of_vector)[largest > 0].tolist()
    return -max(exponents) if exponents else 0
