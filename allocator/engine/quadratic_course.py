"""The best allocation that starts, descents and kicks come by; budgets in iterations, never in seconds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np

from allocator.engine import native
from allocator.engine.quadratic_model import Compact
from allocator.engine.quadratic_search import searched
from allocator.evaluation import Outcome
from allocator.protocols import Limits
from allocator.statement import FloatArray, IntArray

SLOWER = 50  # numpy gets so much less to do than C
KICKS = 300
KICKED = 2e6  # kicks times choices, at most: each looks at all choices a few times
TIGHTER = 4e-16  # of a row's size: where sums in another order break a row


class Course:
    """The best feasible allocation so far, and the ways to a better one.

    best: evaluated by the core's own arithmetic; None until something is feasible. Better ones are reported as they
    are found. effort: times the iterations.
    """

    def __init__(self, form: Compact, limits: Limits, effort: float, engine: str | None) -> None:
        self.form = form
        self.limits = limits
        self.engine = engine
        self.numpy = engine == "numpy" or native() is None
        self.effort = effort / (SLOWER if self.numpy else 1)
        self.best: Outcome | None = None
        self.worth = math.inf

    @property
    def taken(self) -> IntArray:
        """The best allocation in the engine's form (rows [G]); there has to be one."""
        assert self.best is not None
        return np.searchsorted(self.form.row, self.best.rows)

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return self.limits.left <= 0

    def begin(self, taken: IntArray, *, kicks: int = 0, salt: int = 0) -> None:
        """Search from an allocation in the engine's form, and keep what is feasible and better."""
        form = self.form
        for _ in range(2):
            found = searched(
                form,
                taken,
                kicks=kicks,
                seed=self.limits.seed + (salt << 32),
                seconds=self.limits.left,
                engine=self.engine,
            )
            if found is None or self.offer(found):
                return
            slack = TIGHTER * len(found) * form.size
            form = dataclasses.replace(form, lo=form.lo + slack, hi=form.hi - slack)

    def offer(self, taken: IntArray) -> bool:
        """Keep an allocation if it is feasible and better; whether it is feasible."""
        source = self.form.source
        rows = self.form.row[taken]
        if self.best is not None and np.array_equal(rows, self.best.rows):
            return True
        total = self.form.total(taken)
        if total > self.worth + self.form.least:
            return True
        outcome = source.problem.evaluate(rows - source.problem.indptr[:-1])
        if not outcome.feasible:
            return False
        if self.best is None or outcome.objective < self.best.objective:
            self.best, self.worth = outcome, total
            if self.limits.report is not None:
                self.limits.report(rows - source.problem.indptr[:-1])
        return True

    def begin_all(self, starts: Iterable[IntArray]) -> None:
        """Begin at each of them while there is time."""
        for taken in starts:
            if self.late and self.best is not None:
                return
            self.begin(taken)

    def first(self) -> None:
        """From each group's least value, and from the least with every other group at its mean: greedy."""
        form = self.form
        part = 1.0 / np.diff(form.start)[form.group]
        along = form.vectors * part[:, None]
        own = np.add.reduceat(along, form.start[:-1], axis=0)
        mean = form.vectors @ (form.sign * along.sum(axis=0))
        mean -= np.einsum("nr,nr->n", form.vectors * form.sign, own[form.group])
        mean += np.bincount(form.ends, form.worth * part[form.partner], form.choices)
        self.begin_all([least_of(form, form.value), least_of(form, form.value + mean)])

    def draws(self, count: int) -> None:
        """From random allocations."""
        rng = np.random.default_rng(self.limits.seed)
        sizes = np.diff(self.form.start)
        self.begin_all(self.form.start[:-1] + rng.integers(0, sizes) for _ in range(count))

    def kick(self, count: float = KICKS, salt: int = 1) -> None:
        """Iterated local search from the best."""
        if self.best is not None and not self.late:
            count = min(count, KICKED / self.form.choices)
            self.begin(self.taken, kicks=int(self.effort * count) + 1, salt=salt)

    @property
    def spread(self) -> float:
        """A thousandth of the sum of the taken choices' own |values|: a unit where the loss is 0."""
        return 1e-3 * float(np.abs(self.form.value[self.taken]).sum())


def least_of(form: Compact, column: FloatArray) -> IntArray:
    """The row of the smallest entry of each group [G]."""
    spans = zip(form.start[:-1].tolist(), form.start[1:].tolist(), strict=True)
    return np.array([a + int(column[a:b].argmin()) for a, b in spans], np.int64)


def roundings(form: Compact, parts: FloatArray, draws: int, seed: int) -> Iterator[IntArray]:
    """Rows [G] of the largest part of each group, then draws that take each choice as often as its part says."""
    yield least_of(form, -parts)
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield least_of(form, rng.exponential(size=len(parts)) / np.maximum(parts, 1e-9))
