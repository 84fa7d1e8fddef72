"""The linear relaxation through cvxpy: a bound with its prices, and an allocation rounded from it."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.certificate import Multipliers
from allocator.errors import SolverError
from allocator.evaluation import Outcome, scale_of
from allocator.features import LINEAR
from allocator.linear import Linear, linearise
from allocator.local_search import cheapest, improved, repaired
from allocator.milp import build
from allocator.milp_scaled import Scaled, scaled
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import FloatArray, IntArray

ENGINES = ("CLARABEL", "HIGHS", "SCS")
GOOD = ("optimal", "optimal_inaccurate")
CLOSE = 1e-12  # of S


@dataclass(frozen=True, kw_only=True)
class CvxpyRelaxation:
    """Every choice may be taken in part: the LP bound and the price of each budget, then rounding and local search.

    The bound claimed is the Lagrangian bound at the LP's dual values, which holds however inexact those are.
    Rounds to the largest part of each group, repairs what that breaks, fills what it leaves.
    """

    name: ClassVar[str] = "cvxpy_relaxation"
    features: ClassVar[frozenset[str]] = LINEAR | {"loss_budgets", "pnorm_loss"}
    exactness: ClassVar[Exactness] = Exactness.BOUNDED
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = True
    imports: ClassVar[tuple[str, ...]] = ("cvxpy", "scipy.sparse")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """One choice per group with a bound; "optimal" only where the two meet, "infeasible" only with prices."""
        linear = linearise(problem)
        model = build(problem)
        if model.hopeless is not None:
            return Answer(claim="infeasible")
        search = _Search(linear, limits)
        search.begin(None if start is None else problem.indptr[:-1] + start)
        search.begin(cheapest(linear))
        program = scaled(model)
        x, prices, engine = _relaxation(program)
        statistics = {"engine": engine, "variables": model.variables, "rows": len(program.lo)}
        if x is None:
            _, prices, _ = _relaxation(program, elastic=True)
            if _lagrangian(linear, prices, priced=False) > 0:
                return Answer(claim="infeasible", certificate=Multipliers(prices), statistics=statistics)
            x, prices, statistics["engine"] = _relaxation(program, engines=ENGINES[1:])  # it was wrong
        if x is None:
            return Answer(choice=search.choice, statistics=statistics)
        bound = linear.objective(_lagrangian(linear, prices, priced=True))
        search.begin(problem.indptr[:-1] + model.choice_of(x))
        certificate = Multipliers(prices)
        if search.best is None:
            return Answer(claimed_bound=bound, certificate=certificate, statistics=statistics)
        objective = search.best.objective
        closed = objective <= bound + CLOSE * scale_of(problem)
        return Answer(
            choice=search.choice,
            claim="optimal" if closed else None,
            claimed_bound=min(bound, objective),
            certificate=certificate,
            statistics=statistics,
        )


class _Search:
    """The best feasible allocation that repair and local search reach from where they begin."""

    def __init__(self, linear: Linear, limits: Limits) -> None:
        self.linear = linear
        self.limits = limits
        self.best: Outcome | None = None

    def begin(self, taken: IntArray | None) -> None:
        """Repair and improve an allocation (rows [G]); keep and report what comes of it if it is better."""
        found = None if taken is None else repaired(self.linear, taken)
        if found is None:
            return
        problem = self.linear.problem
        outcome = problem.evaluate(improved(self.linear, found) - problem.indptr[:-1])
        if outcome.feasible and (self.best is None or outcome.objective < self.best.objective):
            self.best = outcome
            if self.limits.report is not None:
                self.limits.report(outcome.rows - problem.indptr[:-1])

    @property
    def choice(self) -> IntArray | None:
        """Index within each group [G]."""
        return None if self.best is None else self.best.rows - self.linear.problem.indptr[:-1]


def _relaxation(
    program: Scaled, elastic: bool = False, engines: tuple[str, ...] = ENGINES
) -> tuple[FloatArray | None, tuple[float, ...], str]:
    """Solve the LP (elastic: minimise how far the rows are missed instead); x or None where it is infeasible.

    The prices are those of the problem's budget rows, in units of its objective (of the rows' own where elastic).
    """
    import cvxpy
    from scipy.sparse import csr_array

    cp: Any = cvxpy  # typed in parts only
    model = program.model
    groups = len(model.start) - 1
    matrix = csr_array((program.value, program.index, program.indptr), shape=(len(program.lo), model.variables))
    once, rest = matrix[:groups], matrix[groups:]
    lo, hi = program.lo[groups:], program.hi[groups:]
    below, above = np.flatnonzero(np.isfinite(hi)), np.flatnonzero(np.isfinite(lo))
    x = cp.Variable(model.variables, nonneg=True)
    missed = cp.Variable(len(lo), nonneg=True) if elastic and len(lo) else None
    give = 0 if missed is None else missed
    constraints = [once @ x == 1]
    if len(lo):
        least = rest @ x + give
        most = rest @ x - give
        constraints += [most[below] <= hi[below], least[above] >= lo[above]]
    goal = program.objective @ x if missed is None else cp.sum(missed)
    engine, status = _run(cp.Problem(cp.Minimize(goal), constraints), engines)
    prices = [0.0] * len(model.problem.budgets)
    if status in GOOD and len(lo):
        shift = program.row_exponent[groups:] - (0 if elastic else program.exponent)
        budget, unit = program.budget[groups:], program.unit[groups:]
        for rows, dual, sign in ((below, constraints[1], 1.0), (above, constraints[2], -1.0)):
            if not len(rows):
                continue
            values = np.maximum(np.asarray(dual.dual_value, np.float64).reshape(-1), 0.0)
            for row, value in zip(rows.tolist(), values.tolist(), strict=True):
                prices[int(budget[row])] += sign * math.ldexp(value, int(shift[row])) / float(unit[row])
    return (np.asarray(x.value, np.float64) if status in GOOD else None), tuple(prices), engine


def _run(problem: Any, engines: tuple[str, ...]) -> tuple[str, str]:
    """The first engine that comes to an end, and how: optimal or infeasible."""
    said = []
    for engine in engines:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "solution may be inaccurate": the bound does not depend on it
                problem.solve(solver=engine)
        except Exception as error:  # an engine that gives up raises cvxpy's error or its own
            said.append(f"{engine}: {type(error).__name__}: {error}")
            continue
        if problem.status in GOOD or problem.status == "infeasible":
            return engine.lower(), problem.status
        said.append(f"{engine}: {problem.status}")
    raise SolverError(f"no engine of cvxpy solved the relaxation ({'; '.join(said)}); try lagrangian or ortools_mip")


def _lagrangian(linear: Linear, prices: tuple[float, ...], *, priced: bool) -> float:
    """Σ_g min_k (value + Σ λ·column) − Σ λ·limit, without the value where not priced; no allocation is below."""
    total = linear.value.copy() if priced else np.zeros(linear.problem.choice_count)
    paid = []
    for row in linear.rows:
        price = prices[row.budget]
        limit = row.hi if price > 0 else row.lo
        if price == 0 or limit is None:
            continue
        total = total + price * row.column
        paid.append(-price * limit)
    least = np.minimum.reduceat(np.where(linear.free, total, np.inf), linear.problem.indptr[:-1])
    return math.fsum([*least.tolist(), *paid])
