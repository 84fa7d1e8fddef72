"""Checks `core` for pairs along a chain: the bound of the prices by min-sum, then every allocation that it leaves open.

Groups are put in a row so that each pair joins neighbours. With prices λ ≥ 0 of what the rows ask for, the least
Σ value + Σ pairs + Σ λ·use of all allocations is found stage by stage; less Σ λ·limit it is a bound. Under one side of
one row, `chain_lists` then looks for an allocation below the objective. Rounding is taken off, so that the bound and
the proof hold for the numbers of the file. A float row is floored to integers: what keeps it keeps those too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from allocator.checks.chain_lists import Stages, distinct, lightest
from allocator.checks.lagrangian import EPSILON, sides_of
from allocator.errors import UnsupportedError
from allocator.linear import Row
from allocator.quadratic import Quadratic
from allocator.statement import FloatArray, IntArray

MOST_STATES = 2_000_000  # in all lists: about a second
MOST_PAIRS = 1_000_000  # that a basis may become
LARGEST_SUM = 60  # a float row: Σ of the largest integers stays below 2^60
ROUNDINGS = 2, 16  # per stage and besides, of the size: more than sums along a chain can lose


@dataclass(frozen=True)
class ChainCheck:
    """bound: on Σ value + Σ pairs. proved: none is below total − tolerance. better: of one that is, to rounding."""

    bound: float
    proved: bool = False
    better: float | None = None


def check_chain(
    model: Quadratic, values: Sequence[float], total: float, tolerance: float, most_states: int = MOST_STATES
) -> ChainCheck | None:
    """A bound, and whether an allocation is optimal; None where the pairs do not form chains, or a group is stuck.

    Args:
        model: the objective.
        values: a price per budget row of the problem.
        total: Σ value + Σ pairs of the allocation in question.
        tolerance: by how much another may be better.
        most_states: at which the search gives up.
    """
    linear = model.linear
    value = linear.value.copy()
    try:
        pair, worth = model.as_pairs(MOST_PAIRS)
    except UnsupportedError:
        return None
    folded = _fold(model, value, pair, worth)
    pair, worth = folded.pair, folded.worth
    line = _in_line(linear.problem.group_of[pair], linear.problem.group_count)
    if line is None or not np.logical_or.reduceat(linear.free, linear.problem.indptr[:-1]).all():
        return None
    rows, tables = _tables(model, line, pair, worth)
    sides, constant = sides_of(linear, values), folded.constant
    size = folded.size + sum(float(np.abs(value[r]).max()) for r in rows)
    size += sum(float(np.abs(t).max()) for t in tables if t is not None)
    lost = EPSILON * (ROUNDINGS[0] * len(rows) + ROUNDINGS[1] + folded.terms)

    column, paid = value.copy(), [constant]
    for side in sides:
        column += side.price * side.row.column
        paid.append(-side.price * float(side.limit))
    dear = sum(float(np.abs(column[r] - value[r]).max()) for r in rows) + math.fsum(map(abs, paid))
    bound = math.fsum([_least([column[r] for r in rows], tables), *paid]) - 2 * lost * (size + dear)
    if bound >= total - tolerance:
        return ChainCheck(bound, proved=True)

    asked = [(r, sign) for r in linear.rows for sign, limit in ((1, r.hi), (-1, r.lo)) if limit is not None]
    if len(asked) != 1:
        return ChainCheck(bound)
    cost, room, unit = _integers(*asked[0], rows)
    price = unit * math.fsum(abs(s.price) for s in sides)
    slip = lost * (size + price * max(room, 0))
    if room < 0 or not 2 * slip < tolerance or not math.isfinite(price):
        return ChainCheck(bound)
    stages = Stages([value[r] for r in rows], cost, tables, room, price)
    below = total - constant - tolerance + slip
    found = lightest(stages, below, most_states)
    if found is None:
        return ChainCheck(bound)
    return ChainCheck(bound, proved=found >= below, better=found + constant if found < below - 2 * slip else None)


@dataclass(frozen=True, eq=False)
class _Folded:
    """Pairs that are left, the sum of those whose choices both stand, and what rounding is relative to besides.

    terms: numbers that one entry may have been summed from. size: of those.
    """

    pair: IntArray
    worth: FloatArray
    constant: float
    terms: int
    size: float


def _fold(model: Quadratic, value: FloatArray, pair: IntArray, worth: FloatArray) -> _Folded:
    """Pairs with a group of one choice become values of the other choice, in place."""
    group = model.problem.group_of
    alone = (np.bincount(group[model.linear.free], minlength=model.problem.group_count) == 1)[group[pair]]
    terms = len(model.eigenvalues)
    size = model.size if terms else 0.0
    for one, other in ((0, 1), (1, 0)):
        mine = alone[:, other] & ~alone[:, one]
        np.add.at(value, pair[mine, one], worth[mine])
        terms += int(np.bincount(pair[mine, one], minlength=1).max())
        size += float(np.abs(worth[mine]).sum())
    constant = math.fsum(worth[alone.all(axis=1)].tolist())
    left = ~alone.any(axis=1)
    return _Folded(pair[left], worth[left], constant, terms, size + abs(constant))


def _in_line(ends: IntArray, count: int) -> list[tuple[int, bool]] | None:
    """All groups in a row, each with whether it is joined with the one before; None where pairs do not form chains."""
    near: list[list[int]] = [[] for _ in range(count)]
    for key in distinct(ends[:, 0] * count + ends[:, 1]).tolist():
        g, h = divmod(key, count)
        near[g].append(h)
        near[h].append(g)
    if any(len(n) > 2 for n in near):
        return None
    line: list[tuple[int, bool]] = []
    waiting = [True] * count
    for end in range(count):
        if len(near[end]) == 2 or not waiting[end]:
            continue
        here, joined = end, False
        while here >= 0:
            line.append((here, joined))
            waiting[here] = False
            here, joined = next((h for h in near[here] if waiting[h]), -1), True
    return line if len(line) == count else None  # a ring has no end


def _tables(
    model: Quadratic, line: Sequence[tuple[int, bool]], pair: IntArray, worth: FloatArray
) -> tuple[list[IntArray], list[FloatArray | None]]:
    """The free rows of each stage, and the table between each stage and the one before (None: not joined)."""
    problem = model.problem
    free = np.flatnonzero(model.linear.free)
    first = np.searchsorted(free, problem.indptr)
    rows = [free[first[g] : first[g + 1]] for g, _ in line]
    place = np.searchsorted(free, pair) - first[problem.group_of[pair]]
    stage = np.empty(len(line), np.int64)
    stage[[g for g, _ in line]] = np.arange(len(line))
    at = stage[problem.group_of[pair]]
    turned = at[:, 0] > at[:, 1]
    place[turned] = place[turned, ::-1]
    late = at.max(axis=1)
    order = np.argsort(late, kind="stable")
    ends = np.searchsorted(late[order], np.arange(len(line) + 1)).tolist()
    tables: list[FloatArray | None] = []
    for i, (_, joined) in enumerate(line):
        table = np.zeros((len(rows[i - 1]), len(rows[i]))) if joined else None
        if table is not None:
            part = order[ends[i] : ends[i + 1]]
            table[place[part, 0], place[part, 1]] = worth[part]
        tables.append(table)
    return rows, tables


def _least(columns: Sequence[FloatArray], tables: Sequence[FloatArray | None]) -> float:
    """The least sum along the line."""
    reached = columns[0]
    for column, table in zip(columns[1:], tables[1:], strict=True):
        before = reached.min() if table is None else (reached[:, None] + table).min(axis=0)
        reached = before + column
    return float(reached.min())


def _integers(row: Row, sign: int, rows: Sequence[IntArray]) -> tuple[list[IntArray], int, float]:
    """Uses over each stage's least, the room above all of those, and how much of the row one unit is."""
    limit = row.hi if sign > 0 else row.lo
    assert limit is not None
    if row.exact:
        uses, room, power = [sign * row.column[r] for r in rows], sign * int(limit), 0
    else:
        parts = [sign * row.column[r].astype(np.float64) for r in rows]
        power = LARGEST_SUM - 1 - math.frexp(sum(float(np.abs(p).max()) for p in parts) or 1.0)[1]
        uses = [np.floor(np.ldexp(p, power)).astype(np.int64) for p in parts]
        room = math.floor(Fraction(sign * float(limit)) * Fraction(2) ** power) + len(rows)
    least = [int(u.min()) for u in uses]
    return [u - m for u, m in zip(uses, least, strict=True)], room - sum(least), math.ldexp(1.0, -power)
