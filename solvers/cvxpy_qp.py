"""The convex quadratic relaxation through cvxpy: interactions of any sign, made convex where they are not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.certificate import Multipliers
from allocator.checks.lagrangian import single_row_infeasible
from allocator.errors import UnsupportedError, UsageError
from allocator.evaluation import scale_of
from allocator.features import LINEAR
from allocator.local_search import cheapest
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.quadratic import Quadratic, quadratic
from allocator.solution import Answer
from solvers._answers import bounded
from solvers._convex import exclusion
from solvers._convexify import MOST_SHIFTED, Convex, is_convex, plain, shifted, split
from solvers._improving import KICKS, Improving
from solvers._programs import Program, tangent_bound

CLOSE = 1e-12  # of S
CORNERS = 4


@dataclass(frozen=True, kw_only=True)
class CvxpyQp:
    """Every choice in part, under a convex form of the interactions: a bound, then rounding and local search.

    A basis without negative eigenvalues is convex as it stands. Anything else is made so by terms within groups
    that are 0 on every allocation (x² − x, and products of two choices of a group); beyond 1,500 choices by squares
    and secants, with a weaker bound. The bound is the Lagrangian bound of the tangent at the engine's point: it holds
    however inexact that is. It is often far below the optimum, which is no verdict on the allocation.

    convexify: False refuses what is not convex as it stands. kicks: perturbations of the local search, fewer beyond
    1,000 choices.
    """

    convexify: bool = True
    kicks: int = KICKS

    name: ClassVar[str] = "cvxpy_qp"
    features: ClassVar[frozenset[str]] = LINEAR | {"pairs", "basis"}
    exactness: ClassVar[Exactness] = Exactness.BOUNDED
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = True
    imports: ClassVar[tuple[str, ...]] = ("cvxpy", "scipy.sparse")

    def __post_init__(self) -> None:
        if self.kicks < 0:
            raise UsageError(f"cvxpy_qp: kicks={self.kicks}; give 0 or more")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """One choice per group with a bound; "optimal" only where the two meet.

        Raises:
            UnsupportedError: under convexify=False, naming what is not convex.
            SolverError: no engine of cvxpy solved the relaxation.
        """
        model = quadratic(problem)
        begin = cheapest(model.linear)
        if begin is None or single_row_infeasible(model.linear) is not None:
            return Answer(claim="infeasible")
        search = Improving(model, limits)
        if start is not None:
            search.begin(problem.indptr[:-1] + start)
        search.begin(begin)
        form = self._form(model)
        point = Program(model, form).solve(form.linear, limits)
        statistics = {"engine": point.engine, "relaxation": point.status, "form": form.name}
        if point.x is None:
            prices = exclusion(model.linear, limits) if point.empty else None
            if prices is not None and search.best is None:
                return Answer(claim="infeasible", certificate=Multipliers(prices), statistics=statistics)
            return bounded(search.best, limits, -math.inf, 0.0, statistics)
        priced, bound = tangent_bound(model, form, point.x)
        search.begin_all(search.rounded(point.x))
        search.begin_all(p.rows for p in priced.seen[-CORNERS:])
        slip = CLOSE * scale_of(problem) + form.slip
        if search.best is not None:
            objective = search.best.objective
            if objective - bound > max(slip, limits.gap * abs(objective)):
                search.kick(self.kicks)
        return bounded(search.best, limits, bound, slip, statistics)

    def _form(self, model: Quadratic) -> Convex:
        if is_convex(model):
            return plain(model)
        if not self.convexify:
            what = "pairs" if len(model.pair) else f"{int((model.eigenvalues < 0).sum())} negative eigenvalues"
            raise UnsupportedError(
                f"cvxpy_qp[convexify=false] takes interactions that are convex as they stand, and these have {what}; "
                "leave convexify at true, or use cvxpy_sdp or ortools_cpsat"
            )
        if model.problem.choice_count > MOST_SHIFTED:
            return split(model)
        return shifted(model)
