"""Repair, one- and two-group moves and kicks for an allocation with interactions; numpy only, one seed one result.

The loss of a change is known from a field, what each choice would add as the others stand: a change of one group
costs O(1), one of two groups O(1) more, and only an accepted change costs O(N). (Iterated local search as in
Lourenço, Martin and Stützle, 2003.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from allocator.evaluation import Outcome
from allocator.local_search import repaired
from allocator.protocols import Limits
from allocator.quadratic import DENSE, Quadratic
from allocator.row_use import RowUse
from allocator.statement import FloatArray, IntArray

TINY = 1e-13  # of the size of the problem: a smaller gain is rounding
PASSES = 100
KICKED = (2, 5)  # groups that a kick changes


class InteractionSearch:
    """The best feasible allocation that repair, descent and kicks reach from where they begin.

    best: it, evaluated; None until something is feasible. Better ones are reported as they are found.
    """

    def __init__(self, model: Quadratic, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.best: Outcome | None = None
        self._rows = RowUse(model.linear)
        self._least = TINY * model.size
        free = np.flatnonzero(model.linear.free)
        self._open = np.flatnonzero(np.bincount(model.problem.group_of[free], minlength=model.problem.group_count) > 1)

    @property
    def choice(self) -> IntArray | None:
        """Index within each group [G]."""
        return None if self.best is None else self.best.rows - self.model.problem.indptr[:-1]

    def begin(self, taken: IntArray) -> IntArray | None:
        """Repair an allocation (rows [G]) and descend from it; its local optimum, or None where repair fails."""
        linear = self.model.linear
        field = self.model.field(taken)
        kept = repaired(dataclasses.replace(linear, value=linear.value + field), taken)
        if kept is None:
            return None
        found = self._descend(kept)
        self.offer(found)
        return found

    def kick(self, times: int, seed: int) -> None:
        """So many times: move a few groups of the best by a choice up or down, repair, descend, keep what is better."""
        rng = np.random.default_rng(seed)
        problem, free = self.model.problem, self.model.linear.free
        if self.best is None or not len(self._open):
            return
        now, worth = self.best.rows, self.best.objective
        for _ in range(times):
            if self.limits.left <= 0:
                return
            count = min(int(rng.integers(KICKED[0], KICKED[1] + 1)), len(self._open))
            taken = now.copy()
            for g in rng.choice(self._open, count, replace=False).tolist():
                mine = np.arange(problem.indptr[g], problem.indptr[g + 1])
                mine = mine[free[mine]]
                place = int(np.searchsorted(mine, taken[g])) + (1 if rng.random() < 0.5 else -1)
                taken[g] = mine[place % len(mine)]
            found = self.begin(taken)
            if found is None:
                continue
            value = self.model.linear.objective(self.model.total(found))
            if value <= worth:
                now, worth = found, value

    def begin_all(self, starts: Iterable[IntArray]) -> None:
        """Begin at each of them while there is time."""
        for taken in starts:
            if self.best is not None and self.limits.left <= 0:
                return
            self.begin(taken)

    def offer(self, taken: IntArray) -> None:
        """Keep an allocation (rows [G]) as it is, if it is better and feasible by the core's own arithmetic.

        The search's own sums are stricter than a limit of floats that is met to the last bit, so that `begin` may
        repair what needs none: who has a feasible allocation offers it first.
        """
        problem = self.model.problem
        if self.best is not None:
            if np.array_equal(self.best.rows, taken):
                return
            value = self.model.linear.objective(self.model.total(taken))
            if value > self.best.objective + self._least:
                return
        outcome = problem.evaluate(taken - problem.indptr[:-1])
        if outcome.feasible and (self.best is None or outcome.objective < self.best.objective):
            self.best = outcome
            if self.limits.report is not None:
                self.limits.report(taken - problem.indptr[:-1])

    def _descend(self, taken: IntArray) -> IntArray:
        """Changes of one group, then of two, until none is feasible and better."""
        model, problem = self.model, self.model.problem
        group, free = problem.group_of, model.linear.free
        taken = taken.copy()
        use = self._rows.use(taken)
        field = model.field(taken)
        double = problem.choice_count <= DENSE
        for _ in range(PASSES):
            before = taken.copy()
            for g in self._open.tolist():
                if self.limits.left <= 0 and self.best is not None:
                    return taken
                mine = np.arange(problem.indptr[g], problem.indptr[g + 1])
                mine = mine[free[mine] & (mine != taken[g])]
                worth = model.linear.value + field
                gain = worth - worth[taken][group]
                change = self._rows.change(taken)
                alone = np.where(self._rows.keeps(use[:, None] + change[:, mine]), gain[mine], np.inf)
                best, first, second = float(alone.min()), int(mine[int(alone.argmin())]), -1
                if double:
                    both = self._pairs(mine, taken, gain, change, use)
                    at = int(both.argmin())
                    if both.flat[at] < min(best, 0.0) - self._least:
                        best = float(both.flat[at])
                        first, second = int(mine[at // len(group)]), at % len(group)
                if best >= -self._least:
                    continue
                for row in (first, second) if second >= 0 else (first,):
                    h = int(group[row])
                    step = model.between(np.array([row, taken[h]]))
                    field += step[0] - step[1]
                    taken[h] = row
                use = self._rows.use(taken)
            if np.array_equal(before, taken):
                break
        return taken

    def _pairs(
        self, mine: IntArray, taken: IntArray, gain: FloatArray, change: FloatArray, use: FloatArray
    ) -> FloatArray:
        """What a change to each of `mine` together with each row of another group adds [len(mine), N]."""
        group = self.model.problem.group_of
        step = self.model.between(mine) - self.model.between(taken[group[mine[:1]]])
        added = gain[mine][:, None] + gain[None, :] + step - step[:, taken][:, group]
        allowed = self.model.linear.free & (group != group[mine[0]])
        kept = self._rows.keeps(use[:, None, None] + change[:, mine][:, :, None] + change[:, None, :])
        return np.where(allowed[None, :] & kept, added, np.inf)
