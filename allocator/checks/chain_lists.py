"""Every allocation along a chain that prices leave open, as lists of (use, loss) from both of its ends.

A list belongs to a choice of the stage it ends at. What another entry of it undercuts in both goes (Nemhauser and
Ullmann 1969); so does what cannot come below a level with the best completion at the price. Sums of floats keep their
order when equal numbers are added, so that rounding never drops what is better by more than it loses on one path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from allocator.statement import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Stages:
    """value[i] and cost[i] (int64, least 0) of each stage's choices; table[i]: with the stage before, or None.

    room: Σ cost may be as much. price: of a unit of it, ≥ 0.
    """

    value: Sequence[FloatArray]
    cost: Sequence[IntArray]
    table: Sequence[FloatArray | None]
    room: int
    price: float


@dataclass(frozen=True, eq=False)
class _Lists:
    """Entries by choice `place`, in each of rising use and falling loss."""

    place: IntArray
    use: IntArray
    loss: FloatArray


def lightest(stages: Stages, below: float, most: int) -> float | None:
    """The least Σ value + Σ table within the room if it is under `below`, which is returned otherwise; to rounding.

    None where the lists have more than `most` entries in all.
    """
    price, n = stages.price, len(stages.value)
    room = min(stages.room, sum(int(c.max()) for c in stages.cost))
    priced = [v + price * c for v, c in zip(stages.value, stages.cost, strict=True)]
    flipped = [None if t is None else t.T for t in stages.table]
    before = _completed(priced, stages.table)
    after = _completed(priced[::-1], [None, *flipped[:0:-1]])[::-1]
    level = below + price * room
    alive = [b + p + a < level for b, p, a in zip(before, priced, after, strict=True)]
    left, right = (_first(stages, i, alive[i], room) for i in (0, n - 1))
    a, b, count = 0, n - 1, 0
    while a < b - 1 and len(left.use) and len(right.use):
        if len(left.use) <= len(right.use):
            a += 1
            left = _next(stages, left, a, stages.table[a], level - after[a], alive[a], room)
            count += len(left.use)
        else:
            b -= 1
            right = _next(stages, right, b, flipped[b + 1], level - before[b], alive[b], room)
            count += len(right.use)
        if count > most:
            return None
    if n == 1:
        return float(left.loss.min(initial=below))
    return _met(left, right, stages.table[b], room, below)


def _completed(priced: Sequence[FloatArray], table: Sequence[FloatArray | None]) -> list[FloatArray]:
    """What the stages before each choice add at least."""
    found = [np.zeros(len(priced[0]))]
    for i in range(1, len(priced)):
        so_far, between = found[-1] + priced[i - 1], table[i]
        if between is None:
            found.append(np.full(len(priced[i]), so_far.min()))
        else:
            found.append((so_far[:, None] + between).min(axis=0))
    return found


def _first(stages: Stages, i: int, alive: BoolArray, room: int) -> _Lists:
    place = np.flatnonzero(alive & (stages.cost[i] <= room))
    return _Lists(place, stages.cost[i][place], stages.value[i][place])


def _next(
    stages: Stages, old: _Lists, i: int, table: FloatArray | None, reach: FloatArray, alive: BoolArray, room: int
) -> _Lists:
    """The lists of stage i beside some; reach: what loss + price·use has to stay below, by choice."""
    places, uses, losses = [old.place[:0]], [old.use[:0]], [old.loss[:0]]
    for k in np.flatnonzero(alive).tolist():
        use = old.use + stages.cost[i][k]
        loss = old.loss + (stages.value[i][k] if table is None else table[:, k][old.place] + stages.value[i][k])
        kept = np.flatnonzero((use <= room) & (loss + stages.price * use < reach[k]))
        kept = kept[np.lexsort((loss[kept], use[kept]))]
        use, loss = use[kept], loss[kept]
        lowest = np.minimum.accumulate(loss)
        kept = np.flatnonzero(np.concatenate([[True], loss[1:] < lowest[:-1]])[: len(loss)])
        places.append(np.full(len(kept), k))
        uses.append(use[kept])
        losses.append(loss[kept])
    return _Lists(np.concatenate(places), np.concatenate(uses), np.concatenate(losses))


def _met(left: _Lists, right: _Lists, table: FloatArray | None, room: int, below: float) -> float:
    """The least sum of an entry of each side within the room."""
    best = below
    for k in distinct(left.place).tolist():
        mine = left.place == k
        for h in distinct(right.place).tolist():
            theirs = right.place == h
            at = np.searchsorted(right.use[theirs], room - left.use[mine], side="right") - 1
            fits = at >= 0
            if fits.any():
                between = 0.0 if table is None else float(table[k, h])
                total = left.loss[mine][fits] + between + right.loss[theirs][at[fits]]
                best = min(best, float(total.min()))
    return best


def distinct(values: IntArray) -> IntArray:
    """The different ones, ascending. (np.unique for the values alone imports numpy.ma at its first call, 10 ms.)"""
    return np.asarray(np.unique(values, return_counts=True)[0])
