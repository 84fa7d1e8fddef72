"""Checks `tree`: grows the cover of the search space again, by the price vectors and the order it names.

1. Fixing. An allocation x with Σ value < target has, under every vector λ, bound(λ) + Σ_g reduced(λ, x_g) < target
   where reduced = priced value − its group's minimum ≥ 0: a choice with bound + reduced ≥ target goes. A choice
   goes too where the least that the other groups use breaks a row. What stays is all that such an x may use;
   on it uses are a base plus multiples of the divisor of all differences within groups, so that limits move to
   the nearest such number; and minima are larger. Repeated until nothing goes.
2. Nodes. Groups that keep several choices are split in order, all nodes of a block at once. A node is closed when
   a vector's bound for it reaches the target or the rest of the groups cannot keep a row. Proved when no node is
   open at the end: the closed nodes and the fixed choices cover every allocation.

Integers decide for exact rows. Floats: what rounding may add is taken off bounds and given to limits, so that
a check may fail but never proves what is false.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.certificate_tree import Tree
from allocator.checks.lagrangian import EPSILON, VANISHED, active
from allocator.linear import SMALL, Linear, Row
from allocator.statement import BoolArray, FloatArray, IntArray, Number

MOST_NODES = 20_000_000
BLOCK = 1 << 13
ROUNDS = 20
EXTREMES = (np.minimum, np.maximum)
MOST_VECTORS = 256


@dataclass(frozen=True)
class TreeCheck:
    """proved: nothing that keeps the rows is below the target. nodes: looked at."""

    proved: bool
    nodes: int = 0


def check_tree(linear: Linear, tree: Tree, total: float, tolerance: float, most_nodes: int = MOST_NODES) -> TreeCheck:
    """Whether no allocation keeps every row (couplings aside) with Σ value < total − tolerance.

    Args:
        linear: separable view.
        tree: any; a bad one proves nothing.
        total: Σ value of the allocation in question; infinite to ask whether nothing is feasible at all.
        tolerance: absolute, on Σ value.
        most_nodes: more of them, and nothing is proved.
    """
    if math.isnan(total) or (linear.power != 1 and total < SMALL):
        return TreeCheck(proved=False)
    if not np.logical_or.reduceat(linear.free, linear.problem.indptr[:-1]).all():
        return TreeCheck(proved=True)
    target = min(total - tolerance / 2, _above_all(linear))
    vectors = _usable(linear, tree.vectors)
    rest = _Rest.of(linear)
    for _ in range(ROUNDS):
        if not rest.tighten():
            return TreeCheck(proved=True)
        bounds, reduced = rest.bounds(vectors)
        if bounds.max() >= target:
            return TreeCheck(proved=True)
        alive = ((bounds[:, None] + reduced).max(axis=0) < target) & rest.reachable()
        if alive.all():
            break
        if not rest.narrow(alive):
            return TreeCheck(proved=True)
    if not rest.tighten():
        return TreeCheck(proved=True)
    bounds, reduced = rest.bounds(vectors)
    if bounds.max() >= target:
        return TreeCheck(proved=True)
    best = np.argsort(-bounds, kind="stable")
    return _exhausted(rest, bounds[best], reduced[best], tree.order, target, most_nodes)


def _above_all(linear: Linear) -> float:
    """A number above the Σ value of every allocation."""
    most = np.maximum.reduceat(np.where(linear.free, linear.value, -np.inf), linear.problem.indptr[:-1])
    return math.fsum(most.tolist()) + 4 * EPSILON * math.fsum(np.abs(most).tolist()) + 1e-300


def _usable(linear: Linear, vectors: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    """The vectors as numbers, and zeros: at the end of a path these give its Σ value."""
    found = [(0.0,) * len(linear.problem.budgets)]
    for vector in list(vectors)[:MOST_VECTORS]:
        try:
            found.append(tuple(float(v) for v in vector))
        except (TypeError, ValueError, OverflowError):
            continue
    return found


@dataclass(eq=False)
class _Row:
    """A row over the open choices: use [n], int64 where exact, and what settled groups leave of its limits.

    slip: rounding that a sum of a float row, its settled part and its limits may carry.
    """

    use: NDArray[Any]
    hi: Number | None
    lo: Number | None
    slip: Number
    row: Row


@dataclass(eq=False)
class _Rest:
    """Groups that are not decided: rows of their choices [n], first of each [D + 1], value [n].

    settled: values of what is decided. size: Σ largest |value| of all groups. lost: rounding in the values.
    """

    linear: Linear
    choices: IntArray
    indptr: IntArray
    value: FloatArray
    rows: list[_Row]
    settled: list[float] = field(default_factory=list)
    size: float = 0.0
    lost: float = 0.0

    @staticmethod
    def of(linear: Linear) -> _Rest:
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
            rows.append(_Row(use, row.hi, row.lo, slip, row))
        rest = _Rest(
            linear, choices, np.concatenate([[0], np.cumsum(sizes)]), linear.value[choices], rows, [], size, lost
        )
        rest.narrow(np.ones(len(choices), bool))
        return rest

    @property
    def sizes(self) -> IntArray:
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
            used = _total(row.use[single])
            row.use = row.use[stays]
            if row.row.exact and len(row.use):  # differences to the first choice: small numbers round less
                first = row.use[self.indptr[:-1]]
                used += _total(first)
                row.use = row.use - np.repeat(first, self.sizes)
            row.hi = None if row.hi is None else row.hi - used
            row.lo = None if row.lo is None else row.lo - used
        return True

    def tighten(self) -> bool:
        """Move limits to what sums can reach, drop those that cannot be broken; False where one must be."""
        for row in self.rows:
            least, most = (_total(f.reduceat(row.use, self.indptr[:-1])) if len(row.use) else 0 for f in EXTREMES)
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
                fits &= row.use - np.repeat(least, sizes) <= row.hi - _total(least) + row.slip
            if row.lo is not None:
                fits &= row.use - np.repeat(most, sizes) >= row.lo - _total(most) - row.slip
        return fits

    def bounds(self, vectors: list[tuple[float, ...]]) -> tuple[FloatArray, FloatArray]:
        """Per vector the bound on Σ value [K], rounding taken off, and reduced values [K, n]."""
        at, sizes = self.indptr[:-1], self.sizes
        found, reduced = [], []
        terms = 2 * (3 * len(at) + 4 * len(self.rows) + 16)
        for vector in vectors:
            column, parts, size, lost = self.value.copy(), [*self.settled], self.size, self.lost
            for row in self.rows:
                price, limit = self._active(row, vector)
                if not price:
                    continue
                part = price * row.use.astype(np.float64)
                column += part
                parts.append(-price * limit)
                size += abs(price * limit) + _total(np.maximum.reduceat(np.abs(part), at) if len(at) else part)
                lost += abs(price) * row.slip + VANISHED * (len(at) + 1)
            least = np.minimum.reduceat(column, at) if len(at) else column
            found.append(math.fsum([*least.tolist(), *parts]) - EPSILON * terms * size - lost)
            reduced.append(column - np.repeat(least, sizes))
        return np.array(found), np.array(reduced)

    def _active(self, row: _Row, vector: tuple[float, ...]) -> tuple[float, float]:
        price, _ = active(row.row, vector)
        limit = row.hi if price > 0 else row.lo
        return (price, float(limit)) if price and limit is not None else (0.0, 0.0)


def _total(values: NDArray[Any]) -> Number:
    """The sum, exact for integers, correctly rounded for floats."""
    numbers = values.tolist()
    return sum(numbers) if values.dtype.kind == "i" else math.fsum(numbers)


@dataclass(frozen=True, eq=False)
class _Block:
    """Nodes of one depth: bounds [B, K] and uses per row [B]."""

    depth: int
    bounds: FloatArray
    uses: list[NDArray[Any]]


def _exhausted(
    rest: _Rest, bounds: FloatArray, reduced: FloatArray, order: Sequence[int], target: float, most_nodes: int
) -> TreeCheck:
    spans = _ordered_spans(rest, order)
    tails = [_tails(row.use, spans) for row in rest.rows]
    stack = [_Block(0, bounds[None], [np.zeros(1, row.use.dtype) for row in rest.rows])]
    nodes = 0
    while stack:
        block = stack.pop()
        if block.depth == len(spans):
            return TreeCheck(proved=False, nodes=nodes)
        s, e = spans[block.depth]
        nodes += len(block.bounds) * (e - s)
        if nodes > most_nodes:
            return TreeCheck(proved=False, nodes=nodes)
        keep = block.bounds[:, :1] + reduced[0, s:e] < target
        uses = []
        for row, used, (least, most) in zip(rest.rows, block.uses, tails, strict=True):
            use = used[:, None] + row.use[s:e]
            if row.hi is not None:
                keep &= use + least[block.depth + 1] <= row.hi + row.slip
            if row.lo is not None:
                keep &= use + most[block.depth + 1] >= row.lo - row.slip
            uses.append(use)
        node, choice = np.nonzero(keep)
        wider = block.bounds[node] + reduced[:, s:e].T[choice]
        still = wider.max(axis=1) < target
        node, choice, wider = node[still], choice[still], wider[still]
        for first in range(0, len(node), BLOCK):
            part = slice(first, first + BLOCK)
            kept = [use[node[part], choice[part]] for use in uses]
            stack.append(_Block(block.depth + 1, wider[part], kept))
    return TreeCheck(proved=True, nodes=nodes)


def _ordered_spans(rest: _Rest, order: Sequence[int]) -> list[tuple[int, int]]:
    """First and last choice of each open group: the named groups in their order, then the others."""
    groups = rest.linear.problem.group_of[rest.choices[rest.indptr[:-1]]].tolist()
    place = {g: i for i, g in reversed(list(enumerate(order)))}
    ranked = sorted(range(len(groups)), key=lambda i: (place.get(groups[i], len(place) + len(order)), i))
    return [(int(rest.indptr[i]), int(rest.indptr[i + 1])) for i in ranked]


def _tails(use: NDArray[Any], spans: list[tuple[int, int]]) -> tuple[list[Number], list[Number]]:
    """Least and most use by the groups from each depth on."""
    least: list[Number] = [0]
    most: list[Number] = [0]
    for s, e in reversed(spans):
        least.append(least[-1] + use[s:e].min().item())
        most.append(most[-1] + use[s:e].max().item())
    return least[::-1], most[::-1]
