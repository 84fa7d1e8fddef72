"""The semidefinite relaxation through cvxpy: a tight bound for few choices with interactions of any sign."""

from __future__ import annotations

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
from allocator.quadratic import quadratic
from allocator.solution import Answer
from solvers._answers import bounded
from solvers._convex import exclusion
from solvers._improving import KICKS, Improving
from solvers._lift import lift
from solvers._lift_program import products_of

CLOSE = 1e-12  # of S


@dataclass(frozen=True, kw_only=True)
class CvxpySdp:
    """The choices lifted to their products under a positive semidefinite matrix: far tighter than a convex QP.

    Solved from the side of the multipliers, which alone make the bound. The engine's own objective is never
    believed; multipliers of the wrong sign are cut off, what the matrix then lacks of being semidefinite is taken
    off the bound (λ_min times 1 + groups), and so is rounding. The products give the allocation, by rounding,
    repair and local search.

    most: choices at most; time grows with their fourth to sixth power. kicks: perturbations of the local search.
    """

    most: int = 60
    kicks: int = KICKS

    name: ClassVar[str] = "cvxpy_sdp"
    features: ClassVar[frozenset[str]] = LINEAR | {"pairs", "basis"}
    exactness: ClassVar[Exactness] = Exactness.BOUNDED
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = True
    imports: ClassVar[tuple[str, ...]] = ("cvxpy", "scipy.sparse")

    def __post_init__(self) -> None:
        for name, least in (("most", 1), ("kicks", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"cvxpy_sdp: {name}={getattr(self, name)}; give {least} or more")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """One choice per group with a bound; "optimal" only where the two meet to rounding.

        Raises:
            UnsupportedError: more than `most` choices in groups that have any choice left.
            SolverError: no engine of cvxpy solved the relaxation.
        """
        model = quadratic(problem)
        begin = cheapest(model.linear)
        if begin is None or single_row_infeasible(model.linear) is not None:
            return Answer(claim="infeasible")
        count = int(model.linear.free.sum())
        if count > self.most:
            raise UnsupportedError(
                f"cvxpy_sdp would lift {count} choices to {count * (count + 1) // 2} products, more than "
                f"most={self.most} choices allow; raise most, or use cvxpy_qp, graph or ortools_cpsat"
            )
        search = Improving(model, limits)
        search.begin_all([] if start is None else [problem.indptr[:-1] + start])
        search.begin(begin)
        lifted = lift(model)
        x, total, statistics = products_of(lifted, problem.choice_count, limits)
        bound = model.linear.objective(total)
        if search.best is None and statistics["relaxation"].startswith("unbounded"):  # so the other side is infeasible
            prices = exclusion(model.linear, limits)
            if prices is not None:
                return Answer(claim="infeasible", certificate=Multipliers(prices), statistics=statistics)
        if x is not None:
            search.begin_all(search.rounded(x))
        slip = CLOSE * scale_of(problem)
        if search.best is not None and search.best.objective > bound + max(
            slip, limits.gap * abs(search.best.objective)
        ):
            search.kick(self.kicks)
        return bounded(search.best, limits, bound, slip, statistics)
