"""Checks `core`: fix what the prices rule out, exhaust the rest by a list program.

A choice whose reduced cost d = priced value − its group's minimum is at least objective − bound cannot be in
a better allocation. Over the groups that keep several choices, states (value, uses) are extended group by
group; a state is dropped when Σ d reaches the gap, when a row cannot be kept any more, or, under a single
max row, when another uses no more and is worth no less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from allocator.checks.lagrangian import EPSILON, price, smallest
from allocator.linear import SMALL, Linear

MOST_STATES = 2_000_000


@dataclass(frozen=True)
class CoreCheck:
    """proved: no allocation of the separable view is below target. better: total of one found below it."""

    proved: bool
    better: float | None = None
    survivors: int = 0
    states: int = 0


def exhaust(
    linear: Linear, values: Sequence[float], total: float, tolerance: float, most_states: int = MOST_STATES
) -> CoreCheck:
    """Look for an allocation with Σ value < total − tolerance that keeps every row (couplings aside)."""
    if linear.power != 1 and total < SMALL:
        return CoreCheck(proved=False)
    target = total - tolerance / 2  # the other half is for the rounding of running sums
    priced = price(linear, values)
    minima = smallest(linear, priced.value)
    if not np.isfinite(minima).all():
        return CoreCheck(proved=True)
    start = linear.problem.indptr[:-1]
    slip = math.fsum(np.maximum.reduceat(np.where(linear.free, priced.error, 0.0), start).tolist())
    slip = 2 * (slip + priced.paid_error)
    room = target - math.fsum([*minima.tolist(), -priced.paid]) + slip
    if room <= 0:
        return CoreCheck(proved=True)
    group_of = linear.problem.group_of
    reduced = priced.value - minima[group_of]
    alive = linear.free & (reduced < room)
    count = np.add.reduceat(alive.astype(np.int64), start)
    fixed = alive & (count == 1)[group_of]
    open_groups = np.flatnonzero(count > 1)
    widest = np.array([reduced[s:e][alive[s:e]].max() for s, e in _spans(linear, open_groups)])
    order = open_groups[np.argsort(-widest, kind="stable")]
    search = _List(linear, alive, order, room, reduced, most_states)
    return search.run(fixed, target)


def _spans(linear: Linear, groups: NDArray[np.int64]) -> list[tuple[int, int]]:
    start = linear.problem.indptr
    return list(zip(start[groups].tolist(), start[groups + 1].tolist(), strict=True))


@dataclass
class _List:
    linear: Linear
    alive: NDArray[np.bool_]
    order: NDArray[np.int64]
    room: float
    reduced: NDArray[np.float64]
    most_states: int

    def run(self, fixed: NDArray[np.bool_], target: float) -> CoreCheck:
        rows = self.linear.rows
        choices = [np.flatnonzero(self.alive[s:e]) + s for s, e in _spans(self.linear, self.order)]
        columns = [r.column if r.exact else r.column.astype(np.float64) for r in rows]
        least, most = self._tails(choices, columns)
        slips = [0 if r.exact else self._slip(c) for r, c in zip(rows, columns, strict=True)]
        value = np.array([math.fsum(self.linear.value[fixed].tolist())])
        paid = np.zeros(1)
        uses = [np.array([c[fixed].sum()]) for c in columns]
        dominance = len(rows) == 1 and rows[0].lo is None
        states = 1
        for depth, taken in enumerate(choices):
            value = (value[:, None] + self.linear.value[taken]).ravel()
            paid = (paid[:, None] + self.reduced[taken]).ravel()
            uses = [(u[:, None] + c[taken]).ravel() for u, c in zip(uses, columns, strict=True)]
            keep = paid < self.room
            for r, u, low, high, slip in zip(rows, uses, least[depth + 1], most[depth + 1], slips, strict=True):
                keep &= True if r.hi is None else u + low <= r.hi + slip
                keep &= True if r.lo is None else u + high >= r.lo - slip
            value, paid, uses = value[keep], paid[keep], [u[keep] for u in uses]
            if dominance and len(value) > 1:
                value, paid, uses = _undominated(value, paid, uses)
            states += len(value)
            if states > self.most_states:
                return CoreCheck(proved=False, survivors=int(self.alive.sum()), states=states)
        if not choices:
            for r, u, slip in zip(rows, uses, slips, strict=True):
                inside = (r.hi is None or u[0] <= r.hi + slip) and (r.lo is None or u[0] >= r.lo - slip)
                value = value if inside else value[:0]
        best = float(value.min()) if len(value) else math.inf
        better = best if best < target else None
        return CoreCheck(better is None, better, int(self.alive.sum()), states)

    def _tails(
        self, choices: list[NDArray[np.int64]], columns: list[NDArray[np.float64]]
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Least and most use of each row by the groups from each depth on."""
        least: list[list[float]] = [[0] * len(columns)]
        most: list[list[float]] = [[0] * len(columns)]
        for taken in reversed(choices):
            least.append([t + c[taken].min().item() for t, c in zip(least[-1], columns, strict=True)])
            most.append([t + c[taken].max().item() for t, c in zip(most[-1], columns, strict=True)])
        return least[::-1], most[::-1]

    def _slip(self, column: NDArray[np.float64]) -> float:
        """Rounding that a float row's running sum may carry; a state within it counts as feasible."""
        largest = np.maximum.reduceat(np.abs(column), self.linear.problem.indptr[:-1])
        return 4 * EPSILON * len(largest) * float(largest.sum())


def _undominated(
    value: NDArray[np.float64], paid: NDArray[np.float64], uses: list[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[NDArray[np.float64]]]:
    order = np.lexsort((value, uses[0]))
    best = np.minimum.accumulate(value[order])
    keep = order[np.concatenate([[True], value[order][1:] < best[:-1]])]
    return value[keep], paid[keep], [u[keep] for u in uses]
