"""Our own engine for losses with interactions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.certificate import Multipliers
from allocator.checks.lagrangian import single_row_infeasible
from allocator.engine import native, running
from allocator.engine.quadratic_course import Course
from allocator.engine.quadratic_model import compact
from allocator.engine.separable import Separated, solve_separable
from allocator.errors import UsageError
from allocator.features import LINEAR
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.quadratic import Quadratic as Model
from allocator.quadratic import quadratic
from allocator.solution import Answer

ENGINES = ("auto", "c", "numpy")


@dataclass(frozen=True, kw_only=True)
class Quadratic:
    """Local search with interactions."""

    effort: float = 1.0
    engine: str = "auto"

    name: ClassVar[str] = "quadratic"
    features: ClassVar[frozenset[str]] = LINEAR | {"pairs", "basis"}
    exactness: ClassVar[Exactness] = Exactness.BOUNDED
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError(f"quadratic: engine={self.engine!r}; give {', '.join(ENGINES)}")
        if self.engine == "c" and native() is None:
            what = "ALLOCATOR_ENGINE=numpy turns it off" if os.environ.get("ALLOCATOR_ENGINE") else "it was not built"
            raise UsageError(f"quadratic: engine='c': {what}; use 'auto' or 'numpy'")
        if not 0 < self.effort <= 1e6:
            raise UsageError(f"quadratic: effort={self.effort}; give a number above 0 and at most 1e6")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """The best allocation found."""
        model = quadratic(problem)
        stuck = not np.logical_or.reduceat(model.linear.free, problem.indptr[:-1]).all()
        if stuck or single_row_infeasible(model.linear) is not None:
            return Answer(claim="infeasible")
        alone = self._separable(model, limits)
        if alone.infeasible:
            return Answer(claim="infeasible", certificate=Multipliers(alone.prices))
        form = compact(model)
        course = Course(form, limits, self.effort, self._engine)
        for rows in (alone.rows, None if start is None else problem.indptr[:-1] + start):
            if rows is not None and (taken := form.inside(rows)) is not None:
                course.offer(taken)
                course.begin(taken)
        course.first()
        course.draws(4)
        course.kick()
        course.anneal()
        best = course.best
        return Answer(
            choice=None if best is None else best.rows - problem.indptr[:-1],
            limit="time" if course.late else None,
            statistics={"engine": self._engine or "auto"},
        )

    @staticmethod
    def running() -> str:
        """Which engine runs, in words, for `allocator solvers`."""
        return running()

    @property
    def _engine(self) -> str | None:
        return None if self.engine == "auto" else self.engine

    def _separable(self, model: Model, limits: Limits) -> Separated:
        """The optimum without the interactions: a first allocation, or the proof that nothing keeps the rows."""
        left = partial(_half, limits)
        return solve_separable(model.linear, tolerance=None, seconds=left, engine=self._engine)


def _half(limits: Limits) -> float:
    return max(limits.left / 2, 0.0)


def _statistics(**values: Any) -> dict[str, Any]:
    return values
