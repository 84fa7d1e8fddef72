"""Local search where the loss is a row, which the engine's cannot hold: repair, changes of one or two groups, kicks."""

from __future__ import annotations

import numpy as np

from allocator.evaluation import Outcome
from allocator.protocols import Limits
from allocator.quadratic import DENSE, Quadratic
from allocator.row_use import RowUse
from allocator.statement import BoolArray, FloatArray, IntArray
from solvers._loss_row import LossRow

REPAIRS = 5  # changes per group that a repair may take
PASSES = 100
TINY = 1e-13  # of the size of the problem: a smaller gain is rounding
KICKED = (2, 5)  # groups that a kick changes
WORK = 2e5  # kicks · groups · choices, at most


class LossSearch:
    """The best allocation that keeps every row and the limits on the loss, as far as the search has come.

    model: the objective without the limits on the loss. least: a smaller gain is rounding. best: evaluated on the
    problem as stated; None until something is feasible. Better ones are reported as they are found.
    """

    def __init__(self, model: Quadratic, row: LossRow, limits: Limits) -> None:
        self.model, self.row, self.limits = model, row, limits
        self.best: Outcome | None = None
        self._rows = RowUse(model.linear)
        self.least = TINY * model.size
        self._group = model.problem.group_of
        count = np.bincount(self._group[model.linear.free], minlength=model.problem.group_count)
        self._open = np.flatnonzero(count > 1)
        self._reach = np.array([self._range(c) for c in self._rows.columns])
        self._loss_reach = row.model.size or 1.0
        self._unit = self._range(model.linear.value) / max(model.problem.group_count, 1)

    def begin(self, taken: IntArray) -> None:
        """Keep an allocation (rows [G]) if it is feasible and better; then repair it and descend from it."""
        self.offer(taken)
        found = self._reached(taken)
        if found is not None:
            self.offer(found)

    def offer(self, taken: IntArray) -> None:
        """Keep an allocation (rows [G]) as it is, if it is feasible and better."""
        if self.best is not None and np.array_equal(self.best.rows, taken):
            return
        if self.row.counts_remainders and not self._within(np.array(self.row.model.total(taken))):
            return
        choice = taken - self.model.problem.indptr[:-1]
        outcome = self.row.stated.evaluate(choice)
        if outcome.feasible and (self.best is None or outcome.objective < self.best.objective):
            self.best = outcome
            if self.limits.report is not None:
                self.limits.report(choice)

    def kick(self, times: int) -> None:
        """So many times: move a few groups by a choice up or down, repair, descend, keep what is no worse."""
        if self.best is None or not len(self._open):
            return
        rng = np.random.default_rng(self.limits.seed)
        now = self.best.rows
        worth = self.model.total(now)
        for _ in range(min(times, int(WORK / (len(now) * len(self._group))) + 1)):
            if self.limits.left <= 0:
                return
            taken = now.copy()
            count = min(int(rng.integers(*KICKED, endpoint=True)), len(self._open))
            for g in rng.choice(self._open, count, replace=False).tolist():
                mine = self._choices(g)
                place = int(np.searchsorted(mine, taken[g])) + (1 if rng.random() < 0.5 else -1)
                taken[g] = mine[place % len(mine)]
            found = self._reached(taken)
            if found is not None and self.model.total(found) <= worth:
                self.offer(found)
                now, worth = found, self.model.total(found)

    def _choices(self, g: int) -> IntArray:
        start = self.model.problem.indptr
        mine = np.arange(start[g], start[g + 1])
        return np.asarray(mine[self.model.linear.free[mine]])

    def _range(self, column: FloatArray) -> float:
        start, free = self.model.problem.indptr[:-1], self.model.linear.free
        high = np.maximum.reduceat(np.where(free, column, -np.inf), start)
        return float((high - np.minimum.reduceat(np.where(free, column, np.inf), start)).sum()) or 1.0

    def _within(self, loss: FloatArray) -> BoolArray:
        return np.asarray((loss <= self.row.hi) & (loss >= self.row.lo))

    def _gain(self, model: Quadratic, taken: IntArray) -> FloatArray:
        """What taking each choice instead adds [N]."""
        worth = model.linear.value + model.field(taken)
        return np.asarray(worth - worth[taken][self._group])

    def _excess(self, use: FloatArray, loss: FloatArray) -> FloatArray:
        rows = self._rows
        over = np.maximum(np.maximum(use - rows.hi[:, None], rows.lo[:, None] - use), 0.0) / self._reach[:, None]
        missed = np.maximum(np.maximum(loss - self.row.hi, self.row.lo - loss), 0.0) / self._loss_reach
        return np.asarray(over.sum(axis=0) + missed)

    def _reached(self, taken: IntArray) -> IntArray | None:
        """Repaired, change by change the most excess removed per worth lost, and descended; None where that fails."""
        model, taken = self.model, taken.copy()
        for _ in range(REPAIRS * len(taken)):
            use, loss = self._rows.use(taken), self.row.model.total(taken)
            excess = self._excess(use[:, None], np.array([loss]))[0]
            if excess == 0.0:
                self.offer(taken)  # a descent takes its time
                return self._descended(taken)
            if self.limits.left <= 0 and self.best is not None:
                return None
            after = self._excess(use[:, None] + self._rows.change(taken), loss + self._gain(self.row.model, taken))
            removed = np.where(model.linear.free, excess - after, 0.0)
            lost = np.maximum(self._gain(model, taken), 0.0)
            best = int((removed / (lost + self._unit)).argmax())
            if removed[best] <= 1e-12 * excess:
                return None
            taken[self._group[best]] = best
        return None

    def _descended(self, taken: IntArray) -> IntArray:
        """After changes of one group or two, until none is feasible and better."""
        for _ in range(PASSES):
            before = taken.copy()
            for g in self._open.tolist():
                if self.limits.left <= 0 and self.best is not None:
                    return taken
                for row in self._best_change(g, taken):
                    taken[self._group[row]] = row
            if np.array_equal(before, taken):
                break
        return taken

    def _best_change(self, g: int, taken: IntArray) -> tuple[int, ...]:
        """The rows to take instead: one of group g, or one and another group's; none where nothing is better."""
        mine = self._choices(g)
        mine = mine[mine != taken[g]]
        use, change = self._rows.use(taken), self._rows.change(taken)
        loss, step = self.row.model.total(taken), self._gain(self.row.model, taken)
        gain = self._gain(self.model, taken)
        kept = self._rows.keeps(use[:, None] + change[:, mine]) & self._within(loss + step[mine])
        alone = np.where(kept, gain[mine], np.inf)
        best, rows = float(alone.min()), (int(mine[int(alone.argmin())]),)
        if len(gain) <= DENSE:
            use = use[:, None, None] + change[:, mine][:, :, None] + change[:, None, :]
            kept = self._rows.keeps(use) & self._within(loss + self._added(self.row.model, mine, taken, step))
            kept &= self.model.linear.free & (self._group != g)
            both = np.where(kept, self._added(self.model, mine, taken, gain), np.inf)
            at = int(both.argmin())
            if both.flat[at] < min(best, 0.0) - self.least:
                return int(mine[at // len(gain)]), at % len(gain)
        return rows if best < -self.least else ()

    def _added(self, model: Quadratic, mine: IntArray, taken: IntArray, gain: FloatArray) -> FloatArray:
        """What a change to each of `mine` together with each row of another group adds [len(mine), N]."""
        step = model.between(mine) - model.between(taken[self._group[mine[:1]]])
        return np.asarray(gain[mine][:, None] + gain[None, :] + step - step[:, taken][:, self._group])
