"""How much of every budget row an allocation uses, and what a change of it does to that."""

from __future__ import annotations

import numpy as np

from allocator.linear import Linear
from allocator.statement import BoolArray, FloatArray, IntArray


class RowUse:
    """The rows as one matrix [R, N], limits as numbers; whoever takes an allocation checks it on the problem."""

    def __init__(self, linear: Linear) -> None:
        count = linear.problem.choice_count
        self.group = linear.problem.group_of
        self.columns = np.array([r.column for r in linear.rows], np.float64).reshape(len(linear.rows), count)
        self.lo = np.array([-np.inf if r.lo is None else float(r.lo) for r in linear.rows])
        self.hi = np.array([np.inf if r.hi is None else float(r.hi) for r in linear.rows])

    def use(self, taken: IntArray) -> FloatArray:
        """Left side of each row [R]."""
        return np.asarray(self.columns[:, taken].sum(axis=1))

    def change(self, taken: IntArray) -> FloatArray:
        """What taking each choice instead changes [R, N]."""
        return np.asarray(self.columns - self.columns[:, taken][:, self.group])

    def keeps(self, use: FloatArray) -> BoolArray:
        """Whether uses [R, …] keep all rows; an empty R keeps all."""
        shape = (-1,) + (1,) * (use.ndim - 1)
        inside = (use <= self.hi.reshape(shape)) & (use >= self.lo.reshape(shape))
        return np.asarray(inside.all(axis=0))
