"""SCIP or HiGHS through OR-Tools' MathOpt."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from allocator.errors import SolverError, UsageError
from allocator.features import ALL
from allocator.milp import Milp
from allocator.milp_driver import Found, solve_milp
from allocator.milp_scaled import Scaled, scaled
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import FloatArray

TOLERANCE = 1e-9
FAILED = ("UNBOUNDED", "NUMERICAL_ERROR", "IMPRECISE", "OTHER_ERROR")
SHARE = 0.98  # of the time that is left: both engines look at their clocks now and then


@dataclass(frozen=True, kw_only=True)
class OrtoolsMip:
    """Exact solution by branch and cut. engine: "scip" or "highs" (one thread only)."""

    name: ClassVar[str] = "ortools_mip"
    features: ClassVar[frozenset[str]] = ALL
    exactness: ClassVar[Exactness] = Exactness.EXACT
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = True
    imports: ClassVar[tuple[str, ...]] = ("ortools.math_opt.python.mathopt",)

    engine: Literal["scip", "highs"] = "scip"

    def __post_init__(self) -> None:
        if self.engine not in ("scip", "highs"):
            raise UsageError(f"ortools_mip: there is no engine {self.engine!r}; use scip or highs")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """One choice per group; see `allocator.milp_driver.solve_milp`."""
        if self.engine == "highs" and (limits.threads or 1) > 1:
            raise UsageError(
                f"ortools_mip[engine=highs] cannot use {limits.threads} threads: MathOpt's HiGHS refuses the setting; "
                "leave threads out, or use ortools_cpsat"
            )
        return solve_milp(problem, limits, self._solve, start)

    def _solve(
        self, model: Milp, limits: Limits, hint: FloatArray | None, seen: Callable[[NDArray[Any]], None]
    ) -> Found:
        """Neither engine reports solutions on its way through MathOpt."""
        from ortools.math_opt.python import mathopt

        program = scaled(model)
        offset = program.offset(limits.gap)
        built = mathopt.Model.from_model_proto(_proto(program, offset))
        kind = mathopt.SolverType.GSCIP if self.engine == "scip" else mathopt.SolverType.HIGHS
        variables = list(built.variables())
        start = mathopt.ModelSolveParameters()
        if hint is not None:
            start.solution_hints = [mathopt.SolutionHint(dict(zip(variables, hint.tolist(), strict=True)))]
        parameters = self._parameters(limits)
        for presolve in (mathopt.Emphasis.MEDIUM, mathopt.Emphasis.OFF):  # HiGHS's own now and then ends in an error
            parameters.presolve = presolve
            try:
                result = mathopt.solve(built, kind, params=parameters, model_params=start)
            except Exception as error:  # MathOpt 9.15 stumbles over its own errors: the first one has the message
                failure = str(error.__context__ or error)
                continue
            if result.termination.reason.name not in FAILED:
                return self._found(result, program, offset, variables)
            failure = f"{result.termination.reason.name}: {result.termination.detail}"
        raise SolverError(f"MathOpt's {self.engine} failed: {failure}; try scipy_milp or ortools_cpsat")

    def _found(self, result: Any, program: Scaled, offset: float, variables: list[Any]) -> Found:
        from ortools.math_opt.python import mathopt

        reason = result.termination.reason
        if reason in (mathopt.TerminationReason.INFEASIBLE, mathopt.TerminationReason.INFEASIBLE_OR_UNBOUNDED):
            return Found("infeasible")  # all variables are bounded
        x = None
        if result.has_primal_feasible_solution():
            values = result.variable_values()
            x = np.array([values[v] for v in variables])
        bound = result.termination.objective_bounds.dual_bound
        total = program.total(bound - offset) if np.isfinite(bound) else None
        if reason == mathopt.TerminationReason.OPTIMAL:
            return Found("optimal", x, total, program.error)
        return Found("unknown" if x is None else "feasible", x, total, program.error)

    def _parameters(self, limits: Limits) -> Any:
        from ortools.math_opt.python import mathopt

        parameters = mathopt.SolveParameters(
            relative_gap_tolerance=limits.gap, absolute_gap_tolerance=0.0, random_seed=limits.seed
        )
        if limits.time is not None:
            parameters.time_limit = datetime.timedelta(seconds=max(SHARE * limits.left, 0.001))
        if self.engine == "scip":
            parameters.threads = limits.threads or 1
            parameters.gscip.real_params["numerics/feastol"] = TOLERANCE
        else:
            for option in ("mip_feasibility_tolerance", "primal_feasibility_tolerance"):
                parameters.highs.double_options[option] = TOLERANCE
        return parameters


def _proto(program: Scaled, offset: float) -> Any:
    """The model as MathOpt's own message, filled from arrays: its Python model is built call by call."""
    from ortools.math_opt import model_pb2

    model = program.model
    proto = model_pb2.ModelProto()
    count, rows = model.variables, len(program.lo)
    ids = list(range(count))
    proto.variables.ids.extend(ids)
    proto.variables.lower_bounds.extend([0.0] * count)
    proto.variables.upper_bounds.extend([1.0] * count)
    proto.variables.integers.extend(model.integer.tolist())
    costly = np.flatnonzero(program.objective)
    proto.objective.offset = offset
    proto.objective.linear_coefficients.ids.extend(costly.tolist())
    proto.objective.linear_coefficients.values.extend(program.objective[costly].tolist())
    proto.linear_constraints.ids.extend(range(rows))
    proto.linear_constraints.lower_bounds.extend(program.lo.tolist())
    proto.linear_constraints.upper_bounds.extend(program.hi.tolist())
    row = np.repeat(np.arange(rows), np.diff(program.indptr))
    order = np.lexsort((program.index, row))
    kept = order[program.value[order] != 0]
    matrix = proto.linear_constraint_matrix
    matrix.row_ids.extend(row[kept].tolist())
    matrix.column_ids.extend(program.index[kept].tolist())
    matrix.coefficients.extend(program.value[kept].tolist())
    return proto
