"""The list program on the core; the numpy engine's.

A state is what some groups have been changed to, all others at their base: the slack it leaves (below 0: over the
capacity) and its value over the base allocation's. Groups come in the order of their cheapest trade, in rising
batches, so that most of them are ruled out before their turn. Of the groups still to come, no change gains more
than `up` per unit of slack, and none frees a unit for less than `down`; a state that cannot reach the target with
those slopes is dropped, and so is one that another undercuts in both slack and value. (Pisinger 1995: minimal core
with two-sided slopes; Nemhauser & Ullmann 1969: lists without dominated states.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import monotonic

import numpy as np

from allocator.engine.core import Core, common_divisor
from allocator.engine.relaxation import Relaxed
from allocator.statement import BoolArray, FloatArray, IntArray

FIRST_BATCH, BATCH_GROWTH, FEW_GROUPS = 64, 16, 200
CAPS = (512, 16384, None)
LONGEST = 4_000_000
WHOLE = 4e15


@dataclass(frozen=True)
class Limits:
    """tolerance: gains up to it may be left alone. horizon: choices that are not in the core cost at least this."""

    tolerance: float
    deadline: float = math.inf
    horizon: float = math.inf
    nodes: int = 48_000_000


@dataclass(eq=False)
class Listed:
    """Values over the base's. items: the best allocation [G]. room: reduced costs below it may still count.

    bound: no allocation's value is below it by more than the tolerance. lowest: nor below this, the relaxation's.
    """

    items: IntArray
    value: float = 0.0
    bound: float = -math.inf
    lowest: float = -math.inf
    room: float = math.inf
    limit: str | None = None
    divisor: int = 1
    states: int = 0
    longest: int = 0
    groups: int = 0


@dataclass(frozen=True)
class _Slopes:
    up: float
    down: float

    def bounds(self, slack: IntArray, value: FloatArray) -> FloatArray:
        """The least that completions of these states may be worth."""
        with np.errstate(invalid="ignore"):  # 0·∞ where nothing can free capacity and none is needed
            return np.asarray(np.where(slack >= 0, value - slack * self.up, value - slack * self.down))


@dataclass(eq=False)
class _Moves:
    """Changes of single groups away from the base, sorted by group."""

    cost: IntArray
    value: FloatArray
    reduced: FloatArray
    item: IntArray
    group: IntArray

    def part(self, kept: BoolArray | slice) -> _Moves:
        return _Moves(self.cost[kept], self.value[kept], self.reduced[kept], self.item[kept], self.group[kept])


@dataclass(eq=False)
class _Trades:
    """Groups in the order of their cheapest trade: moves first[t] to last[t] of each, and the slopes of t and after."""

    moves: _Moves
    first: IntArray
    last: IntArray
    up: FloatArray
    down: FloatArray

    @staticmethod
    def of(moves: _Moves, rest: _Slopes) -> _Trades:
        begin = np.flatnonzero(np.concatenate([[True], moves.group[1:] != moves.group[:-1]]))
        end = np.append(begin[1:], len(moves.cost))
        size = np.abs(moves.cost.astype(np.float64))
        nonzero = np.where(size > 0, size, 1.0)
        rate = np.maximum(moves.reduced, 0.0) / nonzero
        key = np.minimum.reduceat(rate, begin)
        owner = np.repeat(np.arange(len(begin)), end - begin)
        hits = np.flatnonzero(rate == key[owner])
        cheapest = hits[np.searchsorted(owner[hits], np.arange(len(begin)))]
        scattered = (moves.group[begin] * 2654435761) & 0xFFFFFFFF
        order = _alternating(np.lexsort((scattered, key)), moves.cost[cheapest] > 0)
        up = np.maximum.reduceat(np.where(moves.cost > 0, -moves.value / nonzero, 0.0), begin)[order]
        down = np.minimum.reduceat(np.where(moves.cost < 0, moves.value / nonzero, math.inf), begin)[order]
        up = np.maximum.accumulate(np.append(np.maximum(up, 0.0), rest.up)[::-1])[::-1]
        down = np.minimum.accumulate(np.append(down, rest.down)[::-1])[::-1]
        return _Trades(moves, begin[order], end[order], up, down)

    def __len__(self) -> int:
        return len(self.first)

    def slopes(self, t: int) -> _Slopes:
        return _Slopes(float(self.up[t]), float(self.down[t]))

    def trade(self, t: int) -> _Moves:
        return self.moves.part(slice(int(self.first[t]), int(self.last[t])))

    def after(self, t: int) -> _Moves:
        """The moves of the trades from t on."""
        kept = np.zeros(len(self.moves.cost), bool)
        for first, last in zip(self.first[t:].tolist(), self.last[t:].tolist(), strict=True):
            kept[first:last] = True
        return self.moves.part(kept)


@dataclass(eq=False)
class _Search:
    core: Core
    relaxed: Relaxed
    limits: Limits
    out: Listed
    slack: int
    best: float
    bound: float = 0.0
    step: float = 0.0
    thinned: bool = False
    history: list[tuple[IntArray, IntArray]] = field(default_factory=list)

    @property
    def target(self) -> float:
        """What a better allocation has to stay below: by a whole step where all values are multiples of it."""
        whole = self.step > 0 and math.fmod(self.best, self.step) == 0
        return self.best - max(self.limits.tolerance, self.step * (1 - 1e-6) if whole else 0.0)

    @property
    def room(self) -> float:
        return self.target - self.bound

    # -- trades ----------------------------------------------------------------------------------------------------

    def moves(self) -> _Moves:
        """All moves that leave room; sets the bound (rounding may leave a reduced cost a little below 0)."""
        core, base, multiplier = self.core, self.relaxed.base, self.relaxed.multiplier
        sizes = np.diff(core.start)
        cost = core.cost - np.repeat(core.cost[base], sizes)
        value = core.value - np.repeat(core.value[base], sizes)
        reduced = value + multiplier * cost
        below = float(np.minimum(np.minimum.reduceat(reduced, core.start[:-1]), 0.0).sum())
        self.bound = below - multiplier * self.slack
        keep = (reduced < self.room) & ((cost < 0) | (value < 0))
        keep[base] = False
        items = np.flatnonzero(keep)
        group = np.searchsorted(core.start, items, side="right") - 1
        return _Moves(cost[items], value[items], reduced[items], items, group)

    def tighten(self, moves: _Moves) -> _Moves:
        """Fix by reduced cost, and round the slack down to what the surviving cost differences can use."""
        for _ in range(4):
            moves = moves.part(moves.reduced < self.room)
            if self.room > self.limits.horizon:
                return moves  # choices that are not here may still count
            before = self.slack
            self.out.divisor = common_divisor(moves.cost) or 1
            self.slack -= self.slack % self.out.divisor
            self.bound += self.relaxed.multiplier * (before - self.slack)
            step = _step(moves.value)
            if step > self.step:
                self.step = step
            elif self.slack == before:
                break
        return moves

    # -- states ----------------------------------------------------------------------------------------------------

    def fill(self, trades: _Trades) -> None:
        """Fill the slack with the best gain that fits, group after group: something to begin with."""
        left, value, chosen = self.slack, 0.0, []
        for t in range(min(len(trades), FIRST_BATCH)):
            moves = trades.trade(t)
            gain = np.where(moves.cost <= left, moves.value, 0.0)
            best = int(gain.argmin())
            if left > 0 and gain[best] < 0:
                left -= int(moves.cost[best])
                value += float(gain[best])
                chosen.append((moves.group[best], moves.item[best]))
        if value < self.best:
            self.best = value
            self.out.items = self.relaxed.base.copy()
            for group, item in chosen:
                self.out.items[group] = item

    def run(self, moves: _Moves, rest: _Slopes, cap: int | None) -> str | None:
        """One pass over the groups; the limit that fired, or None where nothing better is left."""
        self.thinned, self.history = False, []
        slack, value, batch = np.array([self.slack]), np.zeros(1), FIRST_BATCH
        while len(moves.cost):
            trades = _Trades.of(moves, rest)
            if batch == FIRST_BATCH:
                self.fill(trades)
            for t in range(min(batch, len(trades))):
                trade = trades.trade(t)
                trade = trade.part(trade.reduced < self.room)
                if not len(trade.cost):
                    continue
                slack, value = self.expand(slack, value, trade, trades.slopes(t + 1))
                self.improve(slack, value)
                if self.room <= 0 or not len(slack):
                    return None
                if (limit := self.stopped(len(slack))) is not None:
                    if not self.thinned:
                        least = float(trades.slopes(t).bounds(slack, value).min())
                        self.out.bound = max(self.bound, min(least, self.target))
                    return limit
                if cap is not None and len(slack) > cap:
                    slack, value = self.thin_out(slack, value, cap)
            if self.thinned or len(trades) <= batch:
                break
            moves = trades.after(batch)
            moves = moves.part(moves.reduced < self.room)
            batch *= BATCH_GROWTH
        return None

    def stopped(self, length: int) -> str | None:
        """The limit that fires now, if any."""
        self.out.groups += 1
        self.out.longest = max(self.out.longest, length)
        if length > LONGEST or self.out.states > self.limits.nodes:
            return "states"
        return "time" if monotonic() > self.limits.deadline else None

    def expand(self, slack: IntArray, value: FloatArray, moves: _Moves, rest: _Slopes) -> tuple[IntArray, FloatArray]:
        """All states with every move of one group, in the order of falling slack, without what is undercut."""
        cost, gain = np.append(0, moves.cost), np.append(0.0, moves.value)
        new_slack = (slack[None, :] - cost[:, None]).ravel()
        new_value = (value[None, :] + gain[:, None]).ravel()
        kept = np.flatnonzero(rest.bounds(new_slack, new_value) < self.target)
        self.out.states += len(kept)
        order = kept[np.lexsort((new_value[kept], -new_slack[kept]))]
        sorted_value = new_value[order]
        lowest = np.minimum.accumulate(sorted_value)
        order = order[np.concatenate([[True], sorted_value[1:] < lowest[:-1]])] if len(order) else order
        move, parent = np.divmod(order, len(slack))
        self.history.append((parent, np.append(-1, moves.item)[move]))
        return new_slack[order], new_value[order]

    def improve(self, slack: IntArray, value: FloatArray) -> None:
        """The last state that keeps the capacity is the best one: value falls along the list."""
        count = int(np.count_nonzero(slack >= 0))
        if count and value[count - 1] < self.best:
            self.best = float(value[count - 1])
            self.out.items = self.relaxed.base.copy()
            at = count - 1
            for parent, item in reversed(self.history):
                if item[at] >= 0:
                    group = int(np.searchsorted(self.core.start, item[at], side="right")) - 1
                    self.out.items[group] = item[at]
                at = int(parent[at])

    def thin_out(self, slack: IntArray, value: FloatArray, cap: int) -> tuple[IntArray, FloatArray]:
        """Those nearest to the capacity and some of the others; only to find good allocations, never to prove."""
        edge, half = int(np.count_nonzero(slack >= 0)), cap // 2
        place = np.arange(len(slack))
        kept = (place >= edge - half // 2) & (place < edge + half // 2) | (place % (len(slack) // half + 1) == 0)
        parent, item = self.history[-1]
        self.history[-1] = (parent[kept], item[kept])
        self.thinned = True
        return slack[kept], value[kept]


def list_program(core: Core, relaxed: Relaxed, limits: Limits, best: float) -> Listed:
    """Improve on the base; best: value of an allocation known from elsewhere (at most 0), or 0."""
    out = Listed(relaxed.base.copy())
    slack = relaxed.slack if relaxed.multiplier > 0 else 0
    search = _Search(core, relaxed, limits, out, slack, best)
    moves = search.moves()
    out.lowest = search.bound
    if search.room > 0 and core.group_count > FEW_GROUPS:
        size = np.abs(moves.cost.astype(np.float64))
        rate = np.maximum(moves.reduced, 0.0) / np.where(size > 0, size, 1.0)
        near = moves.group[np.argsort(rate, kind="stable")[:FIRST_BATCH]]
        multiplier = relaxed.multiplier
        out.limit = search.run(moves.part(np.isin(moves.group, near)), _Slopes(multiplier, multiplier), CAPS[0])
        moves = moves.part(moves.reduced < search.room)
    for cap in CAPS[core.group_count > FEW_GROUPS :]:
        if search.room <= 0 or out.limit is not None:
            break
        moves = search.tighten(moves)
        if search.room <= 0:
            break
        out.limit = search.run(moves, _Slopes(0.0, math.inf), cap)
        if not search.thinned:
            break
    out.value, out.room = search.best, search.room
    out.bound = search.best if out.limit is None else min(max(out.bound, search.bound), search.best)
    return out


def _step(values: FloatArray) -> float:
    """gcd of values that are all whole numbers; 0 otherwise."""
    if not len(values) or not (np.abs(values) < WHOLE).all() or not (np.floor(values) == values).all():
        return 0.0
    return float(common_divisor(values.astype(np.int64)))


def _alternating(order: IntArray, uses: BoolArray) -> IntArray:
    """In turn one that uses capacity and one that frees some: the lists stay near the capacity."""
    use, free = order[uses[order]], order[~uses[order]]
    paired = min(len(use), len(free))
    mixed = np.stack([use[:paired], free[:paired]], axis=1).ravel()
    return np.concatenate([mixed, use[paired:], free[paired:]])
