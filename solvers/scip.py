"""SCIP through its own Python interface, PySCIPOpt: with callbacks and starts that MathOpt's SCIP lacks."""

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
SHARE = 0.98  # of the time that is left: SCIP looks at its clock now and then
INFEASIBLE = ("infeasible", "inforunbd")  # nothing here is unbounded
STOPPED = ("timelimit", "userinterrupt", "nodelimit", "memlimit")


@dataclass(frozen=True, kw_only=True)
class Scip:
    """Exact solution by SCIP's branch and cut, one thread; `pip install 'compression-allocator[scip]'`."""

    name: ClassVar[str] = "scip"
    features: ClassVar[frozenset[str]] = ALL
    exactness: ClassVar[Exactness] = Exactness.EXACT
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = True
    imports: ClassVar[tuple[str, ...]] = ("pyscipopt",)

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """One choice per group; see `allocator.milp_driver.solve_milp`."""
        return solve_milp(problem, limits, _solve, start)


def _solve(model: Milp, limits: Limits, hint: FloatArray | None, seen: Callable[[NDArray[Any]], None]) -> Found:
    import pyscipopt

    scip: Any = pyscipopt  # its types are partial
    program = scaled(model)
    built, variables = _built(scip, program, program.offset(limits.gap))
    _set(built, limits)

    class Watch(scip.Eventhdlr):  # type: ignore[misc]  # the base is Any: the package may be missing
        def eventinit(self) -> None:
            self.model.catchEvent(scip.SCIP_EVENTTYPE.BESTSOLFOUND, self)

        def eventexit(self) -> None:
            self.model.dropEvent(scip.SCIP_EVENTTYPE.BESTSOLFOUND, self)

        def eventexec(self, event: Any) -> None:
            seen(_values(self.model, self.model.getBestSol(), variables))

    built.includeEventhdlr(Watch(), "incumbents", "hands on each better solution")
    if hint is not None:
        first = built.createSol()
        for variable, value in zip(variables, hint.tolist(), strict=True):
            built.setSolVal(first, variable, value)
        built.addSol(first, free=True)
    built.optimize()
    return _found(built, program, variables, limits)


def _built(scip: Any, program: Scaled, offset: float) -> tuple[Any, list[Any]]:
    """The program in SCIP's own objects."""
    built = scip.Model("allocation")
    built.hideOutput()
    kinds = np.where(program.model.integer, "B", "C").tolist()
    variables = [
        built.addVar(vtype=kind, lb=0.0, ub=1.0, obj=cost)
        for kind, cost in zip(kinds, program.objective.tolist(), strict=True)
    ]
    built.setMinimize()
    built.addObjoffset(offset)
    index, value, ends = program.index.tolist(), program.value.tolist(), program.indptr.tolist()
    for i, (lo, hi) in enumerate(zip(program.lo.tolist(), program.hi.tolist(), strict=True)):
        terms = range(ends[i], ends[i + 1])
        total = scip.quicksum(value[k] * variables[index[k]] for k in terms)
        if not len(terms):
            total = scip.quicksum([0.0 * variables[0]])
        if np.isfinite(hi):
            row = built.addCons(total <= hi)
            if np.isfinite(lo):
                built.chgLhs(row, lo)
        elif np.isfinite(lo):
            built.addCons(total >= lo)
    return built, variables


def _set(built: Any, limits: Limits) -> None:
    settings: dict[str, Any] = {
        "limits/gap": limits.gap,
        "limits/absgap": 0.0,
        "numerics/feastol": TOLERANCE,
        "randomization/randomseedshift": limits.seed,
        "misc/catchctrlc": False,
    }
    if limits.time is not None:
        settings["limits/time"] = max(SHARE * limits.left, 0.001)
    built.setParams(settings)


def _values(built: Any, solution: Any, variables: list[Any]) -> FloatArray:
    return np.array([built.getSolVal(solution, v) for v in variables], np.float64)


def _found(built: Any, program: Scaled, variables: list[Any], limits: Limits) -> Found:
    status = built.getStatus()
    if status in INFEASIBLE:
        return Found("infeasible")
    if status not in ("optimal", "gaplimit", *STOPPED):
        raise SolverError(f"SCIP ended with {status!r}; try ortools_mip, scipy_milp or ortools_cpsat")
    x = _values(built, built.getBestSol(), variables) if built.getNSols() else None
    bound = float(built.getDualbound())
    total = None
    if abs(bound) < built.infinity():
        total = program.total(bound - program.offset(limits.gap))
    if status in ("optimal", "gaplimit"):
        return Found("optimal", x, total, program.error)
    return Found("unknown" if x is None else "feasible", x, total, program.error)
