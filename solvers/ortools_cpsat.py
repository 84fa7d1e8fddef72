"""CP-SAT, OR-Tools' constraint solver, on the problem in integers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.errors import SolverError
from allocator.features import ALL
from allocator.milp import Milp
from allocator.milp_driver import Found, solve_milp
from allocator.milp_terms import NONE, Block
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import FloatArray, IntArray, Number

FINE = 40  # a group's range in the objective becomes at least 2^40 steps,
TOTAL = 52  # or the sum of all ranges 2^52, where that is finer
ROOM = 60  # sums that CP-SAT is handed stay below 2^60; it refuses what could pass 2^63
FLOAT_ROOM = 50  # a float row's largest sum becomes about 2^50 steps


@dataclass(frozen=True, kw_only=True)
class OrtoolsCpsat:
    """Exact solution by CP-SAT: objective in steps of 2^-40 of the widest group's range, exact rows as they are.

    "optimal" is meant within groups × range × 2^-40, the rounding of the objective.
    """

    name: ClassVar[str] = "ortools_cpsat"
    features: ClassVar[frozenset[str]] = ALL
    exactness: ClassVar[Exactness] = Exactness.EXACT
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = True
    imports: ClassVar[tuple[str, ...]] = ("ortools.sat.python.cp_model",)

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """One choice per group; see `allocator.milp_driver.solve_milp`."""
        return solve_milp(problem, limits, _solve, start)


def _solve(model: Milp, limits: Limits, hint: FloatArray | None, seen: Callable[[NDArray[Any]], None]) -> Found:
    from ortools.sat.python import cp_model

    program = _Program(model)
    built = program.build(hint, program.offset(limits.gap))
    solver = cp_model.CpSolver()
    parameters = solver.parameters
    parameters.num_workers = limits.threads or 1
    parameters.random_seed = limits.seed
    parameters.linearization_level = 2  # with one worker the relaxation decides: ten times quicker on noisy losses
    parameters.absolute_gap_limit = 0.0
    parameters.relative_gap_limit = limits.gap
    parameters.presolve_inclusion_work_limit = 0  # else 9.15 may prove a wrong optimum (google/or-tools issue 5293)
    parameters.catch_sigint_signal = False
    if limits.time is not None:
        parameters.max_time_in_seconds = max(limits.left, 0.001)

    class Watch(cp_model.CpSolverSolutionCallback):
        def on_solution_callback(self) -> None:
            seen(np.array(list(self.response_proto.solution), np.float64))

    status = solver.solve(built, Watch())
    if status == cp_model.INFEASIBLE:
        return Found("infeasible")
    if status == cp_model.MODEL_INVALID:
        raise SolverError(f"CP-SAT refuses the model: {built.validate()}; try scipy_milp or ortools_mip")
    steps = solver.best_objective_bound - program.offset(limits.gap)
    bound = model.constant + math.ldexp(steps, -program.power)
    if status == cp_model.UNKNOWN:
        return Found("unknown", None, bound if math.isfinite(bound) else None, program.error)
    x = np.array(list(solver.response_proto.solution), np.float64)
    return Found("optimal" if status == cp_model.OPTIMAL else "feasible", x, bound, program.error)


class _Program:
    """The program in integers.

    power: the objective is counted in steps of 2^-power. error: by how much rounding can change an objective.
    """

    def __init__(self, model: Milp) -> None:
        self.model = model
        value = model.objective
        widest = math.frexp(float(np.abs(value).max(initial=0.0)))[1]
        total = math.frexp(math.fsum(self._sizes(np.abs(value))))[1]
        if total <= TOTAL and np.array_equal(np.floor(value), value):
            self.power = 0
        else:
            self.power = min(max(FINE + 1 - widest, TOTAL - total), ROOM - total)
        exact = np.ldexp(value, self.power)
        self.objective = np.rint(exact).astype(np.int64)
        steps = math.fsum(self._sizes(np.abs(exact - self.objective)))
        self.error = math.ldexp(steps + len(model.maxima), -self.power)  # a maximum's shares are whole steps too

    def offset(self, gap: float) -> float:
        """The objective's constant in steps, where a relative gap has to see it."""
        steps = math.ldexp(self.model.constant, self.power) if gap else 0.0
        return steps if abs(steps) < 2.0**ROOM else 0.0

    def _sizes(self, value: FloatArray) -> list[float]:
        """The largest entry of each group, then every other variable's: what an allocation can add up to."""
        count = len(self.model.row)
        return [*np.maximum.reduceat(value[:count], self.model.start[:-1]).tolist(), *value[count:].tolist()]

    def build(self, hint: FloatArray | None, offset: float) -> Any:
        """The CP-SAT model, written into its message in bulk."""
        from ortools.sat.python import cp_model

        model, built = self.model, cp_model.CpModel()
        self.proto = built.proto
        tops = {m.variable: int(self.objective[m.variable]) for m in model.maxima}
        for i in range(model.variables):
            self.proto.variables.add().domain.extend([0, tops.get(i, 1)])
        for first, last in itertools.pairwise(model.start.tolist()):
            self.proto.constraints.add().exactly_one.literals.extend(list(range(first, last)))
        for block in model.blocks:
            rows = block if block.value.dtype.kind == "i" and block.reach < 2.0**ROOM else self._rounded(block)
            for row in rows.rows():
                self._add(*row)
        for m in model.maxima:
            share = np.rint(m.rows.value * float(tops[m.variable])).astype(np.int64)
            for first, last in itertools.pairwise(m.rows.indptr.tolist()):
                index = np.append(m.rows.index[first:last], m.variable)
                self._add(index, np.append(share[first:last], -1), None, 0)
        priced = np.flatnonzero(self.objective)
        once = np.isin(priced, list(tops))
        self.proto.objective.vars.extend(priced.tolist())
        self.proto.objective.coeffs.extend(np.where(once, 1, self.objective[priced]).tolist())
        self.proto.objective.offset = offset
        if hint is not None:
            scale = np.ones(model.variables)
            scale[list(tops)] = list(tops.values())
            self.proto.solution_hint.vars.extend(range(model.variables))
            self.proto.solution_hint.values.extend(np.rint(hint * scale).astype(np.int64).tolist())
        return built

    def _add(self, index: IntArray, value: IntArray, lo: Number | None, hi: Number | None) -> None:
        free = np.iinfo(np.int64)
        linear = self.proto.constraints.add().linear
        linear.vars.extend(index.tolist())
        linear.coeffs.extend(value.tolist())
        linear.domain.extend([int(free.min if lo is None else lo), int(free.max if hi is None else hi)])

    def _rounded(self, block: Block) -> Block:
        """A float row (or one too large) in integers, its limits loosened by all that rounding can add up to."""
        power = FLOAT_ROOM - math.frexp(block.reach)[1]
        exact = np.ldexp(block.value.astype(np.float64), power)
        value = np.rint(exact).astype(np.int64)
        off = np.zeros(self.model.variables)
        off[block.index] = np.abs(exact - value)
        slip = math.fsum(self._sizes(off)) + 1e-15 * 2.0**FLOAT_ROOM
        lo, hi = (np.ldexp(x, power) for x in block.float_limits())
        low = [math.ceil(x - slip) if x > -(2.0**ROOM) else -NONE for x in np.minimum(lo, 2.0**ROOM).tolist()]
        high = [math.floor(x + slip) if x < 2.0**ROOM else NONE for x in np.maximum(hi, -(2.0**ROOM)).tolist()]
        return Block(block.indptr, block.index, value, np.array(low, np.int64), np.array(high, np.int64), block.budget)
