"""What may still be in a better allocation: a few choices of a few groups, relative to one base allocation."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.checks.lagrangian import EPSILON, VANISHED
from allocator.statement import BoolArray, FloatArray, IntArray, Number

CHUNK = 4096


def divisor(steps: NDArray[Any]) -> int:
    """Greatest common divisor, 0 where there is nothing but zeros."""
    found = 0
    for at in range(0, len(steps), CHUNK):
        found = math.gcd(found, int(np.gcd.reduce(steps[at : at + CHUNK])))
        if found == 1:
            break
    return found


@dataclass(frozen=True, eq=False)
class Line:
    """A budget row over the survivors: lo ≤ Σ steps ≤ hi, limits less the base's use.

    steps [M]: difference of the column from the group's base. price: λ, 0 where the row has none. A float row's
    limits are loosened by all that rounding may do to its sums.
    """

    steps: NDArray[Any]
    lo: Number | None
    hi: Number | None
    price: float
    exact: bool

    def turned(self) -> Line:
        """The same row with the opposite sign."""
        hi, lo = (None if limit is None else -limit for limit in (self.lo, self.hi))
        return Line(-self.steps, lo, hi, -self.price, self.exact)

    def in_units(self) -> Line:
        """The same upper limit counted in the divisor of its steps."""
        unit = divisor(self.steps) if self.exact else 1
        if unit <= 1 or self.hi is None:
            return self
        price = self.price * unit * (1 + 2 * EPSILON)  # no less than it is
        return Line(self.steps // unit, None, int(self.hi) // unit, price, True)

    @property
    def paid(self) -> float:
        """λ·limit."""
        limit = self.hi if self.price > 0 else self.lo
        return 0.0 if not self.price or limit is None else self.price * float(limit)


@dataclass(frozen=True, eq=False)
class Survivors:
    """D groups that keep several choices, M choices in all; every other group takes its base.

    start [D]: first choice of each group. steps [M]: difference of the value from the group's base, which has 0.
    reduced [M]: no more than the true reduced value steps + Σ λ·line.steps. below: a better allocation has
    Σ steps < below, in exact arithmetic over the numbers in `steps` and the rounding that made them. total: Σ value
    of the base allocation. unit: all values are multiples of it and their sums exact, or None.
    """

    start: IntArray
    steps: FloatArray
    reduced: FloatArray
    lines: tuple[Line, ...]
    below: float
    total: float
    unit: float | None

    @cached_property
    def sizes(self) -> IntArray:
        """Choices per group [D]."""
        return np.diff(self.start, append=len(self.steps))

    @cached_property
    def negative(self) -> float:
        """How far rounding may take the reduced values of one allocation below 0, all together."""
        return math.fsum((-self.per_group(np.minimum, self.reduced)).tolist()) * (1 + EPSILON)

    @cached_property
    def room(self) -> float:
        """A choice whose reduced value is this much or more is in no better allocation."""
        parts = [self.below, self.negative, *(line.paid for line in self.lines)]
        return math.fsum(parts) + 4 * EPSILON * math.fsum(map(abs, parts)) + VANISHED * len(parts)

    @cached_property
    def reach(self) -> float:
        """No Σ steps is larger, up or down, whatever groups it is over."""
        return math.fsum(self.per_group(np.maximum, np.abs(self.steps)).tolist()) * (1 + EPSILON)

    @cached_property
    def blur(self) -> float:
        """How far rounding may move a running Σ steps."""
        return 0.0 if self.unit is not None else EPSILON * (len(self.start) + 4) * self.reach

    def one_sided(self) -> Survivors | None:
        """With one upper limit, a lower one turned round and 0 ≤ 0 for none; None where there are more limits."""
        if not self.lines:
            return dataclasses.replace(self, lines=(Line(np.zeros(len(self.steps), np.int64), None, 0, 0.0, True),))
        line = self.lines[0]
        if len(self.lines) > 1 or (line.lo is not None and line.hi is not None):
            return None
        return self if line.lo is None else dataclasses.replace(self, lines=(line.turned(),))

    def per_group(self, reduction: np.ufunc, column: NDArray[Any]) -> NDArray[Any]:
        """A reduction of a column [M] over each group [D]."""
        if not len(self.start):
            return column[:0]
        return np.asarray(reduction.reduceat(column, self.start))

    def kept(self, keep: BoolArray) -> Survivors:
        """Without some choices, and without the groups that are left with one."""
        counts = self.per_group(np.add, keep.astype(np.int64))
        keep = keep & np.repeat(counts > 1, self.sizes)
        counts = counts[counts > 1]
        lines = tuple(dataclasses.replace(line, steps=line.steps[keep]) for line in self.lines)
        return dataclasses.replace(
            self,
            start=np.cumsum(counts) - counts,
            steps=self.steps[keep],
            reduced=self.reduced[keep],
            lines=lines,
        )

    def in_order(self, order: IntArray) -> Survivors:
        """The groups in another order."""
        sizes = self.sizes[order]
        start = np.cumsum(sizes) - sizes
        rows = np.arange(len(self.steps)) + np.repeat(self.start[order] - start, sizes)
        lines = tuple(dataclasses.replace(line, steps=line.steps[rows]) for line in self.lines)
        return dataclasses.replace(self, start=start, steps=self.steps[rows], reduced=self.reduced[rows], lines=lines)
