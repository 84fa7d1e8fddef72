"""Local search under a limit on a loss with interactions: repair, changes of one or two groups, kicks."""

from __future__ import annotations

import numpy as np

from allocator.interaction_search import PASSES, InteractionSearch
from allocator.protocols import Limits
from allocator.quadratic import DENSE, Quadratic
from allocator.statement import BoolArray, FloatArray, IntArray
from solvers._loss_row import LossRow

REPAIRS = 5  # changes per group that a repair may take


class LossSearch(InteractionSearch):
    """As `InteractionSearch`, with the loss as one more row, whose use changes by the field of its own interactions.

    model: the objective without the limit on the loss; its interactions are those of the loss, or none.
    """

    def __init__(self, model: Quadratic, row: LossRow, limits: Limits) -> None:
        super().__init__(model, limits)
        self.row = row
        problem, linear = model.problem, model.linear
        start = problem.indptr[:-1]

        def reach(column: FloatArray) -> float:
            high = np.maximum.reduceat(np.where(linear.free, column, -np.inf), start)
            return float((high - np.minimum.reduceat(np.where(linear.free, column, np.inf), start)).sum()) or 1.0

        self._reach = np.array([reach(c) for c in self._rows.columns])
        self._loss_reach = row.model.size or 1.0
        self._unit = reach(linear.value) / max(problem.group_count, 1)

    def begin(self, taken: IntArray) -> IntArray | None:
        """Repair an allocation (rows [G]) and descend from it; its local optimum, or None where repair fails."""
        kept = self._repaired(taken.copy())
        if kept is None:
            return None
        found = self._descend(kept)
        self.offer(found)
        return found

    def offer(self, taken: IntArray) -> None:
        """Keep an allocation (rows [G]) if it is feasible and better."""
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

    def _within(self, loss: FloatArray) -> BoolArray:
        return np.asarray((loss <= self.row.hi) & (loss >= self.row.lo))

    def _repaired(self, taken: IntArray) -> IntArray | None:
        """Change by change, the most excess removed per worth lost; None where no single change removes any."""
        model, group = self.model, self.model.problem.group_of
        for _ in range(REPAIRS * len(taken)):
            use, loss = self._rows.use(taken), self.row.model.total(taken)
            excess = self._excess(use[:, None], np.array([loss]))[0]
            if excess == 0.0:
                return taken
            after = self._excess(use[:, None] + self._rows.change(taken), loss + self._gain(self.row.model, taken))
            removed = np.where(model.linear.free, excess - after, 0.0)
            lost = np.maximum(self._gain(model, taken), 0.0)
            best = int((removed / (lost + self._unit)).argmax())
            if removed[best] <= 1e-12 * excess:
                return None
            taken[group[best]] = best
        return None

    def _excess(self, use: FloatArray, loss: FloatArray) -> FloatArray:
        rows = self._rows
        over = np.maximum(np.maximum(use - rows.hi[:, None], rows.lo[:, None] - use), 0.0) / self._reach[:, None]
        missed = np.maximum(np.maximum(loss - self.row.hi, self.row.lo - loss), 0.0) / self._loss_reach
        return np.asarray(over.sum(axis=0) + missed)

    @staticmethod
    def _gain(model: Quadratic, taken: IntArray) -> FloatArray:
        """What taking each choice instead adds [N]."""
        worth = model.linear.value + model.field(taken)
        return np.asarray(worth - worth[taken][model.problem.group_of])

    def _descend(self, taken: IntArray) -> IntArray:
        """Changes of one group, then of two, until none is feasible and better."""
        problem, free, group = self.model.problem, self.model.linear.free, self.model.problem.group_of
        taken = taken.copy()
        for _ in range(PASSES):
            before = taken.copy()
            for g in self._open.tolist():
                if self.limits.left <= 0 and self.best is not None:
                    return taken
                mine = np.arange(problem.indptr[g], problem.indptr[g + 1])
                mine = mine[free[mine] & (mine != taken[g])]
                for row in self._best_change(mine, taken):
                    taken[group[row]] = row
            if np.array_equal(before, taken):
                break
        return taken

    def _best_change(self, mine: IntArray, taken: IntArray) -> tuple[int, ...]:
        """The rows to take instead: one of `mine`, or one and another group's; none where nothing is better."""
        use, change = self._rows.use(taken), self._rows.change(taken)
        loss, step = self.row.model.total(taken), self._gain(self.row.model, taken)
        gain = self._gain(self.model, taken)
        kept = self._rows.keeps(use[:, None] + change[:, mine]) & self._within(loss + step[mine])
        alone = np.where(kept, gain[mine], np.inf)
        best = float(alone.min())
        rows: tuple[int, ...] = (int(mine[int(alone.argmin())]),)
        if len(gain) <= DENSE:
            both = self._pairs(mine, taken, gain, change, use)
            both = np.where(self._within(loss + self._added(mine, taken, step)), both, np.inf)
            at = int(both.argmin())
            if both.flat[at] < min(best, 0.0) - self._least:
                best, rows = float(both.flat[at]), (int(mine[at // len(gain)]), at % len(gain))
        return rows if best < -self._least else ()

    def _added(self, mine: IntArray, taken: IntArray, gain: FloatArray) -> FloatArray:
        """What a change to each of `mine` together with each row of another group adds to the loss [len(mine), N]."""
        model, group = self.row.model, self.model.problem.group_of
        step = model.between(mine) - model.between(taken[group[mine[:1]]])
        return np.asarray(gain[mine][:, None] + gain[None, :] + step - step[:, taken][:, group])
