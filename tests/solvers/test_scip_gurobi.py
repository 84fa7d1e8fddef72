"""scip and gurobi: what they hand to their libraries and make of the answers.

The libraries are extras. A stand-in with the same calls, which solves by scipy's HiGHS, takes their place here; it
shows that our side is right, not that theirs is. PySCIPOpt itself is asked as well wherever it is installed.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

import allocator
from allocator.errors import SolverError, UnavailableError, UnsupportedError
from allocator.problem import Problem
from allocator.protocols import Limits, Solver
from allocator.reduce import reduce
from allocator.testing.claims import tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import PARTS, random_rows
from allocator.testing.reference import Reference
from solvers.gurobi import Gurobi
from solvers.scip import Scip


def solved(cost: Any, matrix: Any, lo: Any, hi: Any, integer: Any) -> Any:
    """The program by HiGHS."""
    return milp(
        cost,
        constraints=LinearConstraint(matrix, lo, hi),
        integrality=integer,
        bounds=Bounds(np.zeros(len(cost)), np.ones(len(cost))),
        options={"mip_rel_gap": 0.0, "presolve": False},
    )


# -- a stand-in for gurobipy -----------------------------------------------------------------------------------------


class GurobiError(Exception):
    pass


class MVar:
    def __init__(self, kinds: np.ndarray) -> None:
        self.kinds = kinds
        self.X: np.ndarray | None = None
        self.Start: np.ndarray | None = None

    def __rmatmul__(self, cost: np.ndarray) -> SimpleNamespace:
        return Objective(cost=cost, offset=0.0)

    __array_ufunc__ = None  # so that array @ this comes here


class Objective(SimpleNamespace):
    def __add__(self, offset: float) -> Objective:
        return Objective(cost=self.cost, offset=self.offset + offset)


class GurobiModel:
    """status: what it says instead of the truth, where that is not None."""

    status: int | None = None
    failure: str | None = None
    made: list[GurobiModel]

    def __init__(self, name: str, env: Any) -> None:
        self.settings = env.settings
        self.rows: list[tuple[Any, str, np.ndarray]] = []
        self.made.append(self)

    def __enter__(self) -> GurobiModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def update(self) -> None:
        """Nothing is lazy here."""

    def addMVar(self, count: int, lb: float, ub: float, vtype: np.ndarray) -> MVar:  # noqa: N802 - the library's name
        assert (lb, ub, len(vtype)) == (0.0, 1.0, count)
        self.x = MVar(vtype)
        return self.x

    def setObjective(self, objective: Objective, sense: int) -> None:  # noqa: N802 - the library's name
        assert sense == 1
        self.goal = objective

    def addMConstr(self, matrix: Any, x: MVar, sense: str, limit: np.ndarray) -> None:  # noqa: N802 - the library's name
        assert x is self.x
        assert np.isfinite(limit).all()
        self.rows.append((matrix, sense, limit))

    def cbGetSolution(self, x: MVar) -> np.ndarray:  # noqa: N802 - the library's name
        assert x is self.x
        assert self.found.x is not None
        return self.found.x

    def optimize(self, callback: Callable[[Any, int], None]) -> None:
        if self.failure is not None:
            raise GurobiError(self.failure)
        matrix = vstack([csr_array(m) for m, _, _ in self.rows])
        lo = np.concatenate([np.where(s == "<", -np.inf, b) for _, s, b in self.rows])
        hi = np.concatenate([np.where(s == ">", np.inf, b) for _, s, b in self.rows])
        self.found = solved(self.goal.cost, matrix, lo, hi, self.x.kinds == "B")
        self.SolCount = int(self.found.x is not None)
        self.Status = self.status or (2 if self.SolCount else 3)
        self.ObjBound = self.found.fun + self.goal.offset if self.SolCount else 1e100
        self.x.X = self.found.x
        if self.SolCount:
            callback(self, 4)


class Environment:
    def __init__(self, params: dict[str, Any]) -> None:
        self.settings = params

    def __enter__(self) -> Environment:
        return self

    def __exit__(self, *_: object) -> None:
        """The licence goes back."""


# -- a stand-in for pyscipopt ----------------------------------------------------------------------------------------


class Expression:
    """Σ coefficient·variable, and what it is compared with."""

    def __init__(self, terms: dict[int, float]) -> None:
        self.terms = terms

    def __rmul__(self, factor: float) -> Expression:
        return Expression({k: factor * v for k, v in self.terms.items()})

    def __le__(self, limit: float) -> tuple[Expression, float, float]:
        return self, -np.inf, limit

    def __ge__(self, limit: float) -> tuple[Expression, float, float]:
        return self, limit, np.inf


def quicksum(parts: Any) -> Expression:
    total: dict[int, float] = {}
    for part in parts:
        for k, v in part.terms.items():
            total[k] = total.get(k, 0.0) + v
    return Expression(total)


class ScipModel:
    status: str | None = None
    made: list[ScipModel]

    def __init__(self, name: str) -> None:
        self.costs: list[float] = []
        self.kinds: list[str] = []
        self.rows: list[list[Any]] = []
        self.starts: list[dict[int, float]] = []
        self.offset, self.caught = 0.0, None
        self.made.append(self)

    def hideOutput(self) -> None:  # noqa: N802 - the library's name
        """Quiet already."""

    setMinimize = hideOutput  # noqa: N815 - the library's name

    def addVar(self, vtype: str, lb: float, ub: float, obj: float) -> Expression:  # noqa: N802 - the library's name
        self.costs.append(obj)
        self.kinds.append(vtype)
        return Expression({len(self.costs) - 1: 1.0})

    def addObjoffset(self, offset: float) -> None:  # noqa: N802 - the library's name
        self.offset = offset

    def addCons(self, row: tuple[Expression, float, float]) -> list[Any]:  # noqa: N802 - the library's name
        self.rows.append(list(row))
        return self.rows[-1]

    def chgLhs(self, row: list[Any], limit: float) -> None:  # noqa: N802 - the library's name
        row[1] = limit

    def setParams(self, settings: dict[str, Any]) -> None:  # noqa: N802 - the library's name
        self.settings = settings

    def includeEventhdlr(self, handler: Any, name: str, description: str) -> None:  # noqa: N802 - the library's name
        self.handler = handler
        handler.model = self

    def catchEvent(self, kind: str, handler: Any) -> None:  # noqa: N802 - the library's name
        self.caught = kind

    def dropEvent(self, kind: str, handler: Any) -> None:  # noqa: N802 - the library's name
        assert self.caught == kind

    def createSol(self) -> dict[int, float]:  # noqa: N802 - the library's name
        return {}

    def setSolVal(self, solution: dict[int, float], variable: Expression, value: float) -> None:  # noqa: N802 - the library's name
        solution[next(iter(variable.terms))] = value

    def addSol(self, solution: dict[int, float], free: bool) -> None:  # noqa: N802 - the library's name
        self.starts.append(solution)

    def optimize(self) -> None:
        entries = [(i, k, v) for i, (e, _, _) in enumerate(self.rows) for k, v in e.terms.items()]
        i, k, v = (list(map(operator.itemgetter(p), entries)) for p in range(3))
        matrix = csr_array((v, (i, k)), shape=(len(self.rows), len(self.costs)))
        lo, hi = (np.array([r[p] for r in self.rows]) for p in (1, 2))
        self.found = solved(np.array(self.costs), matrix, lo, hi, np.array(self.kinds) == "B")
        self.handler.eventinit()
        if self.found.x is not None:
            self.handler.eventexec(None)
        self.handler.eventexit()

    def getBestSol(self) -> np.ndarray:  # noqa: N802 - the library's name
        assert self.found.x is not None
        return self.found.x

    def getSolVal(self, solution: np.ndarray, variable: Expression) -> float:  # noqa: N802 - the library's name
        return float(solution[next(iter(variable.terms))])

    def getNSols(self) -> int:  # noqa: N802 - the library's name
        return int(self.found.x is not None)

    def getStatus(self) -> str:  # noqa: N802 - the library's name
        return self.status or ("optimal" if self.getNSols() else "infeasible")

    def getDualbound(self) -> float:  # noqa: N802 - the library's name
        return self.found.fun + self.offset if self.getNSols() else 1e20

    def infinity(self) -> float:
        return 1e20


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    gurobi, scip = ModuleType("gurobipy"), ModuleType("pyscipopt")
    constants = SimpleNamespace(
        BINARY="B", CONTINUOUS="C", MINIMIZE=1, EQUAL="=", LESS_EQUAL="<", GREATER_EQUAL=">", OPTIMAL=2, INFEASIBLE=3,
        INF_OR_UNBD=4, TIME_LIMIT=9, INTERRUPTED=11, SUBOPTIMAL=13, MEM_LIMIT=17, INFINITY=1e100,
        Callback=SimpleNamespace(MIPSOL=4),
    )  # fmt: skip
    gurobi.__dict__.update(Model=GurobiModel, Env=Environment, GRB=constants, GurobiError=GurobiError)
    events = SimpleNamespace(BESTSOLFOUND="best")
    scip.__dict__.update(Model=ScipModel, Eventhdlr=object, SCIP_EVENTTYPE=events, quicksum=quicksum)
    monkeypatch.setitem(sys.modules, "gurobipy", gurobi)
    monkeypatch.setitem(sys.modules, "pyscipopt", scip)
    GurobiModel.made, ScipModel.made = [], []
    GurobiModel.status = GurobiModel.failure = ScipModel.status = None
    yield
    GurobiModel.status = GurobiModel.failure = ScipModel.status = None


def agrees(solver: Solver, count: int) -> None:
    """With the reference on random problems that use every part of the format."""
    asked = 0
    for seed in range(60_000, 60_000 + count):
        rows = random_rows(seed, PARTS, most_allocations=100)
        problem = reduce(Problem.from_rows(rows)).problem
        if problem is None:
            continue
        try:
            answer = solver.solve(problem, Limits())
        except UnsupportedError:
            continue
        asked += 1
        best = Reference(rows).best
        if best is None:
            assert (answer.choice, answer.claim) == (None, "infeasible"), seed
            continue
        assert answer.claim == "optimal", seed
        assert answer.choice is not None
        found = problem.evaluate(answer.choice)
        assert found.feasible, seed
        assert found.objective <= best.objective + tolerance(Reference(rows)), seed
    assert asked > count * 0.7


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("solver", [Scip(), Gurobi()], ids=repr)
def test_random_problems_through_a_stand_in(solver: Solver) -> None:
    agrees(solver, times(80))
    assert ScipModel.made or GurobiModel.made


@pytest.mark.parametrize("installed", [find_spec("pyscipopt") is not None])
def test_scip_itself_where_it_is_installed(installed: bool) -> None:
    """Without the package the backend is unavailable, and says how to get it."""
    if installed:
        agrees(Scip(), times(80))
        return
    listed = {s.name: s for s in allocator.solvers()}["scip"]
    assert not listed.available
    with pytest.raises(UnavailableError, match=r"'scip' is unavailable.*pyscipopt"):
        allocator.solve(random_rows(0, frozenset()), solver="scip")


def knapsack() -> Problem:
    rng = np.random.default_rng(0)
    costs = rng.integers(1, 50, (8, 4))
    return Problem.from_arrays(rng.random((8, 4)), costs, budgets={"cost": int(costs.mean() * 7)})


@pytest.mark.usefixtures("stand_ins")
def test_limits_and_starts_reach_the_libraries() -> None:
    problem = knapsack()
    limits = Limits(time=60, threads=3, seed=7, gap=0.25)
    start = np.argmin(problem.costs["cost"].reshape(8, 4), axis=1)
    assert Gurobi().solve(problem, limits, start).choice is not None
    settings, x = GurobiModel.made[0].settings, GurobiModel.made[0].x
    assert (settings["MIPGap"], settings["MIPGapAbs"], settings["Seed"], settings["Threads"]) == (0.25, 0.0, 7, 3)
    assert 50 < settings["TimeLimit"] <= 60
    assert x.Start is not None
    assert Scip().solve(problem, limits, start).choice is not None
    made = ScipModel.made[0]
    assert made.settings["limits/gap"] == 0.25
    assert made.settings["limits/absgap"] == 0.0
    assert made.settings["randomization/randomseedshift"] == 7
    assert 50 < made.settings["limits/time"] <= 60
    assert made.starts
    assert made.caught == "best"
    plain = Limits()
    Gurobi().solve(problem, plain)
    Scip().solve(problem, plain)
    assert not {"TimeLimit", "Threads"} & set(GurobiModel.made[-1].settings)
    assert "limits/time" not in ScipModel.made[-1].settings


@pytest.mark.usefixtures("stand_ins")
def test_a_clock_that_fires_claims_nothing_and_failures_are_told() -> None:
    problem = knapsack()
    GurobiModel.status, ScipModel.status = 9, "timelimit"
    for solver in (Gurobi(), Scip()):
        answer = solver.solve(problem, Limits(time=30))
        assert (answer.claim, answer.limit) == (None, "time")
        assert answer.choice is not None
        assert answer.claimed_bound is not None
    GurobiModel.status, ScipModel.status = 12, "unknown"
    with pytest.raises(SolverError, match=r"Gurobi ended with status 12.*ortools_mip"):
        Gurobi().solve(problem, Limits())
    with pytest.raises(SolverError, match=r"SCIP ended with 'unknown'.*scipy_milp"):
        Scip().solve(problem, Limits())
    GurobiModel.failure = "Model too large for size-limited license"
    with pytest.raises(SolverError, match=r"size-limited license.*licence"):
        Gurobi().solve(problem, Limits())


@pytest.mark.skipif(find_spec("gurobipy") is not None, reason="the message of a missing package needs it missing")
def test_gurobi_is_unavailable_with_a_reason() -> None:
    with pytest.raises(UnavailableError, match=r"'gurobi' is unavailable.*gurobipy"):
        allocator.solve(random_rows(0, frozenset()), solver="gurobi")
