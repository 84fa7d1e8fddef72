"""What a tree check still has to decide: open groups, the limits left to them, and bounds on them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.checks.lagrangian import EPSILON, VANISHED, active
from allocator.linear import Linear, Row
from allocator.statement import BoolArray, FloatArray, IntArray, Number

EXTREMES = (np.minimum, np.maximum)


@dataclass(eq=False)
class OpenRow:
    """A row over the open choices: use [n], int64 where exact, and what settled groups leave of its limits.

    slip: rounding that a sum of a float row, its settled part and its limits may carry.
    """

    use: NDArray[Any]
    hi: Number | None
    lo: Number | None
    slip: Number
    row: Row


@dataclass(eq=False)
class Rest:
    """Groups that are not decided: rows of their choices [n], first of each [D + 1], value [n].

    settled: values of what is decided. size: Σ largest |value| of all groups. lost: rounding in the values.
    """

    linear: Linear
    choices: IntArray
    indptr: IntArray
    value: FloatArray
    rows: list[OpenRow]
    settled: list[float] = field(default_factory=list)
    size: float = 0.0
    lost: float = 0.0

    @staticmethod
    def of(linear: Linear) -> Rest:
        """All groups, of which those with one free choice are settled."""
        problem = linear.problem
        start = problem.indptr[:-1]
        largest = np.maximum.reduceat(np.where(linear.free, np.abs(linear.value), 0.0), start)
        size = math.fsum(largest.tolist())
        lost = EPSILON * (8 + 16 * linear.power) * size if linear.power != 1 else 0.0  # powers round
        choices = np.flatnonzero(linear.free)
        sizes = np.add.reduceat(linear.free.astype(np.int64), start)
        rows = []
        for row in linear.rows:
            slip: Number = 0  # an integer: 0.0 would turn the limits of exact rows into floats
            use = row.column[choices]
            if not row.exact:
                use = use.astype(np.float64)
                most = np.maximum.reduceat(np.where(linear.free, np.abs(row.column), 0.0), start)
                limits = abs(float(row.hi or 0)) + abs(float(row.lo or 0))
                slip = 8 * EPSILON * (len(start) + 4) * (math.fsum(most.tolist()) + limits)
            rows.append(OpenRow(use, row.hi, row.lo, slip, row))
        rest = Rest(
            linear, choices, np.concatenate([[0], np.cumsum(sizes)]), linear.value[choices], rows, [], size, lost
        )
        rest.narrow(np.ones(len(choices), bool))
        return rest

    @property
    def sizes(self) -> IntArray:
        """Choices per open group [D]."""
        return np.diff(self.indptr)

    def narrow(self, alive: BoolArray) -> bool:
        """Keep these choices; groups with one of them are settled. False where a group has none."""
        at, sizes = self.indptr[:-1], self.sizes
        count = np.add.reduceat(alive.astype(np.int64), at) if len(at) else sizes
        if not count.all():
            return False
        single = alive & np.repeat(count == 1, sizes)
        stays = alive & ~single
        self.settled += self.value[single].tolist()
        self.choices, self.value = self.choices[stays], self.value[stays]
        self.indptr = np.concatenate([[0], np.cumsum(count[count > 1])])
        for row in self.rows:
            used = total(row.use[single])
            row.use = row.use[stays]
            if row.row.exact and len(row.use):  # differences to the first choice: small numbers round less
                first = row.use[self.indptr[:-1]]
                used += total(first)
                row.use = row.use - np.repeat(first, self.sizes)
            row.hi = None if row.hi is None else row.hi - used
            row.lo = None if row.lo is None else row.lo - used
        return True

    def tighten(self) -> bool:
        """Move limits to what sums can reach, drop those that cannot be broken; False where one must be."""
        for row in self.rows:
            least, most = (total(f.reduceat(row.use, self.indptr[:-1])) if len(row.use) else 0 for f in EXTREMES)
            divisor = int(np.gcd.reduce(row.use)) if row.row.exact and len(row.use) else 0
            if row.hi is not None:
                if least > row.hi + row.slip:
                    return False
                row.hi -= (row.hi - least) % divisor if divisor else 0
                row.hi = None if row.row.exact and row.hi >= most else row.hi
            if row.lo is not None:
                if most < row.lo - row.slip:
                    return False
                row.lo += (most - row.lo) % divisor if divisor else 0
                row.lo = None if row.row.exact and row.lo <= least else row.lo
        return True

    def reachable(self) -> BoolArray:
        """Choices [n] with which the other groups can still keep every row."""
        fits = np.ones(len(self.value), bool)
        if not len(fits):
            return fits
        at, sizes = self.indptr[:-1], self.sizes
        for row in self.rows:
            least, most = (f.reduceat(row.use, at) for f in EXTREMES)
            if row.hi is not None:
                fits &= row.use - np.repeat(least, sizes) <= row.hi - total(least) + row.slip
            if row.lo is not None:
                fits &= row.use - np.repeat(most, sizes) >= row.lo - total(most) - row.slip
        return fits

    def bounds(self, vectors: list[tuple[float, ...]]) -> tuple[FloatArray, FloatArray]:
        """Per vector the bound on Σ value [K], rounding taken off, and reduced values [K, n]."""
        at, sizes = self.indptr[:-1], self.sizes
        found, reduced = [], []
        for vector in vectors:
            column, parts, error = self.priced(vector)
            least = np.minimum.reduceat(column, at) if len(at) else column
            found.append(math.fsum([*least.tolist(), *parts]) - error)
            reduced.append(column - np.repeat(least, sizes))
        return np.array(found), np.array(reduced)

    def priced(self, vector: tuple[float, ...]) -> tuple[FloatArray, list[float], float]:
        """Values [n] with the rows at these prices, what is added to a sum of them, and what its rounding may be."""
        at = self.indptr[:-1]
        terms = 2 * (3 * len(at) + 4 * len(self.rows) + 16)
        column, parts, size, lost = self.value.copy(), [*self.settled], self.size, self.lost
        for row in self.rows:
            price, limit = self._active(row, vector)
            if not price:
                continue
            part = price * row.use.astype(np.float64)
            column += part
            parts.append(-price * limit)
            size += abs(price * limit) + total(np.maximum.reduceat(np.abs(part), at) if len(at) else part)
            lost += abs(price) * row.slip + VANISHED * (len(at) + 1)
        return column, parts, EPSILON * terms * size + lost

    def _active(self, row: OpenRow, vector: tuple[float, ...]) -> tuple[float, float]:
        price, _ = active(row.row, vector)
        limit = row.hi if price > 0 else row.lo
        return (price, float(limit)) if price and limit is not None else (0.0, 0.0)


def total(values: NDArray[Any]) -> Number:
    """The sum, exact for integers, correctly rounded for floats."""
    numbers = values.tolist()
    return sum(numbers) if values.dtype.kind == "i" else math.fsum(numbers)
