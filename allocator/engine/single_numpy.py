"""One budget in numpy: what the C kernel does, readable; the kernel is tested against it.

Many groups: the relaxation of a sample gives a multiplier, one pass its exact use, the sample once more the
correction. Then one pass at both ends of a bracket around it: a group whose choice is the same at both, with
every other choice dearer by a margin, is decided (reduced costs are linear in the multiplier, so the ends bound
what lies between). The rest, a few thousand groups, is all that later steps touch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from time import monotonic

import numpy as np

from allocator.engine.core import Core
from allocator.engine.found import Found
from allocator.engine.knapsack import Knapsack
from allocator.engine.list_program import Limits, Listed, list_program
from allocator.engine.relaxation import Relaxed, relax
from allocator.statement import IntArray

MANY, MOST_SAMPLED, LEAST_SAMPLED, WANTED_OPEN, MOST_BRACKETS = 32768, 16384, 2048, 4096, 12
ROUNDED = 1e-15  # of a price: twice what its rounding may move it by, and more


def solve(
    knapsack: Knapsack, tolerance: float | None, seconds: float, most_nodes: int, start: IntArray | None
) -> Found:
    """The numpy engine's `solve_single`."""
    core = Core.of(knapsack)
    tolerance = 2.5e-13 * core.scale if tolerance is None else tolerance
    limits = Limits(tolerance, monotonic() + seconds, nodes=most_nodes)
    divisor = core.divisor
    capacity = knapsack.capacity
    if divisor > 1:  # every allocation costs the same modulo the divisor: the rest can never be used
        capacity -= (capacity - int(core.cost[core.start[:-1]].sum())) % divisor
    found = _solve_many(core, capacity, limits) if core.group_count >= MANY else None
    known = start if core.rows is None else None
    relaxed, listed = found or solve_core(core, capacity, limits, known)
    if relaxed is None or listed is None:
        return Found(None, 0.0, 0.0, None, {"engine": "numpy", "divisor": divisor})
    statistics = {
        "engine": "numpy",
        "divisor": divisor,
        "core_divisor": listed.divisor,
        "states": listed.states,
        "longest": listed.longest,
        "core_groups": listed.groups,
        "passes": relaxed.passes,
    }
    rows = listed.items if core.rows is None else core.rows[listed.items]
    short = listed.value - listed.bound
    if tolerance > 1e-12 * core.scale:  # wider than rounding needs: what may be left alone is not passed over
        short = max(short, min(tolerance, listed.value - listed.lowest))
    return Found(rows, relaxed.multiplier, short, listed.limit, statistics)


def solve_core(
    core: Core, capacity: int, limits: Limits, known: IntArray | None = None
) -> tuple[Relaxed | None, Listed | None]:
    """Relaxation and list program; known: items of an allocation within the capacity."""
    relaxed = relax(core, capacity)
    if relaxed is None:
        return None, None
    best = 0.0 if known is None else min(float((core.value[known] - core.value[relaxed.base]).sum()), 0.0)
    listed = list_program(core, relaxed, limits, best)
    if known is not None and best < 0 and listed.value >= best:
        listed.items = known
    return relaxed, listed


# -- many groups -------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Bracket:
    """At two multipliers: items taken at the lower one [G], uses at both, groups that are not decided."""

    items: IntArray
    used_low: int
    used_high: int
    open: IntArray
    decided: int


def _price(core: Core, multiplier: float) -> tuple[int, int, int]:
    """Use of the capacity at a multiplier, at least, and where only values count."""
    used = least = by_value = 0
    for table in core.tables:
        for block in table.blocks():
            price = block.cost * multiplier
            price += block.value
            places = np.arange(len(block.groups))
            used += int(block.cost[places, price.argmin(axis=1)].sum())
            least += int(block.cost.min(axis=1).sum())
            by_value += int(block.cost[places, block.value.argmin(axis=1)].sum())
    return used, least, by_value


def _bracket(core: Core, low: float, high: float, margin: float) -> _Bracket:
    items = np.empty(core.group_count, np.int64)
    undecided = np.zeros(core.group_count, bool)
    used_low = used_high = decided = 0
    for table in core.tables:
        for block in table.blocks():
            places = np.arange(len(block.groups))
            at_low = block.cost * low
            at_low += block.value
            at_high = block.cost * high
            at_high += block.value
            i, j = at_low.argmin(axis=1), at_high.argmin(axis=1)
            # costs far from 0 round coarsely: what lies within that is not decided
            x, y = at_low[places, i], at_high[places, j]
            near = at_low < (x + margin + ROUNDED * np.abs(x))[:, None]
            near |= at_high < (y + margin + ROUNDED * np.abs(y))[:, None]
            is_open = (i != j) | (near.sum(axis=1) > 1)
            cost = block.cost[places, i]
            used_low += int(cost.sum())
            used_high += int(block.cost[places, j].sum())
            decided += int(cost[~is_open].sum())
            items[block.groups] = block.first + i
            undecided[block.groups] = is_open
    return _Bracket(items, used_low, used_high, np.flatnonzero(undecided), decided)


def _margin(sample: Core, multiplier: float, part: float) -> float:
    """A margin that leaves about that part of the groups open, judged by a sample."""
    second = []
    for table in sample.tables:
        if table.cost.shape[1] > 1:
            price = np.partition(table.value + multiplier * table.cost, 1, axis=1)
            second.append(price[:, 1] - price[:, 0])
        else:
            second.append(np.full(len(table.groups), math.inf))
    ordered = np.sort(np.concatenate(second))
    margin = float(ordered[min(int(part * len(ordered)), len(ordered) - 1)])
    return margin if math.isfinite(margin) else 0.0


def _bound_beside(core: Core, items: IntArray, relaxed: Relaxed, capacity: int) -> float:
    """What the relaxation at a multiplier bounds every allocation's value by, over that of some items."""
    below, slack = 0.0, capacity
    for table in core.tables:
        for block in table.blocks():
            places = np.arange(len(block.groups))
            at = items[block.groups] - block.first
            cost, value = block.cost[places, at], block.value[places, at]
            price = (block.value - value[:, None]) + relaxed.multiplier * (block.cost - cost[:, None])
            below += float(np.minimum(price.min(axis=1), 0.0).sum())
            slack -= int(cost.sum())
    return below - relaxed.multiplier * slack


def _solve_many(core: Core, capacity: int, limits: Limits) -> tuple[Relaxed, Listed] | None:
    """By a sample and a bracket; None where that does not fit the problem, or nothing keeps the capacity."""
    count = min(max(core.group_count // 16, LEAST_SAMPLED), MOST_SAMPLED)
    sample = core.of_groups(np.arange(count) * (core.group_count // count))
    part = count / core.group_count
    near = relax(sample, int(capacity * part))
    if near is None or not near.multiplier > 0:
        return None
    used, least, by_value = _price(core, near.multiplier)
    if least > capacity or by_value <= capacity:
        return None
    # the sample's own use at this price, moved by its share of the miss
    again = relax(sample, int(capacity * part) - near.slack + int((capacity - used) * part))
    if again is not None and again.multiplier > 0:
        near = again
    margin = _margin(sample, near.multiplier, WANTED_OPEN / core.group_count)
    wide, sure = 2 / math.sqrt(core.group_count), False
    low, high = near.multiplier * (1 - wide), near.multiplier * (1 + wide)
    for _ in range(MOST_BRACKETS):
        bracket = _bracket(core, low, high, margin)
        wide *= 4
        if not sure and bracket.used_high > capacity:
            low, high = high, high * (1 + wide)
            continue
        if not sure and bracket.used_low <= capacity:
            low, high = low * max(1 - wide, 0.1), low
            continue
        inner = core.of_groups(bracket.open)
        plain = dataclasses.replace(inner, rows=None)
        relaxed, listed = solve_core(plain, capacity - bracket.decided, dataclasses.replace(limits, horizon=margin))
        if relaxed is None or listed is None:
            high, sure = high * (1 + wide), False
            continue
        inside = low <= relaxed.multiplier <= high
        if listed.limit is not None or (inside and listed.room <= margin):
            own = core.start[:-1][bracket.open] - plain.start[:-1]
            bracket.items[bracket.open] = listed.items + own
            listed.items = bracket.items
            if listed.limit is not None:  # the list knows nothing of the groups that are not open
                listed.lowest = listed.bound = listed.value + _bound_beside(core, listed.items, relaxed, capacity)
            return relaxed, listed
        if inside:  # open what the gap leaves open, at the multiplier itself
            margin, sure = listed.room * (1 + 1e-9), True
            low, high = relaxed.multiplier * (1 - 1e-9), relaxed.multiplier * (1 + 1e-9)
        else:
            low = min(low, relaxed.multiplier) * (1 - 1e-6)
            high = max(high, relaxed.multiplier) * (1 + 1e-6)
    return None
