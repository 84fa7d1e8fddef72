"""The lower convex hull of every group, and all its edges in the order in which a growing budget takes them.

Minimising Σ value + λ·Σ cost for a falling λ ≥ 0 starts at every group's cheapest choice and walks along the
groups' hulls, steepest edge first (Sinha and Zoltners 1979; the greedy of Fox 1966 on convex groups). Each
prefix of that walk minimises Σ value + λ·Σ cost for the λ between its last edge's slope and the next one's, so
nothing of the same or smaller Σ cost has a smaller Σ value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.engine import native
from allocator.statement import BoolArray, FloatArray, IntArray
from allocator.sums import exact_sum

BLOCK = 2**15  # groups looked at together
PAIRWISE = 4096  # drops summed in a row before the running total is renewed in twice the precision
TINY = 2.0**-500  # values below it are scaled up: a slope, value over cost, must not lose digits
BUCKETS = 65536  # as in hull.c


@dataclass(frozen=True, eq=False)
class Hull:
    """A walk from the cheapest allocation to one of least value.

    base [G] int32: the cheapest choice of each group, of least value among equals, then the first.
    Move m makes group[m] take choice[m] ([M] int32, places within the group); slope [M] float64, falling, is what
    it takes off the value per unit of cost (above 0, but where it underflows). Edges of equal slope stand by group,
    and within a group by cost; a choice on the line between two others is a vertex too. costs [M+1] int64 and
    values [M+1] float64 are the running totals, before the first move on; values are summed from the small end, so
    that each is right to about 1e-14 of itself where no value is negative.
    """

    base: NDArray[np.int32]
    group: NDArray[np.int32]
    choice: NDArray[np.int32]
    slope: FloatArray
    costs: IntArray
    values: FloatArray


def hull_moves(value: FloatArray, cost: IntArray, indptr: IntArray, free: BoolArray | None = None) -> Hull:
    """All hull edges of all groups, steepest first.

    Args:
        value: [N] finite, of any sign.
        cost: [N] int64 of any sign, Σ |cost| below 2^63.
        indptr: [G+1], group g owns rows indptr[g]:indptr[g+1].
        free: [N] choices that may be taken; None: all.

    A slope is (value − value') / (cost' − cost) in float64, off by at most 4e-16 of itself, and hulls and order are
    decided by these numbers alone. An allocation on the walk is therefore at most 1e-15·Σ_g max|value| worse than
    the best of its cost: "exactly optimal" holds within 1e-12 of the size of the numbers, with room to spare.

    The C kernel needs beside the result the moves of the fullest 32nd of an octave of slopes twice (16 bytes each).

    Raises:
        ValueError: a group has nothing to take.
    """
    value, cost = np.ascontiguousarray(value, np.float64), np.ascontiguousarray(cost, np.int64)
    indptr = np.ascontiguousarray(indptr, np.int64)
    free = None if free is None or free.all() else np.ascontiguousarray(free)
    largest = max(float(value.max()), -float(value.min()))
    power = -math.frexp(largest)[1] if 0 < largest < TINY else 0
    kernel = native()
    columns = (value, np.ldexp(value, power) if power else value, cost, indptr, free)
    walk = _in_numpy(*columns) if kernel is None else _in_c(kernel, *columns)
    walk.values[-1] = exact_sum(value[indptr[:-1] + walk.last])
    _rise(walk.values)
    slope = np.ldexp(walk.slope, -power) if power else walk.slope
    return Hull(walk.base, walk.group, walk.choice, slope, walk.costs, walk.values)


@dataclass(frozen=True, eq=False)
class _Walk:
    """A hull in the making: `values` still holds what each move takes off; last [G] is where the walk ends."""

    base: NDArray[np.int32]
    last: NDArray[np.int32]
    group: NDArray[np.int32]
    choice: NDArray[np.int32]
    slope: FloatArray
    costs: IntArray
    values: FloatArray


def _rise(values: FloatArray) -> None:
    """Running totals in place of drops, from the end: out[m] = values[-1] + Σ values[m:-1], never falling towards 0."""
    high, low = float(values[-1]), 0.0
    for end in range(len(values) - 1, 0, -PAIRWISE):
        part = values[max(end - PAIRWISE, 0) : end]
        add = float(part.sum()) + low
        part[:] = (high + (low + np.cumsum(part[::-1])))[::-1]
        np.maximum(part, values[end], out=part)  # blocks may disagree in the last digit
        total = high + add
        low = add - (total - high) if abs(high) >= abs(add) else high - (total - add)
        high = total


def _at(array: NDArray[Any] | None) -> int:
    return 0 if array is None else array.ctypes.data


def _in_c(
    kernel: Any, value: FloatArray, scaled: FloatArray, cost: IntArray, indptr: IntArray, free: BoolArray | None
) -> _Walk:
    groups = len(indptr) - 1
    base, histogram = np.empty(groups, np.int32), np.empty(BUCKETS, np.int64)
    columns = (_at(scaled), _at(cost), _at(indptr), _at(free), groups)
    count = kernel.hull_count(*columns, _at(base), _at(histogram))
    if count < 0:
        raise _stuck(-2 - count)
    group, choice, slope = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count)
    kernel.hull_order(*columns, _at(histogram), _at(group), _at(choice), _at(slope))
    costs, values, now = np.empty(count + 1, np.int64), np.empty(count + 1), base.copy()
    costs[0] = cost[indptr[:-1] + base].sum()
    moves = (_at(now), _at(group), _at(choice))
    kernel.hull_walk(_at(value), _at(cost), _at(indptr), count, *moves, _at(costs), _at(values))
    return _Walk(base, now, group, choice, slope, costs, values)


def _in_numpy(value: FloatArray, scaled: FloatArray, cost: IntArray, indptr: IntArray, free: BoolArray | None) -> _Walk:
    """The same as the C kernels, in blocks of groups of equal size."""
    kept = None if free is None else np.flatnonzero(free)
    start = indptr if kept is None else np.searchsorted(kept, indptr)
    sizes = np.diff(start)
    if (sizes == 0).any():
        raise _stuck(int(np.argmin(sizes)))
    base, last = np.empty(len(sizes), np.int32), np.empty(len(sizes), np.int32)
    parts: list[tuple[NDArray[Any], ...]] = []
    for members, size in _blocks(sizes):
        rows = start[members][:, None] + np.arange(size)
        rows = rows if kept is None else kept[rows]
        vertex, slope, top = _chains(scaled[rows].T, cost[rows].T)
        place = np.take_along_axis(rows - indptr[members][:, None], vertex.T, axis=1).astype(np.int32)
        base[members], last[members] = place[:, 0], place[np.arange(len(members)), top]
        edge = np.arange(1, size) <= top[:, None]
        owner = np.broadcast_to(members[:, None].astype(np.int32), edge.shape)
        parts.append((owner[edge], place[:, :-1][edge], place[:, 1:][edge], slope.T[:, 1:][edge]))
    group, before, choice, slope = (np.concatenate(p) for p in zip(*parts, strict=True))
    # a stable sort of what comes group by group; blocks came by size
    order = np.argsort(-slope, kind="stable") if (np.diff(group) >= 0).all() else np.lexsort((group, -slope))
    group, before, choice, slope = group[order], before[order], choice[order], slope[order]
    first = indptr[group]
    costs = np.concatenate([[cost[indptr[:-1] + base].sum()], cost[first + choice] - cost[first + before]])
    values = np.concatenate([value[first + before] - value[first + choice], [0.0]])
    return _Walk(base, last, group, choice, slope, np.cumsum(costs), values)


def _stuck(group: int) -> ValueError:
    return ValueError(f"group {group} has no choice that may be taken")


def _blocks(sizes: IntArray) -> Iterator[tuple[IntArray, int]]:
    for size in np.unique(sizes).tolist():
        members = np.flatnonzero(sizes == size)
        block = max(1, BLOCK * 8 // max(size, 8))
        for at in range(0, len(members), block):
            yield members[at : at + block], size


def _chains(value: FloatArray, cost: IntArray) -> tuple[IntArray, FloatArray, IntArray]:
    """Hulls of groups in columns [k, B]: vertices as a stack [k, B], the slope of the edge into each, its height."""
    size, width = value.shape
    order = np.lexsort((value, cost), axis=0)
    value, cost = np.take_along_axis(value, order, 0), np.take_along_axis(cost, order, 0)
    stack, slope = np.zeros((size, width), np.int64), np.zeros((size, width))
    top, each = np.zeros(width, np.int64), np.arange(width)
    for i in range(1, size):
        active = each[value[i] < value[stack[top, each], each]]
        into = _rate(value, cost, stack[top[active], active], i, active)
        back = np.arange(len(active))
        while True:
            back = back[(top[active[back]] > 0) & (into[back] > slope[top[active[back]], active[back]])]
            if not len(back):
                break
            g = active[back]
            top[g] -= 1
            into[back] = _rate(value, cost, stack[top[g], g], i, g)
        top[active] += 1
        stack[top[active], active] = i
        slope[top[active], active] = into
    return np.take_along_axis(order, stack, 0), slope, top


def _rate(value: FloatArray, cost: IntArray, last: IntArray, i: int, groups: IntArray) -> FloatArray:
    drop, more = value[last, groups] - value[i, groups], cost[i, groups] - cost[last, groups]
    rate: FloatArray = drop / more.astype(np.float64)
    return rate
