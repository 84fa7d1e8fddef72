"""From any allocation to a better one under interactions: the local search of `quadratic`, for other backends."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np

from allocator.engine.quadratic_course import SLOWER, Course, roundings
from allocator.engine.quadratic_model import Compact, compact
from allocator.evaluation import Outcome
from allocator.local_search import repaired
from allocator.protocols import Limits
from allocator.quadratic import Quadratic
from allocator.statement import FloatArray, IntArray

KICKS = 10_000
WORK = 1e7  # kicks times choices, at most
FRESH = 8  # random allocations to kick from
DRAWS = 8


class Improving:
    """The best feasible allocation that repair, changes of one and two groups and kicks reach from where they begin.

    Better ones are reported as they are found. Seeds and iterations decide, not time.
    """

    def __init__(self, model: Quadratic, limits: Limits, form: Compact | None = None) -> None:
        self.model, self.limits = model, limits
        self.course = Course(compact(model) if form is None else form, limits, 1.0, None)

    @property
    def best(self) -> Outcome | None:
        """Evaluated by the core's own arithmetic; None until something is feasible."""
        return self.course.best

    def begin(self, taken: IntArray) -> None:
        """Keep an allocation (rows [G]) if it is feasible and better; then search from it, repaired where it is not.

        Late, the first feasible one is still sought: a repair takes little, and without an allocation there is no
        answer.
        """
        course, inside = self.course, self.course.form.inside(taken)
        if inside is None:
            return
        course.offer(inside)
        course.begin(inside)
        if course.best is None:
            linear = self.model.linear
            priced = dataclasses.replace(linear, value=linear.value + self.model.field(taken))
            kept = repaired(priced, taken)
            if kept is not None and (inside := course.form.inside(kept)) is not None:
                course.offer(inside)
                course.begin(inside)

    def begin_all(self, starts: Iterable[IntArray]) -> None:
        """Begin at each of them while there is time."""
        for taken in starts:
            if self.best is not None and self.limits.left <= 0:
                return
            self.begin(taken)

    def rounded(self, x: FloatArray) -> Iterator[IntArray]:
        """Allocations (rows [G]) from parts of choices [N]: the largest of each group, then draws by parts."""
        form = self.course.form
        for taken in roundings(form, x[form.row], DRAWS, self.limits.seed):
            yield form.row[taken]

    def kick(self, times: int) -> None:
        """Perturb, repair and descend so many times: half from random allocations, the others from the best so far.

        Beyond 1,000 choices fewer times, by WORK; in numpy a fiftieth.
        """
        course, form = self.course, self.course.form
        if not times:
            return
        times = math.ceil(min(times, WORK / form.choices) / (SLOWER if course.numpy else 1))
        rng, sizes = np.random.default_rng(self.limits.seed), np.diff(form.start)
        each = times // (2 * FRESH)
        for salt in range(2, 2 + FRESH):
            if self.limits.left > 0:
                course.begin(form.start[:-1] + rng.integers(0, sizes), kicks=each, salt=salt)
        if course.best is not None and self.limits.left > 0:
            course.begin(course.taken, kicks=times - FRESH * each, salt=1)
