"""The linear relaxation of a grouped knapsack, without a general LP solver; the numpy engine's.

Two allocations bracket the capacity, `low` keeps it and `high` does not; both are best at their own price. A
price between them (the median of the groups' slopes, then the chord through both) is tried on the groups where
they differ, and its allocation becomes one of them. Where the chord finds nothing below itself, its slope is the
optimal multiplier. (Dyer 1984, Zemel 1984: prune and search; Dinkelbach 1967: the chord.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from allocator.engine.core import Core, Table
from allocator.statement import FloatArray, IntArray

SAMPLED = 65
MOST_PASSES = 200
LEVEL = 1e-15


@dataclass(frozen=True, eq=False)
class Relaxed:
    """multiplier: optimal. base: item of each group [G], priced best, within the capacity. slack: capacity left."""

    multiplier: float
    base: IntArray
    slack: int
    passes: int


@dataclass(eq=False)
class _Open:
    """Groups of one table where the two ends differ: item places [M] of both."""

    table: Table
    low: IntArray
    high: IntArray

    def __post_init__(self) -> None:
        rows = np.arange(len(self.low))
        self.low_cost, self.high_cost = self.table.cost[rows, self.low], self.table.cost[rows, self.high]
        self.low_value, self.high_value = self.table.value[rows, self.low], self.table.value[rows, self.high]

    def priced(self, multiplier: float) -> tuple[IntArray, float]:
        """The best place of each group, and Σ of its price over that of the low end."""
        price = (self.table.value - self.low_value[:, None]) + multiplier * (self.table.cost - self.low_cost[:, None])
        best = price.argmin(axis=1)
        least = price[np.arange(len(best)), best]
        best = np.where(least < 0, best, self.low)
        cost = self.table.cost[np.arange(len(best)), best]
        best = np.where(cost < self.low_cost, self.low, np.where(cost > self.high_cost, self.high, best))
        return best, float(np.minimum(least, 0.0).sum())

    def costs(self, places: IntArray) -> int:
        """Σ cost."""
        return int(self.table.cost[np.arange(len(places)), places].sum())

    def moved(self, low: IntArray, high: IntArray) -> _Open:
        """The groups where the new ends still differ."""
        differ = low != high
        return _Open(self.table.part(differ), low[differ], high[differ])


def relax(core: Core, capacity: int) -> Relaxed | None:
    """The optimum of the relaxation and the feasible allocation beside it; None where nothing keeps the capacity."""
    base = np.empty(core.group_count, np.int64)
    opened = []
    used = used_high = 0
    for table in core.tables:
        rows = np.arange(len(table.groups))
        low = _first_least(table.cost, table.value)
        high = _first_least(table.value, table.cost)
        dearer = table.cost[rows, high] > table.cost[rows, low]
        low = np.where(dearer, low, high)
        base[table.groups] = table.first + low
        used += int(table.cost[rows, low].sum())
        used_high += int(table.cost[rows, high].sum())
        opened.append(_Open(table, low, high).moved(low, high))
    if used > capacity:
        return None
    if used_high <= capacity:
        for part in opened:
            base[part.table.groups] = part.table.first + part.high
        return Relaxed(0.0, base, capacity - used_high, 1)
    multiplier, passes = 0.0, 1
    while passes < MOST_PASSES:
        gain = sum(float((p.low_value - p.high_value).sum()) for p in opened)
        more = sum(int((p.high_cost - p.low_cost).sum()) for p in opened)
        chord = passes % 2 == 0
        multiplier = _middle(opened) if not chord else gain / more
        if not multiplier > 0:
            chord, multiplier = True, max(gain / more, 0.0)
        found = [p.priced(multiplier) for p in opened]
        passes += 1
        below = sum(f[1] for f in found)
        use = used + sum(p.costs(f[0]) - int(p.low_cost.sum()) for p, f in zip(opened, found, strict=True))
        keeps = use <= capacity
        used = use if keeps else used
        moved = False
        after = []
        for part, (places, _) in zip(opened, found, strict=True):
            moved |= not np.array_equal(places, part.low if keeps else part.high)
            if keeps:
                base[part.table.groups] = part.table.first + places
            after.append(part.moved(places, part.high) if keeps else part.moved(part.low, places))
        opened = after
        level = chord or abs(multiplier * more - gain) <= LEVEL * gain
        if level and (below >= -LEVEL * gain or not moved):
            break
    return Relaxed(multiplier, base, _fill(opened, base, capacity - used), passes)


def _first_least(column: FloatArray | IntArray, second: FloatArray | IntArray) -> IntArray:
    """Place of the least entry of each row, ties by a second column."""
    level = column == column.min(axis=1)[:, None]
    far = np.inf if second.dtype.kind == "f" else np.iinfo(np.int64).max
    return np.asarray(np.where(level, second, far).argmin(axis=1))


def _middle(opened: list[_Open]) -> float:
    """Median of some of the slopes between the ends."""
    slopes = np.concatenate([(p.low_value - p.high_value) / (p.high_cost - p.low_cost) for p in opened])
    return float(np.median(slopes[:: len(slopes) // SAMPLED + 1]))


def _fill(opened: list[_Open], base: IntArray, slack: int) -> int:
    """Ties at the multiplier go to their high end while they fit; what is left of the slack."""
    for part in opened:
        more = (part.high_cost - part.low_cost).tolist()
        taken = np.zeros(len(more), bool)
        for i, cost in enumerate(more):
            if cost <= slack:
                slack -= cost
                taken[i] = True
        base[part.table.groups[taken]] = part.table.first[taken] + part.high[taken]
    return slack
