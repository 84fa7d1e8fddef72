"""HiGHS as it ships inside scipy: a second opinion that needs no further package."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.errors import SolverError
from allocator.features import ALL
from allocator.milp import Milp
from allocator.milp_driver import Found, solve_milp
from allocator.milp_scaled import Scaled, scaled
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import FloatArray

TOLERANCE = 1e-9
SHARE = 0.98  # of the time that is left: HiGHS looks at its clock seldom
SOLVED, STOPPED, INFEASIBLE, OTHER = 0, 1, 2, 4  # 4 with "unbounded or infeasible": nothing here is unbounded


@dataclass(frozen=True, kw_only=True)
class ScipyMilp:
    """Exact solution by `scipy.optimize.milp` (HiGHS branch and cut)."""

    name: ClassVar[str] = "scipy_milp"
    features: ClassVar[frozenset[str]] = ALL
    exactness: ClassVar[Exactness] = Exactness.EXACT
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = True
    imports: ClassVar[tuple[str, ...]] = ("scipy.optimize", "scipy.sparse")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """One choice per group; see `allocator.milp_driver.solve_milp`."""
        return solve_milp(problem, limits, _solve, start)


def _solve(model: Milp, limits: Limits, hint: FloatArray | None, seen: Callable[[NDArray[Any]], None]) -> Found:
    """HiGHS takes no starting vector through scipy, and reports none on its way."""
    program = scaled(model)
    for presolve in (True, False):  # HiGHS's presolve now and then ends in a "solve error"
        result = _highs(program, limits, presolve)
        if result.status == INFEASIBLE or (result.status == OTHER and "infeasible" in result.message):
            return Found("infeasible")
        if result.status in (SOLVED, STOPPED):
            break
    else:
        raise SolverError(f"HiGHS gave up: {result.message}; try ortools_mip or ortools_cpsat")
    bound = None if result.mip_dual_bound is None else program.total(result.mip_dual_bound - program.offset(limits.gap))
    if result.status == SOLVED:
        return Found("optimal", result.x, bound, program.error)
    return Found("feasible" if result.x is not None else "unknown", result.x, bound, program.error)


def _highs(program: Scaled, limits: Limits, presolve: bool) -> Any:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    model = program.model
    count = model.variables + 1  # the last column, fixed at 1, carries the constant
    matrix = csr_array((program.value, program.index, program.indptr), shape=(len(program.lo), count))
    lower = np.zeros(count)
    lower[-1] = 1.0
    options: dict[str, Any] = {
        "presolve": presolve,
        "mip_rel_gap": limits.gap,
        "mip_abs_gap": 0.0,
        "mip_feasibility_tolerance": TOLERANCE,
        "primal_feasibility_tolerance": TOLERANCE,
        "random_seed": limits.seed,
    }
    if limits.time is not None:
        options["time_limit"] = max(SHARE * limits.left, 0.001)
    if limits.threads is not None:
        options["threads"] = limits.threads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of each option that it hands on to HiGHS unread
        return milp(
            np.append(program.objective, program.offset(limits.gap)),
            constraints=LinearConstraint(matrix, program.lo, program.hi),
            integrality=np.append(model.integer, False).astype(np.uint8),
            bounds=Bounds(lower, np.ones(count)),
            options=options,
        )
