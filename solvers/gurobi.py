"""Gurobi through gurobipy, for those who have a licence."""

from __future__ import annotations

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
SHARE = 0.98  # of the time that is left
LARGEST_SEED = 2_000_000_000  # that Gurobi takes


@dataclass(frozen=True, kw_only=True)
class Gurobi:
    """Exact solution by Gurobi's branch and cut; `pip install 'compression-allocator[gurobi]'` and a licence.

    The licence that comes with the package is for small programs only; Gurobi's own message says when it is too small.
    """

    name: ClassVar[str] = "gurobi"
    features: ClassVar[frozenset[str]] = ALL
    exactness: ClassVar[Exactness] = Exactness.EXACT
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = True
    imports: ClassVar[tuple[str, ...]] = ("gurobipy", "scipy.sparse")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """One choice per group; see `allocator.milp_driver.solve_milp`.

        Raises:
            SolverError: Gurobi's own message, a missing or too small licence among them.
        """
        return solve_milp(problem, limits, _solve, start)


def _solve(model: Milp, limits: Limits, hint: FloatArray | None, seen: Callable[[NDArray[Any]], None]) -> Found:
    import gurobipy

    gurobi: Any = gurobipy  # it may be missing, so that nothing is known of its types
    program = scaled(model)
    try:
        with gurobi.Env(params=_settings(limits)) as environment, gurobi.Model("allocation", env=environment) as built:
            x = _build(gurobi, built, program, program.offset(limits.gap))
            built.update()
            if hint is not None:
                x.Start = hint

            def watch(where_in: Any, where: int) -> None:
                if where == gurobi.GRB.Callback.MIPSOL:
                    seen(np.asarray(where_in.cbGetSolution(x), np.float64))

            built.optimize(watch)
            return _found(gurobi.GRB, built, x, program, program.offset(limits.gap))
    except gurobi.GurobiError as error:
        raise SolverError(
            f"Gurobi failed: {error}; see to its licence, or use ortools_mip, scipy_milp or ortools_cpsat"
        ) from error


def _settings(limits: Limits) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "OutputFlag": 0,
        "MIPGap": limits.gap,
        "MIPGapAbs": 0.0,
        "FeasibilityTol": TOLERANCE,
        "IntFeasTol": TOLERANCE,
        "OptimalityTol": TOLERANCE,
        "Seed": min(limits.seed, LARGEST_SEED),
        "DualReductions": 0,  # so that "infeasible or unbounded" is told apart
    }
    if limits.threads is not None:
        settings["Threads"] = limits.threads
    if limits.time is not None:
        settings["TimeLimit"] = max(SHARE * limits.left, 0.001)
    return settings


def _build(gurobi: Any, built: Any, program: Scaled, offset: float) -> Any:
    """Variables, objective, and rows side by side: ≤, ≥, and = where both limits are one."""
    from scipy.sparse import csr_matrix

    count = program.model.variables
    kinds = np.where(program.model.integer, gurobi.GRB.BINARY, gurobi.GRB.CONTINUOUS)
    x = built.addMVar(count, lb=0.0, ub=1.0, vtype=kinds)
    built.setObjective(program.objective @ x + offset, gurobi.GRB.MINIMIZE)
    matrix = csr_matrix((program.value, program.index, program.indptr), shape=(len(program.lo), count))
    lo, hi = program.lo, program.hi
    equal = lo == hi
    sides = (
        (gurobi.GRB.EQUAL, equal, hi),
        (gurobi.GRB.LESS_EQUAL, np.isfinite(hi) & ~equal, hi),
        (gurobi.GRB.GREATER_EQUAL, np.isfinite(lo) & ~equal, lo),
    )
    for sense, mask, limit in sides:
        rows = np.flatnonzero(mask)
        if len(rows):
            built.addMConstr(matrix[rows], x, sense, limit[rows])
    return x


def _found(constants: Any, built: Any, x: Any, program: Scaled, offset: float) -> Found:
    status = built.Status
    if status in (constants.INFEASIBLE, constants.INF_OR_UNBD):  # nothing here is unbounded
        return Found("infeasible")
    stopped = (constants.TIME_LIMIT, constants.INTERRUPTED, constants.SUBOPTIMAL, constants.MEM_LIMIT)
    if status != constants.OPTIMAL and status not in stopped:
        raise SolverError(f"Gurobi ended with status {status}; try ortools_mip, scipy_milp or ortools_cpsat")
    values = np.asarray(x.X, np.float64) if built.SolCount else None
    bound = float(built.ObjBound)
    total = program.total(bound - offset) if abs(bound) < constants.INFINITY else None
    if status == constants.OPTIMAL:
        return Found("optimal", values, total, program.error)
    return Found("unknown" if values is None else "feasible", values, total, program.error)
