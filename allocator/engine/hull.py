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

BLOCK = 2**15  # groups looked at together
PAIRWISE = 4096  # drops summed in a row before the running total is renewed in twice the precision
TINY = 2.0**-500  # values below it are scaled up: a slope, value over cost, must not lose digits
_BUCKETS = 65536  # as in hull.c


@dataclass(frozen=True, eq=False)
class Hull:
    """A walk from the cheapest allocation to one of least value.

    base [G] int32: the cheapest choice of each group, of least value among equals, then the first.
    Move m makes group[m] take choice[m] ([M] int32, places within the group); slope [M] float64 > 0 is what it
    takes off the value per unit of cost, falling. Edges of equal slope stand by group, and within a group by cost;
    a choice on the line between two others is a vertex too. costs [M+1] int64 and values [M+1] float64 are the
    running totals, before the first move on; values are summed from the small end, so that each is right to
    about 1e-14 of itself where no value is negative.
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
        cost: [N] int64 of any sign, Σ over groups of the largest |cost| below 2^62.
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
    scaled = np.ldexp(value, power) if power else value
    kernel = native()
    base, group, choice, slope = (
        _ordered_in_numpy(scaled, cost, indptr, free)
        if kernel is None
        else _ordered_in_c(kernel, scaled, cost, indptr, free)
    )
    step, drop = _steps(kernel, value, cost, indptr, base, group, choice)
    costs = np.empty(len(group) + 1, np.int64)
    costs[0] = cost[indptr[:-1] + base].sum()
    np.cumsum(step, out=costs[1:])
    costs[1:] += costs[0]
    del step
    last = base.copy()
    np.maximum.at(pos := np.full(len(base), -1, np.int64), group, np.arange(len(group)))
    last[pos >= 0] = choice[pos[pos >= 0]]
    least = math.fsum(value[indptr[:-1] + last].tolist())
    return Hull(base, group, choice, np.ldexp(slope, -power) if power else slope, costs, _falling(drop, least))


def _falling(drop: FloatArray, least: float) -> FloatArray:
    """Running totals that end at `least`: out[m] = least + Σ drop[m:], never rising with m."""
    out = np.empty(len(drop) + 1)
    out[-1] = least
    high, low = least, 0.0
    for end in range(len(drop), 0, -PAIRWISE):
        part = drop[max(end - PAIRWISE, 0) : end]
        out[max(end - PAIRWISE, 0) : end] = (high + (low + np.cumsum(part[::-1])))[::-1]
        add = float(part.sum()) + low
        total = high + add
        low = add - (total - high) if abs(high) >= abs(add) else high - (total - add)
        high = total
    np.maximum.accumulate(out[::-1], out=out[::-1])  # blocks may disagree in the last digit
    return out


def _at(array: NDArray[Any] | None) -> int:
    return 0 if array is None else array.ctypes.data


_Ordered = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], FloatArray]


def _ordered_in_c(
    kernel: Any, value: FloatArray, cost: IntArray, indptr: IntArray, free: BoolArray | None
) -> _Ordered:
    groups = len(indptr) - 1
    base, histogram = np.empty(groups, np.int32), np.empty(_BUCKETS, np.int64)
    columns = (_at(value), _at(cost), _at(indptr), _at(free), groups)
    count = kernel.hull_count(*columns, _at(base), _at(histogram))
    if count < 0:
        raise ValueError(f"group {-2 - count} has no choice that may be taken")
    group, choice, slope = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count)
    kernel.hull_order(*columns, _at(histogram), _at(group), _at(choice), _at(slope))
    return base, group, choice, slope


def _steps(
    kernel: Any | None,
    value: FloatArray,
    cost: IntArray,
    indptr: IntArray,
    base: NDArray[np.int32],
    group: NDArray[np.int32],
    choice: NDArray[np.int32],
) -> tuple[IntArray, FloatArray]:
    """What each move adds to the cost and takes off the value, both above 0."""
    count = len(group)
    if kernel is not None:
        step, drop, now = np.empty(count, np.int64), np.empty(count), base.copy()
        columns = (_at(value), _at(cost), _at(indptr), count)
        kernel.hull_walk(*columns, _at(now), _at(group), _at(choice), _at(step), _at(drop))
        return step, drop
    order = np.argsort(group, kind="stable")  # the moves of a group side by side: each starts where the last ended
    to = indptr[group[order]] + choice[order]
    first = np.concatenate([[True], group[order][1:] != group[order][:-1]])[:count]
    start = np.concatenate([to[:1], to[:-1]])
    start[first] = (indptr[:-1] + base)[group[order][first]]
    step, drop = np.empty(count, np.int64), np.empty(count)
    step[order], drop[order] = cost[to] - cost[start], value[start] - value[to]
    return step, drop


def _ordered_in_numpy(value: FloatArray, cost: IntArray, indptr: IntArray, free: BoolArray | None) -> _Ordered:
    """The same as the C kernel, group by group in blocks of equal size."""
    kept = None if free is None else np.flatnonzero(free)
    start = indptr if kept is None else np.searchsorted(kept, indptr)
    sizes = np.diff(start)
    if (sizes == 0).any():
        raise ValueError(f"group {int(np.argmin(sizes))} has no choice that may be taken")
    base = np.empty(len(sizes), np.int32)
    parts: list[tuple[NDArray[np.int32], NDArray[np.int32], FloatArray]] = []
    for members, size in _blocks(sizes):
        rows = start[members][:, None] + np.arange(size)
        rows = rows if kept is None else kept[rows]
        place = (rows - indptr[members][:, None]).astype(np.int32)
        taken, slope, edge = _chains(value[rows].T, cost[rows].T)
        place = np.take_along_axis(place, taken.T, axis=1)
        base[members] = place[:, 0]
        owner = np.broadcast_to(members[:, None].astype(np.int32), place.shape)
        parts.append((owner[edge.T], place[edge.T], slope.T[edge.T]))
    group, choice, slope = (np.concatenate([p[i] for p in parts]) for i in range(3))
    if len(np.unique(sizes)) > 1:  # blocks came by size
        by_group = np.argsort(group, kind="stable")
        group, choice, slope = group[by_group], choice[by_group], slope[by_group]
    order = np.argsort(-slope, kind="stable")
    return base, group[order], choice[order], slope[order]


def _blocks(sizes: IntArray) -> Iterator[tuple[IntArray, int]]:
    for size in np.unique(sizes).tolist():
        members = np.flatnonzero(sizes == size)
        block = max(1, BLOCK * 8 // max(size, 8))
        for at in range(0, len(members), block):
            yield members[at : at + block], size


def _chains(value: FloatArray, cost: IntArray) -> tuple[IntArray, FloatArray, BoolArray]:
    """Hulls of groups in columns [k, B]: vertices as a stack [k, B], slope of the edge into each, which are edges."""
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
    edge = (np.arange(size)[:, None] <= top) & (np.arange(size)[:, None] > 0)
    return np.take_along_axis(order, stack, 0), slope, edge


def _rate(value: FloatArray, cost: IntArray, last: IntArray, i: int, groups: IntArray) -> FloatArray:
    drop: FloatArray = value[last, groups] - value[i, groups]
    return drop / (cost[i, groups] - cost[last, groups]).astype(np.float64)
