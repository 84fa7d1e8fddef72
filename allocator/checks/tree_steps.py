"""Bounds of a tree check that keep one row in integers: a dynamic programme over the uses of that row.

For prices of the other rows let p be the priced values. On any allocation that keeps the row,
Σ value ≥ base + Σ p(x_g), and F[d, w] = min Σ_{groups ≥ d} p over choices whose uses exceed their groups' least by
w steps of the divisor at most. So base + p(taken) + F[d, steps left] bounds a node, from both ends a choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from allocator.checks.tree_rest import Rest
from allocator.statement import FloatArray, IntArray

MOST_WIDTH = 1 << 14
MOST_CELLS = 12_000_000  # of all tables together
Spans = list[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Steps:
    """Priced column [n], steps [n] above the least, tables F [D + 1, width + 1], least use of the rest [D + 1].

    row: place among the rows; sign: −1 where its min is kept. base: what sums are added to, rounding taken off.
    """

    row: int
    sign: int
    limit: int
    divisor: int
    base: float
    column: FloatArray
    steps: IntArray
    table: FloatArray
    least: list[int]

    def rest(self, depth: int, use: IntArray) -> FloatArray:
        """F of nodes [B] at a depth from their use of the row; they can still keep it."""
        left = (self.limit - self.sign * use - self.least[depth]) // self.divisor
        return np.asarray(self.table[depth, np.minimum(left, self.table.shape[1] - 1)])


def narrowed(rest: Rest, whole: int, vectors: list[tuple[float, ...]], target: float) -> bool:
    """Drop choices whose bound reaches the target; False where nothing is left."""
    spans = list(pairwise(rest.indptr.tolist()))
    alive = np.ones(len(rest.choices), bool)
    for stair in _different(rest, whole, vectors, spans):
        alive &= _through(stair, spans) < target
    return bool(alive.all()) or rest.narrow(alive)


def stairs_of(rest: Rest, whole: int, vectors: list[tuple[float, ...]], spans: Spans) -> list[Steps]:
    """Tables for the groups in the order of `spans`, those of the last vectors where there is no room for all."""
    found: list[Steps] = []
    for stair in _different(rest, whole, vectors[::-1], spans):
        if (len(found) + 1) * stair.table.size > MOST_CELLS:
            break
        found.append(stair)
    return found


def _different(rest: Rest, whole: int, vectors: list[tuple[float, ...]], spans: Spans) -> Iterator[Steps]:
    seen = set()
    for vector in vectors:
        others = tuple(0.0 if i == whole else v for i, v in enumerate(vector))
        if others in seen:
            continue
        seen.add(others)
        stair = _steps(rest, whole, others, spans)
        if stair is None:
            return
        yield stair


def _steps(rest: Rest, whole: int, others: tuple[float, ...], spans: Spans) -> Steps | None:
    place = next((i for i, r in enumerate(rest.rows) if r.row.budget == whole and r.row.exact), None)
    if place is None or not spans:
        return None
    row = rest.rows[place]
    limit, sign = (row.hi, 1) if row.hi is not None else (row.lo, -1)
    divisor = int(np.gcd.reduce(row.use))
    if limit is None or not divisor:
        return None
    use = sign * row.use
    steps = np.zeros(len(use), np.int64)
    least = [0]
    for s, e in reversed(spans):
        low = int(use[s:e].min())
        steps[s:e] = (use[s:e] - low) // divisor
        least.append(least[-1] + low)
    width = (sign * int(limit) - least[-1]) // divisor
    if not 0 <= width < MOST_WIDTH or width * len(spans) > MOST_CELLS:
        return None
    column, parts, error = rest.priced(others)
    table = np.full((len(spans) + 1, width + 1), np.inf)
    table[-1] = 0.0
    for d in range(len(spans) - 1, -1, -1):
        for c in range(*spans[d]):
            if (u := int(steps[c])) <= width:
                np.minimum(table[d, u:], table[d + 1, : width + 1 - u] + column[c], out=table[d, u:])
    return Steps(place, sign, sign * int(limit), divisor, math.fsum(parts) - error, column, steps, table, least[::-1])


def _through(stair: Steps, spans: Spans) -> FloatArray:
    """The bound with each choice taken [n]."""
    width = stair.table.shape[1] - 1
    found = np.full(len(stair.column), np.inf)
    before = np.zeros(width + 1)
    for d, span in enumerate(spans):
        now = np.full(width + 1, np.inf)
        for c in range(*span):
            u = int(stair.steps[c])
            if u <= width:
                moved = before[: width + 1 - u] + stair.column[c]
                found[c] = (moved + stair.table[d + 1, : width + 1 - u][::-1]).min()
                np.minimum(now[u:], moved, out=now[u:])
        before = now
    return stair.base + found
