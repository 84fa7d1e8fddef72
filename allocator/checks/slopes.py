"""The list program over the survivors for one upper limit, with bounds from the slopes of the moves still to come.

A state is (over, value): the use so far, with base choices in the groups to come, less the limit, and Σ steps.
With λ the price, a state's total cannot end below value + λ·over + Σ reduced of the moves to come (all relative to
the base). A move that changes the use by d costs at least up·d (d > 0) or down·|d| (d < 0), up and down the
smallest reduced/|d| of the moves to come, so the end is at least

    value + λ·over + |over|·min(λ, up)   where over ≤ 0: what is left is used up, or wasted at λ a unit
    value + λ·over + over·down           where over > 0: it must be taken back; impossible without a move down

A state that so reaches the target is dropped, and one that another beats in both over and value. (After
D. Pisinger, A minimal algorithm for the multiple-choice knapsack problem, EJOR 83, 1995.)
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.checks.lagrangian import EPSILON, VANISHED
from allocator.checks.listing import MOST_LISTED, Listing
from allocator.checks.survivors import Survivors
from allocator.statement import FloatArray, IntArray

DOWN = 1 - 8 * EPSILON  # slopes are rounded down
WIDE = 1 << 18  # states times choices made at once
MANY = 256  # states from which on a table may be worth it
SPARSE = 8  # uses per state up to which it is
QUICK = 20  # states in a table take as long as one in a list

Lists = tuple[NDArray[Any], FloatArray]


def exhaust_one(survivors: Survivors, most_states: int) -> Listing:
    """Look at every combination of the survivors that may be better and keep the one line, an upper limit.

    most_states: in lists; states in a table count a twentieth.
    """
    survivors = dataclasses.replace(survivors, lines=(survivors.lines[0].in_units(),))
    order, up, down = _slopes(survivors)
    chosen = survivors.in_order(order)
    line = chosen.lines[0]
    ends = np.append(chosen.start, len(chosen.steps)).tolist()
    target = chosen.below + chosen.negative + chosen.blur
    target += 16 * EPSILON * (chosen.reach + abs(target)) + VANISHED  # the products below
    spare = (line.price - up).tolist()
    excess = (line.price + down).tolist()
    assert line.hi is not None
    lists: Lists = (np.array([-line.hi]), np.zeros(1))
    lists = _promising(*lists, spare[0], excess[0], target)
    states = 1
    work = 0.0
    for g in range(len(order)):
        if not len(lists[0]):
            break
        part = slice(ends[g], ends[g + 1])
        uses, values = line.steps[part], chosen.steps[part]
        tabled = line.exact and _crowded(lists[0], uses)
        if tabled:
            lists = _promising(*_by_table(lists, uses, values), spare[g + 1], excess[g + 1], target)
        else:
            lists = _extended(lists, uses, values, spare[g + 1], excess[g + 1], target)
            if len(lists[0]) > 2 * MOST_LISTED:
                return Listing(False, states)
            lists = _in_order(*lists)
        lists = _undominated(*lists)
        states += len(lists[0])
        work += len(lists[0]) / QUICK if tabled else len(lists[0])
        if work > most_states or len(lists[0]) > MOST_LISTED:
            return Listing(False, states)
    best = float(lists[1].min(initial=np.inf))
    return Listing(True, states, best if best < chosen.below + chosen.blur else None)


def _slopes(survivors: Survivors) -> tuple[IntArray, FloatArray, FloatArray]:
    """Order of the groups [D], cheapest moves first, and the slopes up and down of those from each place on [D + 1]."""
    line = survivors.lines[0]
    size = np.abs(line.steps).astype(np.float64)
    with np.errstate(all="ignore"):
        rate = np.where(size > 0, np.maximum(survivors.reduced, 0.0) * DOWN / size * DOWN, np.inf)
    up = survivors.per_group(np.minimum, np.where(line.steps > 0, rate, np.inf))
    down = survivors.per_group(np.minimum, np.where(line.steps < 0, rate, np.inf))
    order = np.argsort(np.minimum(up, down), kind="stable")
    tails = [np.minimum.accumulate(np.append(slope[order], np.inf)[::-1])[::-1] for slope in (up, down)]
    return order, np.minimum(tails[0], line.price), tails[1]


def _extended(lists: Lists, uses: NDArray[Any], steps: FloatArray, spare: float, excess: float, target: float) -> Lists:
    """The states after one more group that may still be better; each choice's in order of `over`."""
    over, value = lists
    together = max(1, WIDE // len(over))
    parts = []
    for k in range(0, len(steps), together):
        new_over = (uses[k : k + together, None] + over).ravel()
        new_value = (steps[k : k + together, None] + value).ravel()
        parts.append(_promising(new_over, new_value, spare, excess, target))
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _promising(over: NDArray[Any], value: FloatArray, spare: float, excess: float, target: float) -> Lists:
    """States whose bound is below the target. spare: λ − up; excess: λ + down."""
    bound = over * spare
    if excess < np.inf:
        np.maximum(bound, over * excess, out=bound)
    bound += value
    keep = bound < target
    if excess == np.inf:
        keep &= over <= 0
    return over[keep], value[keep]


def _crowded(over: NDArray[Any], uses: NDArray[Any]) -> bool:
    """Whether most whole numbers in the range of the states are the use of one: a table is then faster than lists."""
    if len(over) < MANY:
        return False
    length = int(over[-1]) - int(over[0]) + int(uses.max()) - int(uses.min())
    return length < min(SPARSE * len(over), MOST_LISTED)


def _by_table(lists: Lists, uses: NDArray[Any], steps: FloatArray) -> Lists:
    """The states after one more group, the best of each use, from a table over all uses."""
    over, value = lists
    low, first = int(over[0]), int(uses.min())
    table = np.full(int(over[-1]) - low + 1, np.inf)
    table[over - low] = value
    merged = np.full(len(table) + int(uses.max()) - first, np.inf)
    for use, step in zip(uses.tolist(), steps.tolist(), strict=True):
        part = merged[use - first : use - first + len(table)]
        np.minimum(part, table + step, out=part)
    at = np.flatnonzero(merged < np.inf)
    return at + (low + first), merged[at]


def _in_order(over: NDArray[Any], value: FloatArray) -> Lists:
    order = over.argsort(kind="stable")
    return over[order], value[order]


def _undominated(over: NDArray[Any], value: FloatArray) -> Lists:
    """Of states in order of `over`, those worth less than all before."""
    if len(over) < 2:
        return over, value
    keep = np.empty(len(value), np.bool_)
    keep[0] = True
    np.less(value[1:], np.minimum.accumulate(value[:-1]), out=keep[1:])
    over, value = over[keep], value[keep]
    last = np.empty(len(over), np.bool_)
    last[-1] = True
    np.not_equal(over[1:], over[:-1], out=last[:-1])  # of one use, the last is worth the least
    return (over, value) if last.all() else (over[last], value[last])
