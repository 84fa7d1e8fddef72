"""The error-subspace program through cvxpy: least loss under budgets, or least cost under a loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from numpy.typing import NDArray

from allocator.certificate import Multipliers
from allocator.checks.lagrangian import single_row_infeasible
from allocator.errors import SolverError, UnsupportedError, UsageError
from allocator.evaluation import scale_of
from allocator.features import LINEAR
from allocator.local_search import cheapest
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from solvers._answers import bounded
from solvers._convex import exclusion
from solvers._improving import KICKS
from solvers._loss_row import separated
from solvers._outer import outer
from solvers._recovery import Recovery
from solvers._relaxations import Relaxations
from solvers._steps import stepped

CLOSE = 1e-12  # of S
LIFTED = 60  # choices up to which the lift takes seconds
RESCUES = 8  # integer programs where nothing else finds an allocation
MOST_LIFTED = 120  # beyond, it would take minutes and gigabytes


@dataclass(frozen=True, kw_only=True)
class CvxpySubspace:
    """Choices whose errors, summed over the groups, avoid the few directions in which the loss curves.

    Every choice may be taken in part. Along an axis of positive curvature the summed error counts with its square,
    a convex program that cvxpy's own grammar vouches for; along one of negative curvature the secant over what the
    budgets let it reach lies below the loss and gives a bound, and the convex–concave procedure a second point. Two
    more relaxations tighten the bound: the shift of `cvxpy_qp` and, for few choices, the lift of `cvxpy_sdp`.
    All points are rounded, repaired and improved; the best counts. A limit on the loss is one more convex row, so
    that a resource can be minimised under it; only the allocation itself is ever said to keep it.
    Bounds hold however inexact the engine was. See docs/subspace.md.

    form: "choices", or "steps": the program over step sizes (stats rd_scale, rd_decay), which gives no bound.
    lift: "auto" up to 60 choices, "always" (up to 120), "never". outer: integer programs with tangents (HiGHS) at
    most, for a bound that closes in on the optimum; a few are tried even at 0 where nothing else finds an
    allocation. remainder: a max on the loss holds with the remainders of the taken choices added, which is more than
    the problem asks. kicks: perturbations of the local search, fewer beyond 1,000 choices.
    """

    form: Literal["choices", "steps"] = "choices"
    lift: Literal["auto", "always", "never"] = "auto"
    outer: int = 0
    remainder: bool = False
    kicks: int = KICKS

    name: ClassVar[str] = "cvxpy_subspace"
    features: ClassVar[frozenset[str]] = LINEAR | {"pairs", "basis", "loss_budgets"}
    exactness: ClassVar[Exactness] = Exactness.BOUNDED
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = True
    imports: ClassVar[tuple[str, ...]] = ("cvxpy", "scipy.sparse", "scipy.optimize")

    def __post_init__(self) -> None:
        for name, allowed in (("form", ("choices", "steps")), ("lift", ("auto", "always", "never"))):
            if getattr(self, name) not in allowed:
                raise UsageError(f"cvxpy_subspace: {name}={getattr(self, name)!r}; give one of {', '.join(allowed)}")
        for name in ("outer", "kicks"):
            if getattr(self, name) < 0:
                raise UsageError(f"cvxpy_subspace: {name}={getattr(self, name)}; give 0 or more")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[Any] | None = None) -> Answer:
        """One choice per group with a bound; "optimal" only where the two meet to rounding.

        Raises:
            UnsupportedError: a stat that is missing under form="steps"; too many choices under lift="always".
            SolverError: no engine of cvxpy solved the relaxation, and nothing was found without it.
        """
        model, row = separated(problem, self.remainder)
        begin = cheapest(model.linear)
        if begin is None or single_row_infeasible(model.linear) is not None:
            return Answer(claim="infeasible")
        recovery = Recovery(model, row, limits, self.kicks)
        recovery.begin("start", [] if start is None else [problem.indptr[:-1] + start])
        recovery.least_loss()
        recovery.begin("cheapest", [begin])
        if self.form == "steps":
            steps = stepped(model, row, limits)
            recovery.under_loss(0.0)
            recovery.begin("steps", steps.starts)
            recovery.kick(-math.inf)
            return self._answer(problem, recovery, -math.inf, steps.statistics)
        found = Relaxations(model, row, limits)
        if self.lift == "always" and found.count > MOST_LIFTED:
            raise UnsupportedError(
                f"cvxpy_subspace[lift=always] would lift {found.count} choices, more than {MOST_LIFTED}; leave lift at "
                "auto, or forbid choices"
            )
        try:
            first = found.secant()
        except SolverError as error:
            if recovery.best is None:
                raise
            first, found.statistics["relaxation"] = None, str(error)
        if first is None:
            return self._without_a_point(problem, found, recovery)
        recovery.round("secant", first)  # each point at once: a time limit may fall in the next program
        recovery.round("convex-concave", found.descend())
        recovery.round("shift", found.shift())
        recovery.under_loss(found.price)
        if self._lifts(found.count) and not self._closed(problem, recovery, found.bound):
            recovery.round("lift", found.lift())
        if not self._closed(problem, recovery, found.bound):
            recovery.kick(found.bound)
        masters = self.outer if recovery.best is not None else max(self.outer, RESCUES)
        if masters and not self._closed(problem, recovery, found.bound):
            outer(found, recovery, masters)
        return self._answer(problem, recovery, found.bound, {**found.statistics, "bounds": found.bounds})

    def _lifts(self, count: int) -> bool:
        return self.lift == "always" or (self.lift == "auto" and count <= LIFTED)

    @staticmethod
    def _closed(problem: Problem, recovery: Recovery, bound: float) -> bool:
        """Whether the gap is what was asked for, or time is up."""
        best, limits = recovery.best, recovery.limits
        if limits.left <= 0:
            return True
        return best is not None and best.objective - bound <= max(
            CLOSE * scale_of(problem), limits.gap * abs(best.objective)
        )

    def _without_a_point(self, problem: Problem, found: Relaxations, recovery: Recovery) -> Answer:
        """The engine ran out of time, or says that nothing keeps the rows: believed only with a proof."""
        recovery.under_loss(0.0)
        if found.empty and recovery.best is None:
            prices = exclusion(found.model.linear, recovery.limits)
            if prices is not None:
                given = iter(prices)
                values = tuple(0.0 if b.loss and found.row is not None else next(given) for b in problem.budgets)
                return Answer(claim="infeasible", certificate=Multipliers(values), statistics=found.statistics)
            if found.hopeless():
                return Answer(claim="infeasible", statistics=found.statistics)
        recovery.kick(-math.inf)
        return self._answer(problem, recovery, -math.inf, found.statistics)

    @staticmethod
    def _answer(problem: Problem, recovery: Recovery, bound: float, told: Mapping[str, Any]) -> Answer:
        slip = CLOSE * scale_of(problem)
        return bounded(recovery.best, recovery.limits, bound, slip, {**told, "allocation_from": recovery.source})
