"""Chains in numpy: the same steps as in C, and the same allocations, to the bit where C does not fuse products."""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import monotonic

import numpy as np

from allocator.engine.chain import Chain, Chained
from allocator.statement import BoolArray, FloatArray, IntArray

CHORDS = 60
FLAT = 1e-14  # of the line: a new allocation as close to the chord ends the search
FIRST = 2**16  # the first cut is at this part of the gap between bound and value
FEW = 4  # states of a stage: after a cut with fewer the next is eight times as wide, otherwise twice


@dataclass(frozen=True, eq=False)
class _Seen:
    """An allocation [n], its value, its use and, at a price, the least of value + price·use."""

    taken: IntArray
    value: float
    use: int
    least: float = -math.inf


@dataclass(frozen=True, eq=False)
class _List:
    """States of one stage: choice, use, loss, place in the list before; by choice, uses rising and losses falling.

    ends: of each choice's part [size + 1].
    """

    ends: IntArray
    choice: IntArray
    use: IntArray
    loss: FloatArray
    parent: IntArray


def solve(chain: Chain, tolerance: float, gap: float, offset: float, seconds: float, most: int) -> Chained:
    """See `chain.solve_chain`; values near 1, capacity ≥ 0."""
    return _Search(chain, monotonic() + seconds, most).run(tolerance, gap, offset)


class _Search:
    def __init__(self, chain: Chain, deadline: float, most: int) -> None:
        self.chain, self.deadline, self.most = chain, deadline, most
        self.n = len(chain.start) - 1
        self.parts = [slice(a, b) for a, b in zip(chain.start[:-1].tolist(), chain.start[1:].tolist(), strict=True)]
        sizes = np.diff(chain.start).tolist()
        self.tables = [
            chain.table[chain.begin[i] : chain.begin[i + 1]].reshape(sizes[i], sizes[i + 1]) for i in range(self.n - 1)
        ]
        self.price, self.bound = 0.0, -math.inf
        self.states = 0

    def run(self, tolerance: float, gap: float, offset: float) -> Chained:
        best = self.best_priced()
        bound, cuts, limit = self.bound, 0, 0
        width = (best.value - bound) / FIRST
        if best.value - bound > tolerance:
            self.before, self.after = self.completions()
        while True:
            wide = max(tolerance, gap * abs(best.value + offset))
            if not best.value - bound > wide:
                if wide <= tolerance:
                    bound = best.value
                break
            cut = min(bound + width, best.value - wide)
            cuts += 1
            earlier = self.states
            limit, found = self.below(cut)
            if limit:
                break
            if found is not None:
                best, bound = found, found.value
                break
            if cut == best.value - wide:
                bound = best.value if wide <= tolerance else cut
                break
            bound = cut
            width *= 8 if self.states - earlier <= FEW * self.n else 2
        names = {0: None, 1: "time", 2: "states"}
        return Chained(best.taken, best.value, bound, self.price, self.states, cuts, names[limit])

    # -- prices ----------------------------------------------------------------------------------------------------

    def best_priced(self) -> _Seen:
        """The best allocation met on the way to the price of the highest bound."""
        room = float(self.chain.capacity)
        over = self.least(0.0)
        self.bound = over.least
        if over.use <= self.chain.capacity:
            self.bound = over.value
            return over
        best = under = self.cheapest()
        for _ in range(CHORDS):
            price = (under.value - over.value) / float(over.use - under.use)
            if not price > 0 or monotonic() > self.deadline:
                break
            new = self.least(price)
            if new.least - price * room > self.bound:
                self.bound, self.price = new.least - price * room, price
            if new.use <= self.chain.capacity and new.value < best.value:
                best = new
            line = over.value + price * float(over.use)
            if not new.least < line - FLAT * (abs(line) + abs(over.value)):
                break
            if new.use > self.chain.capacity:
                over = new
            else:
                under = new
        return best

    def least(self, price: float) -> _Seen:
        """The first allocation of least value + price·use."""
        along = self.chain.value + price * self.chain.cost.astype(np.float64)
        reached, back = along[self.parts[0]], []
        for i, table in enumerate(self.tables):
            through = reached[:, None] + table
            back.append(through.argmin(axis=0))
            reached = through.min(axis=0) + along[self.parts[i + 1]]
        place = int(reached.argmin())
        least, places = float(reached[place]), [place]
        for step in reversed(back):
            places.append(int(step[places[-1]]))
        return self.seen(places[::-1], least)

    def cheapest(self) -> _Seen:
        """Of each stage, the first choice of least value among those that use nothing."""
        part = ((self.chain.value[p], self.chain.cost[p]) for p in self.parts)
        return self.seen([int(np.where(cost == 0, value, np.inf).argmin()) for value, cost in part])

    def seen(self, places: list[int], least: float = -math.inf) -> _Seen:
        taken = self.chain.start[:-1] + np.array(places, np.int64)
        value = 0.0
        for i, row in enumerate(taken.tolist()):
            between = float(self.tables[i - 1][places[i - 1], places[i]]) if i else 0.0
            value += between + float(self.chain.value[row])
        return _Seen(taken, value, int(self.chain.cost[taken].sum()), least)

    def completions(self) -> tuple[FloatArray, FloatArray]:
        """At the price: the least that the stages before, and that those after each choice add [m]."""
        along = self.chain.value + self.price * self.chain.cost.astype(np.float64)
        before, after = np.zeros(len(along)), np.zeros(len(along))
        for i, table in enumerate(self.tables):
            here, there = self.parts[i], self.parts[i + 1]
            before[there] = ((before[here] + along[here])[:, None] + table).min(axis=0)
        for i in range(self.n - 2, -1, -1):
            here, there = self.parts[i], self.parts[i + 1]
            after[here] = (self.tables[i] + (after[there] + along[there])[None, :]).min(axis=1)
        return before, after

    # -- lists -----------------------------------------------------------------------------------------------------

    def below(self, cut: float) -> tuple[int, _Seen | None]:
        """The limit that fired (0: none) and the best allocation below the cut."""
        chain = self.chain
        level = cut + self.price * float(chain.capacity)
        along = chain.value + self.price * chain.cost.astype(np.float64)
        alive = (self.before + along) + self.after < level
        left = [self.first(0, alive)]
        right = [self.first(self.n - 1, alive)]
        count = 0
        while len(left) + len(right) < self.n:
            if monotonic() > self.deadline:
                return 1, None
            if count > self.most:
                return 2, None
            if len(left[-1].use) <= len(right[-1].use):
                i = len(left)
                new = self.extend(left[-1], i, self.tables[i - 1], level - self.after, alive)
                left.append(new)
            else:
                i = self.n - 1 - len(right)
                new = self.extend(right[-1], i, self.tables[i].T, level - self.before, alive)
                right.append(new)
            count += len(new.use)
            self.states += len(new.use)
            if not len(new.use):
                return 0, None
        return 0, self.joined(left, right, cut)

    def first(self, i: int, alive: BoolArray) -> _List:
        """The states of a stage at an end."""
        rows = np.arange(self.chain.start[i], self.chain.start[i + 1])
        kept = rows[alive[rows] & (self.chain.cost[rows] <= self.chain.capacity)]
        ends = np.searchsorted(kept, np.append(rows, rows[-1] + 1))
        return _List(ends, kept, self.chain.cost[kept], self.chain.value[kept], np.full(len(kept), -1))

    def extend(self, old: _List, i: int, table: FloatArray, reach: FloatArray, alive: BoolArray) -> _List:
        """The states of stage i next to a list; table [size of the list's stage, size of i]."""
        chain = self.chain
        place = np.repeat(np.arange(len(old.ends) - 1), np.diff(old.ends))
        ends, columns = [0], []
        for k, row in enumerate(range(int(chain.start[i]), int(chain.start[i + 1]))):
            kept = np.zeros(0, np.int64)
            if alive[row]:
                use = old.use + chain.cost[row]
                loss = old.loss + (table[place, k] + chain.value[row])
                hopeful = (use <= chain.capacity) & (loss + self.price * use.astype(np.float64) < reach[row])
                kept = np.flatnonzero(hopeful)
                kept = kept[np.lexsort((loss[kept], use[kept]))]
                lowest = np.minimum.accumulate(loss[kept])
                kept = kept[np.append(True, loss[kept][1:] < lowest[:-1])] if len(kept) else kept
                columns.append((np.full(len(kept), row), use[kept], loss[kept], kept))
            ends.append(ends[-1] + len(kept))
        if not columns:
            nothing = np.zeros(0, np.int64)
            return _List(np.array(ends), nothing, nothing, np.zeros(0), nothing)
        choice, use, loss, parent = (np.concatenate(c) for c in zip(*columns, strict=True))
        return _List(np.array(ends), choice, use, loss, parent)

    def joined(self, left: list[_List], right: list[_List], cut: float) -> _Seen | None:
        """The first best allocation over where the two sides meet, if it is below the cut."""
        a, b = left[-1], right[-1]
        table = self.tables[len(left) - 1]
        best, ends = cut, (-1, -1)
        for k in range(len(a.ends) - 1):
            mine = slice(int(a.ends[k]), int(a.ends[k + 1]))
            for h in range(len(b.ends) - 1):
                theirs = slice(int(b.ends[h]), int(b.ends[h + 1]))
                at = np.searchsorted(b.use[theirs], self.chain.capacity - a.use[mine], side="right") - 1
                fits = np.flatnonzero(at >= 0)
                if not len(fits):
                    continue
                total = (a.loss[mine][fits] + table[k, h]) + b.loss[theirs][at[fits]]
                least = int(total.argmin())
                if total[least] < best:
                    best = float(total[least])
                    ends = (mine.start + int(fits[least]), theirs.start + int(at[fits[least]]))
        if ends[0] < 0:
            return None
        places = [*self.places(left, ends[0])[::-1], *self.places(right, ends[1])]
        return self.seen([p - int(first) for p, first in zip(places, self.chain.start[:-1], strict=True)])

    @staticmethod
    def places(lists: list[_List], at: int) -> list[int]:
        """The choices behind an entry of the last list, from there to the end of the chain."""
        found = []
        for states in reversed(lists):
            found.append(int(states.choice[at]))
            at = int(states.parent[at])
        return found
