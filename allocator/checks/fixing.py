"""Fixes choices by reduced cost, and tightens limits and target by divisors.

With base = the choice of smallest priced value in each group, Δ = difference from the base, and
room = target − Σ value(base) + Σ_r λ_r·(limit_r − use_r(base)), an allocation x that keeps the rows has
Σ value(x) ≥ target − room + Σ_g reduced(x_g), where reduced = Δvalue + Σ_r λ_r·Δcolumn_r ≥ 0. So

- a choice whose reduced value is `room` or more is in no better allocation. The choices that stay are a superset
  of what better allocations use, and a group that keeps only its base is fixed;
- an exact row: every better allocation uses use(base) + a multiple of g, the greatest common divisor of the
  survivors' Δcolumn, so its limit may move inwards to the last such number, and the room shrinks by λ times that;
- values on a common grid k·2^e: every better allocation has Σ Δvalue = a multiple of h, the greatest common
  divisor of the survivors' Δvalue, below target − Σ value(base), so the target may drop to between the last such
  multiple and the next.

Both divisors hold for sums of survivors only, fixed groups adding nothing: they are used from the second fixing
on. What they rule out can make them larger, so it goes on until nothing changes.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np

from allocator.blocks import spans
from allocator.checks.lagrangian import EPSILON, VANISHED, Scan, Side, lowered
from allocator.checks.survivors import CHUNK, Line, Survivors, divisor
from allocator.linear import Linear, Row
from allocator.statement import FloatArray, IntArray, Number
from allocator.sums import exact_sum

MOST_SURVIVORS = 4_000_000
EXACT_BITS = 52


class TooManyError(Exception):
    """The prices leave more choices than are worth looking at."""


def fix(linear: Linear, found: Scan, target: float) -> Survivors | None:
    """What may be in an allocation with Σ value < target; None where nothing may.

    Args:
        linear: the separable view.
        found: minima and bound at the prices.
        target: what better means.

    Raises:
        TooManyError: more than 4 million choices stay at the first fixing.
    """
    survivors = _relative(linear, found.sides, *_collected(linear, found, target), target)
    while survivors.room > 0:
        smaller = survivors.kept(survivors.reduced < survivors.room)
        tighter = _tightened(smaller)
        if tighter is None:
            return None
        if tighter is smaller and len(smaller.steps) == len(survivors.steps):
            return smaller
        survivors = tighter
    return None


def _collected(linear: Linear, found: Scan, target: float) -> tuple[IntArray, IntArray]:
    """The base allocation [G], and the rows of all survivors in groups that have several, in order."""
    problem, whole = linear.problem, linear.whole
    room = (target - found.bound) * (1 + 4 * EPSILON)
    base = np.empty(problem.group_count, np.int64)
    several: list[IntArray] = []
    count = 0
    for span in spans(problem):
        column, minima = lowered(linear, found.sides, span.rows, whole), found.minima[span.groups]
        if problem.width is not None:
            alive = (column.reshape(-1, problem.width) - minima[:, None] < room).ravel()
        else:
            sizes = problem.sizes[span.groups]
            alive = column - np.repeat(minima, sizes) < room
        rows = np.flatnonzero(alive)
        if len(rows) > len(minima):
            group = _groups(problem.indptr[span.groups] - span.rows.start, problem.width, rows)
            alone = (np.bincount(group, minlength=len(minima)) == 1)[group]
            open_rows = rows[~alone] + span.rows.start
            several.append(open_rows)
            count += len(open_rows)
            at_minimum = column[rows] == minima[group]  # of several, any one will do
            base[group[at_minimum] + span.groups.start] = rows[at_minimum] + span.rows.start
        else:
            base[span.groups] = rows + span.rows.start
        if count > MOST_SURVIVORS:
            raise TooManyError
    return base, np.concatenate(several) if several else np.empty(0, np.int64)


def _groups(start: IntArray, width: int | None, rows: IntArray) -> IntArray:
    return rows // width if width is not None else np.searchsorted(start, rows, side="right") - 1


def _relative(linear: Linear, sides: tuple[Side, ...], base: IntArray, rows: IntArray, target: float) -> Survivors:
    """Everything as a difference from the base allocation."""
    group = _groups(linear.problem.indptr[:-1], linear.problem.width, rows)
    first = np.flatnonzero(np.diff(group, prepend=-1))
    origin = base[group]
    steps = linear.value[rows] - linear.value[origin]
    prices = {id(side.row): side.price for side in sides}
    lines = tuple(_line(row, prices.get(id(row), 0.0), base, rows, origin, first) for row in linear.rows)
    reduced, size = steps.copy(), np.abs(steps)
    for line in lines:
        if line.price:
            part = line.price * line.steps
            reduced += part
            size += np.abs(part)
    reduced -= 4 * EPSILON * (len(lines) + 1) * size + VANISHED * len(lines)
    reduced[rows == origin] = 0.0
    taken = linear.value[base]
    room = -exact_sum(taken, -target)
    room += 4 * EPSILON * abs(room)
    unit = _unit(linear, rows, steps, first)
    if unit is None:  # what rounding did to `steps`
        room += EPSILON * _sum_of_largest(steps, first)
    return Survivors(first, steps, reduced, lines, room, exact_sum(taken), unit)


def _line(row: Row, price: float, base: IntArray, rows: IntArray, origin: IntArray, first: IntArray) -> Line:
    steps = row.column[rows] - row.column[origin]
    taken = row.column[base]
    if row.exact:
        use = int(taken.sum())
        low, high = (None if limit is None else int(limit) - use for limit in (row.lo, row.hi))
        return Line(steps, low, high, price, True)
    reach = _sum_of_largest(steps, first)

    def rest(limit: Number | None, sign: int) -> float | None:
        if limit is None:
            return None
        left = -exact_sum(taken, -limit)
        return left + sign * EPSILON * (len(first) + 8) * (abs(left) + reach)

    return Line(steps, rest(row.lo, -1), rest(row.hi, 1), price, False)


def _sum_of_largest(steps: FloatArray, first: IntArray) -> float:
    return float(np.maximum.reduceat(np.abs(steps), first).sum()) * (1 + 1e-9) if len(first) else 0.0


def _unit(linear: Linear, rows: IntArray, steps: FloatArray, first: IntArray) -> float | None:
    """A power of two of which all survivors' values are multiples, and whose multiples add up exactly; or None."""
    if linear.power != 1 or not len(rows):
        return None
    values = linear.value[rows]
    largest = 4 * max(float(np.abs(values).max()), _sum_of_largest(steps, first))
    exponent = math.frexp(largest)[1] - EXACT_BITS
    if not -1000 < exponent < 900:
        return None
    scaled = np.ldexp(values[:CHUNK], -exponent)
    if (np.rint(scaled) != scaled).any():
        return None
    scaled = np.ldexp(values, -exponent)
    return math.ldexp(1.0, exponent) if (np.rint(scaled) == scaled).all() else None


def _tightened(survivors: Survivors) -> Survivors | None:
    """Limits and target moved to what sums can reach; the same object where they stay, None where a row is broken."""
    lines = []
    for line in survivors.lines:
        new = _moved(line, survivors)
        if new is None:
            return None
        lines.append(new)
    below = survivors.below
    if survivors.unit is not None:
        whole = (survivors.steps / survivors.unit).astype(np.int64)
        h = Fraction(survivors.unit) * divisor(whole)
        if h:
            reached = Fraction(below) // h  # no better Σ steps is above h·reached
            below = min(below, float(h * reached + h / 2))
    if below == survivors.below and all(a is b for a, b in zip(lines, survivors.lines, strict=True)):
        return survivors
    return dataclasses.replace(survivors, lines=tuple(lines), below=below)


def _moved(line: Line, survivors: Survivors) -> Line | None:
    if not line.exact:
        return line
    least_, most = (sum(survivors.per_group(extreme, line.steps).tolist()) for extreme in (np.minimum, np.maximum))
    g = divisor(line.steps) or 1
    hi = None if line.hi is None else min(int(line.hi), most) // g * g
    lo = None if line.lo is None else -(-max(int(line.lo), least_) // g * g)
    if (hi is not None and hi < least_) or (lo is not None and lo > most):
        return None
    return line if (lo, hi) == (line.lo, line.hi) else dataclasses.replace(line, lo=lo, hi=hi)
