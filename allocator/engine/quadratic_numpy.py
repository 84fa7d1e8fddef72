"""Local search with interactions in numpy: the twin of quadratic_state.c and quadratic_search.c, step by step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import monotonic

import numpy as np

from allocator.engine.quadratic_model import Compact
from allocator.statement import FloatArray, IntArray

PASSES = 1000
WORSE = 1e-3
MASK = (1 << 64) - 1


@dataclass(eq=False)
class State:
    """An allocation under way: rows taken [G], field [n] (with a matrix) or sum [r], uses [R], total."""

    model: Compact
    taken: IntArray
    random: int
    deadline: float
    use: FloatArray = field(default_factory=lambda: np.zeros(0))
    total: float = 0.0
    moved: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.set(self.taken)

    def set(self, taken: IntArray) -> None:
        """Everything afresh from an allocation."""
        self.taken = taken.copy()
        self.use = np.zeros(len(self.model.lo))
        for row in self.taken:
            self.use = self.use + self.model.column[row]
        self.total = self.model.total(self.taken)

    def draw(self) -> float:
        """A number in [0, 1): splitmix64 (Steele, Lea and Flood, 2014)."""
        self.random = z = (self.random + 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return ((z ^ (z >> 31)) >> 11) * 2.0**-53

    def below(self, n: int) -> int:
        """An integer from 0 to n − 1."""
        return int(self.draw() * n)

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return monotonic() > self.deadline

    def gains(self) -> FloatArray:
        """What each change adds [n]."""
        worth = self.model.value + self.model.field(self.taken)
        return np.asarray(worth - worth[self.taken][self.model.group])

    def changes(self) -> FloatArray:
        """What each change adds to the uses [n, R]."""
        return np.asarray(self.model.column - self.model.column[self.taken][self.model.group])

    def excess(self, use: FloatArray) -> FloatArray:
        """By how much uses […, R] leave the limits."""
        m = self.model
        out = np.maximum(use - m.hi, 0.0) + np.maximum(m.lo - use, 0.0)
        return np.asarray((out / m.size).sum(axis=-1))

    def cross(self, a: int) -> FloatArray:
        """What a change to `a` and one to each other row [n] add beyond their gains."""
        m = self.model
        x = int(self.taken[m.group[a]])
        if m.matrix is not None:
            step = m.matrix[a].astype(np.float64) - m.matrix[x]
        else:
            step = m.vectors @ (m.sign * (m.vectors[a] - m.vectors[x]))
            for row, sign in ((a, 1.0), (x, -1.0)):
                part = slice(int(m.first[row]), int(m.first[row + 1]))
                step[m.partner[part]] += sign * m.worth[part]
        return np.asarray(step - step[self.taken][m.group])

    def move(self, row: int) -> None:
        """Take a row in its group."""
        m = self.model
        g = int(m.group[row])
        self.total += float(self.gains()[row])
        self.use = self.use + (m.column[row] - m.column[self.taken[g]])
        self.taken[g] = row
        self.moved.add(g)

    def repair(self) -> bool:
        """Least loss for each part of the excess that a change removes; whether every row is kept at last."""
        m = self.model
        batch = 1 if m.matrix is not None else 1 + m.groups // 64
        for _ in range(64 * m.groups):
            excess = float(self.excess(self.use))
            if excess == 0:
                return True
            if self.late:
                return False
            removed = excess - self.excess(self.use + self.changes())
            usable = removed > 1e-12 * excess
            usable[self.taken] = False
            key = np.where(usable, self.gains() / np.where(usable, removed, 1.0), np.inf)
            best = np.array([s + int(key[s:e].argmin()) for s, e in zip(m.start[:-1], m.start[1:], strict=True)])
            moved = False
            for row in best[np.argsort(key[best], kind="stable")][:batch].tolist():
                now = float(self.excess(self.use))
                if key[row] < math.inf and now - float(self.excess(self.use + self.changes()[row])) > 1e-12 * now:
                    self.move(row)
                    moved = True
            if not moved:
                return False
        return False

    def best_of(self, g: int) -> list[int]:
        """The rows of the best change of group g, alone or (with a matrix) with one of another group."""
        m = self.model
        gains, changes = self.gains(), self.changes()
        best, found = -m.least, []
        for k in range(int(m.start[g]), int(m.start[g + 1])):
            if k == self.taken[g]:
                continue
            if gains[k] < best and self.excess(self.use + changes[k]) == 0:
                best, found = float(gains[k]), [k]
            if m.matrix is None:
                continue
            both = gains[k] + gains + self.cross(k)
            both[m.group == g] = np.inf
            both[self.taken] = np.inf
            both[self.excess(self.use + changes[k] + changes) > 0] = np.inf
            at = int(both.argmin())
            if both[at] < best:
                best, found = float(both[at]), [k, at]
        return found

    def descend(self, touched: bool = False) -> None:
        """Changes of one group, or two, until none is feasible and better; from the groups that moved alone."""
        quiet = 0
        for _ in range(PASSES):
            for g in range(self.model.groups):
                if quiet >= self.model.groups or self.late:
                    return
                quiet += 1
                if touched and g not in self.moved:
                    continue
                for row in self.best_of(g):
                    self.move(row)
                    quiet = 0

    def kick(self) -> None:
        """Two to five groups by a choice up or down."""
        m = self.model
        for _ in range(2 + self.below(4)):
            g = self.below(m.groups)
            first, size = int(m.start[g]), int(m.start[g + 1] - m.start[g])
            up = 1 if self.draw() < 0.5 else size - 1
            if size > 1:
                self.move(first + (int(self.taken[g]) - first + up) % size)

    def climb(self, kicks: int) -> bool:
        """Repair and descend; then so often: kick, repair, descend from what moved, and back if much worse."""
        if not self.repair():
            return False
        self.descend()
        self.set(self.taken)
        keep, worth = self.taken.copy(), self.total
        best, lowest = keep, worth
        for i in range(kicks):
            if self.late:
                break
            self.moved.clear()
            self.kick()
            kept = self.repair()
            if kept:
                self.descend(touched=True)
                self.set(self.taken)
            if kept and (self.total <= worth or self.total <= lowest + WORSE * (1 - i / kicks) * abs(lowest)):
                keep, worth = self.taken.copy(), self.total
            else:
                self.set(keep)
            if self.total < lowest:
                best, lowest = self.taken.copy(), self.total
        if kicks:
            self.set(best)
            if not self.repair():
                return False
            self.descend()
        self.set(self.taken)
        return not float(self.excess(self.use)) > 0 or self.repair()
