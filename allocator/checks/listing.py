"""The list program over the survivors, for any number of budget rows.

States (Σ steps, Σ reduced, use of each row) grow group by group; a state is dropped when what it has paid in
reduced values reaches the room, or when a row cannot be kept any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.checks.lagrangian import EPSILON
from allocator.checks.survivors import Survivors

MOST_LISTED = 4_000_000


@dataclass(frozen=True)
class Listing:
    """complete: everything was looked at. best: smallest Σ steps below what counts as better, None where none is."""

    complete: bool
    states: int
    best: float | None = None


def exhaust_several(survivors: Survivors, most_states: int) -> Listing:
    """Look at every combination of the survivors that may be better and keep all rows."""
    depth = len(survivors.start)
    widest = survivors.per_group(np.maximum, survivors.reduced)
    chosen = survivors.in_order(np.argsort(-widest, kind="stable"))
    lines = chosen.lines
    ends = np.append(chosen.start, len(chosen.steps)).tolist()
    low = [_tails(chosen, np.minimum, line.steps) for line in lines]
    high = [_tails(chosen, np.maximum, line.steps) for line in lines]
    room = chosen.room + EPSILON * (depth + 4) * (abs(chosen.room) + chosen.negative)
    value, paid = np.zeros(1), np.zeros(1)
    uses: list[NDArray[Any]] = [np.zeros(1, line.steps.dtype) for line in lines]
    states = 1
    for g in range(depth + 1):
        if g:
            part = slice(ends[g - 1], ends[g])
            if len(value) * (part.stop - part.start) > 2 * MOST_LISTED:
                return Listing(False, states)
            value, paid = _sums(value, chosen.steps[part]), _sums(paid, chosen.reduced[part])
            uses = [_sums(use, line.steps[part]) for use, line in zip(uses, lines, strict=True)]
        keep = paid < room
        for line, use, least, most in zip(lines, uses, low, high, strict=True):
            if line.hi is not None:
                keep &= use <= line.hi - least[g]
            if line.lo is not None:
                keep &= use >= line.lo - most[g]
        value, paid, uses = value[keep], paid[keep], [use[keep] for use in uses]
        states += len(value) if g else 0
        if states > most_states or len(value) > MOST_LISTED:
            return Listing(False, states)
    best = float(value.min(initial=np.inf))
    return Listing(True, states, best if best < chosen.below + chosen.blur else None)


def _sums(column: NDArray[Any], steps: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.add.outer(column, steps)).reshape(-1)


def _tails(survivors: Survivors, extreme: np.ufunc, steps: NDArray[Any]) -> list[Any]:
    """Σ of the extreme steps over the groups from each depth on [D + 1]."""
    found = [0]
    for step in reversed(survivors.per_group(extreme, steps).tolist()):
        found.append(found[-1] + step)
    return found[::-1]
