"""The convex quadratic relaxation through cvxpy: interactions of any sign, made convex where they are not."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.bounds import Prices, find_prices
from allocator.certificate import Multipliers
from allocator.checks.lagrangian import lower_bound, single_row_infeasible
from allocator.errors import UnsupportedError, UsageError
from allocator.evaluation import scale_of
from allocator.features import LINEAR
from allocator.interaction_search import InteractionSearch
from allocator.local_search import cheapest
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.quadratic import Quadratic, quadratic
from allocator.solution import Answer
from allocator.statement import FloatArray
from solvers._answers import bounded
from solvers._convex import GOOD, exclusion, membership, roundings, run, sides_of
from solvers._convexify import MOST_SHIFTED, Convex, is_convex, plain, shifted, split

CLOSE = 1e-12  # of S
DRAWS = 8
CORNERS = 4


@dataclass(frozen=True, kw_only=True)
class CvxpyQp:
    """Every choice in part, under a convex form of the interactions: a bound, then rounding and local search.

    A basis without negative eigenvalues is convex as it stands. Anything else is made so by terms within groups
    that are 0 on every allocation (x² − x, and products of two choices of a group); beyond 1,500 choices by squares
    and secants, with a weaker bound. The bound is the Lagrangian bound of the tangent at the engine's point: it holds
    however inexact that is. It is often far below the optimum, which is no verdict on the allocation.

    convexify: False refuses what is not convex as it stands. kicks: perturbations of the local search.
    """

    convexify: bool = True
    kicks: int = 30

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
        search = InteractionSearch(model, limits)
        if start is not None:
            search.begin(problem.indptr[:-1] + start)
        search.begin(begin)
        form = self._form(model)
        x, statistics = _relaxed(model, form, limits)
        if x is None:
            prices = exclusion(model.linear, limits) if statistics["relaxation"].startswith("infeasible") else None
            if prices is not None and search.best is None:
                return Answer(claim="infeasible", certificate=Multipliers(prices), statistics=statistics)
            return bounded(search, -math.inf, 0.0, statistics)
        priced, bound = _bound(model, form, x)
        search.begin_all(roundings(model.linear, x, DRAWS, limits.seed))
        search.begin_all(p.rows for p in priced.seen[-CORNERS:])
        slip = CLOSE * scale_of(problem) + form.slip
        if search.best is not None:
            objective = search.best.objective
            if objective - bound > max(slip, limits.gap * abs(objective)):
                search.kick(self.kicks, limits.seed)
        return bounded(search, bound, slip, statistics)

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


def _relaxed(model: Quadratic, form: Convex, limits: Limits) -> tuple[FloatArray | None, dict[str, Any]]:
    """The least point of the form over all parts of choices [N], or None; and statistics."""
    import cvxpy

    cp: Any = cvxpy  # typed in parts only
    problem, free = model.problem, np.flatnonzero(model.linear.free)
    x = cp.Variable(len(free), nonneg=True)
    constraints = [membership(model.linear) @ x == 1]
    sides = sides_of(model.linear)
    if sides:
        constraints.append(np.array([s.column[free] for s in sides]) @ x <= np.array([s.limit for s in sides]))
    least = np.minimum.reduceat(np.where(model.linear.free, form.linear, np.inf), problem.indptr[:-1])
    linear = (form.linear - least[problem.group_of])[free]
    factor = form.factor[:, free]
    unit = float(np.abs(linear).mean()) + 0.5 * float((factor**2).sum()) / len(free) or 1.0
    goal = (linear / unit) @ x
    if factor.shape[0]:
        goal = goal + 0.5 * cp.sum_squares((factor / math.sqrt(unit)) @ x)
    engine, status = run(cp.Problem(cp.Minimize(goal), constraints), limits)
    statistics: dict[str, Any] = {"engine": engine, "relaxation": status, "form": form.name}
    if status not in GOOD or x.value is None:
        return None, statistics
    full = np.zeros(problem.choice_count)
    full[free] = np.clip(np.asarray(x.value, np.float64), 0.0, 1.0)
    return full, statistics


def _bound(model: Quadratic, form: Convex, x: FloatArray) -> tuple[Prices, float]:
    """The prices of the tangent at x, and the bound on the objective that they prove."""
    gradient, constant = form.gradient(x)
    tangent = dataclasses.replace(model.linear, value=gradient)
    prices = find_prices(tangent)
    return prices, model.linear.objective(lower_bound(tangent, prices.values) + constant)
