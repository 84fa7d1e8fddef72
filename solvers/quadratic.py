"""Our own engine for losses with interactions."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.certificate import Multipliers
from allocator.checks.lagrangian import single_row_infeasible
from allocator.engine import native, running
from allocator.engine.quadratic_course import Course, roundings
from allocator.engine.quadratic_family import breed
from allocator.engine.quadratic_model import compact
from allocator.engine.quadratic_proof import DENSE, Proof
from allocator.engine.quadratic_relax import Relaxed
from allocator.engine.separable import Separated, solve_separable
from allocator.errors import UsageError
from allocator.evaluation import scale_of
from allocator.features import LINEAR
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.quadratic import Quadratic as Model
from allocator.quadratic import quadratic
from allocator.solution import Answer
from allocator.statement import IntArray

ENGINES = ("auto", "c", "numpy")
STARTS = 10  # random ones
DRAWS = 12  # roundings
KICKED = 200  # choices up to which kicks find the optimum before the proof begins
BEFORE = 0.1  # of the annealed runs, before the proof where there are more
LAST = 1_000  # kicks after the annealing
PLENTY = 5_000  # choices above which one rounding has to do
USELESS = 0.95  # of the objective: a gap that is not worth a number
ROUNDING = 1e-9  # of a bound: what the claim leaves to rounding


@dataclass(frozen=True, kw_only=True)
class Quadratic:
    """Local search with interactions, then bounds from convex minorants and branch and bound on them.

    Starts: the separable optimum, greedy, random ones and roundings; changes of one and two groups; kicks (iterated
    local search, Lourenço, Martin and Stützle 2003) and, where nothing is proved, annealed walks across the limits
    (Kirkpatrick, Gelatt and Vecchi 1983) whose ends are crossed (Moscato 1989). Seeds and iterations decide, not
    time. Bounds: the loss as it stands where it is convex, then the multipliers of the doubly nonnegative relaxation
    (Burer 2009), made convex in numpy; the search on them leaves a record that the core checks. Above 600 choices the
    bound is that of the convex program alone, often far below the optimum, which is no verdict on the allocation.

    effort: times the iterations of the local search; 0: the bound, with the separable optimum. nodes: of branch and
    bound, about; 0 for none. steps: of the relaxation, each one eigendecomposition; 0 for none. engine: "c", "numpy"
    (local search with a fiftieth of the iterations, a bound, no branch and bound), or "auto" for C where the extension
    was built.
    """

    effort: float = 1.0
    nodes: int = 400_000
    steps: int = 800
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
        if not 0 <= self.effort <= 1e6:
            raise UsageError(f"quadratic: effort={self.effort}; give a number from 0 to 1e6")
        for option in ("nodes", "steps"):
            if getattr(self, option) < 0:
                raise UsageError(f"quadratic: {option}={getattr(self, option)}; give 0 or more")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """The best allocation found with a bound; "optimal" where branch and bound left nothing open.

        Raises:
            UnsupportedError: a part that is neither a sum over groups nor between two of them.
        """
        model = quadratic(problem)
        stuck = not np.logical_or.reduceat(model.linear.free, problem.indptr[:-1]).all()
        if stuck or single_row_infeasible(model.linear) is not None:
            return Answer(claim="infeasible")
        alone = self._separable(model, limits)
        if alone.infeasible:
            return Answer(claim="infeasible", certificate=alone.certificate or Multipliers(alone.prices))
        if not len(model.pair) and not len(model.eigenvalues):
            return _separate(model, alone, limits)
        form = compact(model)
        course = Course(form, limits, self.effort, self._engine)
        starts = []
        for rows in (alone.rows, None if start is None else problem.indptr[:-1] + start):
            if rows is not None and (taken := form.inside(rows)) is not None:
                course.offer(taken)
                starts.append(taken)
        if not (self.effort and self.nodes) or form.choices > DENSE or course.numpy:
            return self._bounded(course, starts)
        self._begun(course, starts)
        if form.choices > KICKED and course.best is not None:
            breed(course, self._relaxed(course).pressures, BEFORE)
        return self._proved(course) or self._bounded(course, starts)

    def _begun(self, course: Course, starts: list[IntArray]) -> None:
        """Local search from these, greedy and random allocations."""
        course.begin_all(starts)
        course.first()
        if course.form.choices <= KICKED:
            course.draws(STARTS)
            course.kick()

    @staticmethod
    def running() -> str:
        """Which engine runs, in words, for `allocator solvers`."""
        return running()

    @property
    def _engine(self) -> str | None:
        return None if self.engine == "auto" else self.engine

    def _separable(self, model: Model, limits: Limits) -> Separated:
        """The optimum without the interactions: a first allocation, or the proof that nothing keeps the rows."""
        return solve_separable(model.linear, tolerance=None, seconds=partial(_part, limits), engine=self._engine)

    def _proved(self, course: Course) -> Answer | None:
        """Branch and bound; None where it was not begun, so that there is no bound from it."""
        form, linear, limits = course.form, course.form.source.linear, course.limits
        if course.best is None:
            return None
        tolerance = math.ldexp(1e-12 * scale_of(linear.problem), form.lift)
        short = math.ldexp(limits.gap * abs(course.best.objective), form.lift) if limits.gap else -math.inf
        proof = Proof(course, tolerance, self.nodes, self.steps, short)
        proof.run()
        certificate = proof.certificate
        if certificate is None:
            return None
        if not proof.closed:
            self._bred(course, self._relaxed(course))
        bound = linear.objective(form.down(proof.bound - abs(proof.bound) * ROUNDING))
        claim: Any = "optimal" if proof.closed and not limits.gap else None
        return self._answer(course, bound, certificate, claim, proof.statistics)

    def _bounded(self, course: Course, starts: list[IntArray]) -> Answer:
        """The bound of the convex program alone, which comes first; then the search, from its parts too."""
        form, linear = course.form, course.form.source.linear
        relaxed = self._relaxed(course)
        if self.effort:
            self._begun(course, starts)
            draws = DRAWS if form.choices <= PLENTY else 0
            course.begin_all(roundings(form, relaxed.parts, draws, course.limits.seed))
            self._bred(course, relaxed)
        bound = linear.objective(form.down(relaxed.bound - abs(relaxed.bound) * ROUNDING))
        return self._answer(course, bound, relaxed.dual, None, {})

    def _relaxed(self, course: Course) -> Relaxed:
        form = course.form
        unit = max(abs(course.worth), form.least) if course.best is not None else float(np.abs(form.value).max())
        return Relaxed(form, unit, course.limits.left, self._engine)

    @staticmethod
    def _bred(course: Course, relaxed: Relaxed) -> None:
        """Annealing and crossing, and kicks of what comes out."""
        if course.best is None:
            course.draws(STARTS)
        if course.best is not None:
            breed(course, relaxed.pressures)
            course.kick(LAST, salt=9)

    @staticmethod
    def _answer(course: Course, bound: float, certificate: Any, claim: Any, told: dict[str, Any]) -> Answer:
        best, known = course.best, bound if math.isfinite(bound) else None
        told |= {"engine": "numpy" if course.numpy else "c", "rank": len(course.form.sign)}
        limit = "time" if course.late and claim is None else None
        if best is None:
            return Answer(claimed_bound=known, certificate=certificate, limit=limit, statistics=told)
        choice = best.rows - course.form.source.problem.indptr[:-1]
        if claim == "optimal":
            known = best.objective
        if known is not None:
            known = min(known, best.objective)
            if best.objective - known > USELESS * abs(best.objective):
                told["bound"] = "no useful bound: it says next to nothing about this allocation, for or against it"
        return Answer(
            choice=choice, claim=claim, claimed_bound=known, certificate=certificate, limit=limit, statistics=told
        )


def _separate(model: Model, alone: Separated, limits: Limits) -> Answer:
    """No interaction counts: the engine's answer for sums."""
    problem = model.problem
    if alone.rows is not None and limits.report is not None:
        limits.report(alone.rows - problem.indptr[:-1])
    bound = model.linear.objective(alone.bound)
    proved = alone.proved and alone.rows is not None
    return Answer(
        choice=None if alone.rows is None else alone.rows - problem.indptr[:-1],
        claim="optimal" if proved else None,
        claimed_bound=bound if math.isfinite(bound) else None,
        certificate=alone.certificate if alone.proved else Multipliers(alone.prices),
        limit=alone.limit,
        statistics=alone.statistics,
    )


def _part(limits: Limits) -> float:
    return max(limits.left / 4, 0.0)
