"""The exact backends that rest on libraries, as they answer before the core proves anything: claims, bounds, limits."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from allocator.errors import SolverError, UnsupportedError, UsageError
from allocator.evaluation import Outcome, lexicographic, scale_of
from allocator.isolation import solve_isolated
from allocator.names import encode
from allocator.problem import Problem
from allocator.protocols import Limits, Solver
from allocator.reduce import reduce
from allocator.solution import Answer
from allocator.statement import Basis, Budget, Loss, MaxDistinct, Pairs
from allocator.testing.claims import tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, PARTS, random_rows
from allocator.testing.reference import Reference
from solvers.ortools_cpsat import OrtoolsCpsat
from solvers.ortools_mip import OrtoolsMip
from solvers.scipy_milp import ScipyMilp

STEP = 2.0**-40  # of a group's range: what CP-SAT's integers round to
EXACT: tuple[Solver, ...] = (ScipyMilp(), OrtoolsMip(), OrtoolsMip(engine="highs"), OrtoolsCpsat())
exact = pytest.mark.parametrize("solver", EXACT, ids=repr)


def ask(solver: Solver, problem: Problem, start: NDArray[np.int64] | None = None, **limits: Any) -> Answer:
    return solve_isolated(solver, problem, Limits(**limits), start)


def outcome(problem: Problem, answer: Answer) -> Outcome:
    assert answer.choice is not None
    found = problem.evaluate(answer.choice)
    assert found.violations == ()
    return found


def best_of(problem: Problem) -> Outcome | None:
    """By looking at everything."""
    every = itertools.product(*map(range, problem.sizes.tolist()))
    feasible = (o for o in (problem.evaluate(np.array(places, np.int64)) for places in every) if o.feasible)
    return min(feasible, key=lambda o: (o.objective, o.tie), default=None)


def check(solver: Solver, problem: Problem, best: Outcome | None, slip: float, label: object) -> None:
    """An exact backend's own word, against the truth."""
    answer = ask(solver, problem)
    if best is None:
        assert (answer.choice, answer.claim) == (None, "infeasible"), label
        return
    found = outcome(problem, answer)
    if isinstance(solver, OrtoolsCpsat):
        slip += problem.group_count * scale_of(problem) * STEP
    assert found.objective <= best.objective + slip, label
    if lexicographic(problem):
        assert found.tie <= best.tie + slip, label
    assert answer.claim == "optimal", label
    assert answer.claimed_bound is not None, label
    assert found.objective - max(10 * slip, 1e-9 * abs(found.objective)) <= answer.claimed_bound, label
    assert answer.claimed_bound <= best.objective + slip, label


# -- exact backends --------------------------------------------------------------------------------------------------


@exact
def test_the_worked_examples(solver: Solver, golden: Path, example: dict[str, Any]) -> None:
    cases = json.loads((golden / "example.expected.json").read_text())
    assert len(cases) == 11
    for case in cases:
        problem = Problem.from_rows({**example, **case["patch"]})
        answer = ask(solver, problem)
        if case["best"] is None:
            assert (answer.choice, answer.claim) == (None, "infeasible"), case["case"]
            continue
        found = outcome(problem, answer)
        assert found.objective == pytest.approx(case["best"]["objective"], rel=1e-12), case["case"]
        assert found.totals == pytest.approx(case["best"]["totals"]), case["case"]
        assert answer.claim == "optimal", case["case"]


@pytest.fixture(scope="module")
def drawn() -> list[tuple[int, Problem, Outcome | None, float]]:
    """Random problems over all features as a backend gets them, with the optimum and how far rounding may go."""
    found = []
    for seed in range(20_000, 20_000 + times(300)):
        rows = random_rows(seed, PARTS if seed % 3 else LINEAR, most_allocations=150)
        try:
            reduced = reduce(Problem.from_rows(rows)).problem
        except UnsupportedError:
            continue
        if reduced is not None:
            found.append((seed, reduced, best_of(reduced), tolerance(Reference(rows))))
    return found


@exact
def test_random_problems(solver: Solver, drawn: list[tuple[int, Problem, Outcome | None, float]]) -> None:
    seen: set[str] = set()
    refused = 0
    for seed, problem, best, slip in drawn:
        try:
            check(solver, problem, best, slip, seed)
        except UnsupportedError:  # a p-norm in a mixture, a maximum with a negative weight
            refused += 1
            continue
        seen |= problem.features
    assert refused <= len(drawn) // 20
    assert seen >= solver.features - {"same_choice"}  # which the reduction merges


def hairy(seed: int) -> Problem:
    """Budgets missed by one part in 2^40, integers up to 2^57, equations of floats."""
    rng = np.random.default_rng(seed)
    groups, choices = int(rng.integers(3, 6)), int(rng.integers(2, 5))
    kind = ("huge", "float", "equation", "small")[seed % 4]
    costs: NDArray[Any]
    if kind == "huge":
        costs = rng.integers(0, 2**36, (groups, 1)) * 2**20 + rng.integers(
            0, 2 ** rng.integers(3, 50), (groups, choices)
        )
    elif kind == "small":
        costs = rng.integers(0, 30, (groups, choices))
    else:
        costs = rng.integers(0, 50, (groups, choices)) + rng.integers(-3, 4, (groups, choices)) * 2.0**-35
    loss = rng.normal(size=(groups, choices)) - 0.1 * np.argsort(np.argsort(costs, axis=1), axis=1)
    used = costs[np.arange(groups), rng.integers(0, choices, groups)].sum().item()
    if kind == "equation":
        limits = {"max": used, "min": used}
    elif kind == "float":
        limits = {"max": used * (1 - float(rng.choice([0, 3e-12, -3e-12, 1e-11, 1e-9])))}
    else:
        limits = {"max": used - int(rng.integers(0, 2))}
    return Problem.from_arrays(loss, costs).replace(budgets=(Budget(resource="cost", **limits),))


@exact
def test_budgets_missed_by_a_hair(solver: Solver) -> None:
    for seed in range(times(60)):
        problem = hairy(seed)
        answer = ask(solver, problem)
        best = best_of(problem)
        if best is None:
            assert answer.choice is None, seed
            assert answer.claim == "infeasible", seed
            continue
        found = outcome(problem, answer)
        slip = (1e-12 + problem.group_count * STEP) * scale_of(problem)
        if answer.claim == "optimal":
            assert found.objective <= best.objective + slip, seed


@exact
def test_the_size_of_the_losses_does_not_matter(solver: Solver) -> None:
    rng = np.random.default_rng(5)
    loss = np.sort(rng.random((12, 5)), axis=1)[:, ::-1]
    costs = np.sort(rng.integers(1, 1000, (12, 5)), axis=1)
    budget = int(costs.mean() * 12)
    choices = set()
    for scale in (1e-12, 1e-6, 1.0, 1e6, 1e12):
        problem = Problem.from_arrays(loss * scale, costs, budgets={"cost": budget})
        answer = ask(solver, problem)
        assert answer.claim == "optimal"
        choices.add(tuple(outcome(problem, answer).rows.tolist()))
    assert len(choices) == 1


def larger(seed: int, groups: int = 30) -> Problem:
    """Two-bit to eight-bit choices as in practice, too many to enumerate."""
    rng = np.random.default_rng(seed)
    weights = np.exp(rng.normal(12, 1, groups)).astype(np.int64)
    bits = np.arange(2, 8)
    loss = np.exp(rng.normal(0, 1.5, (groups, 1))) * 4.0**-bits * np.exp(rng.normal(0, 0.2, (groups, 6)))
    costs = weights[:, None] * bits // 8
    labels = encode([f"int{b}" for _ in range(groups) for b in bits])
    budget = int(costs[:, 0].sum() + 0.3 * (costs[:, -1] - costs[:, 0]).sum())
    return Problem.from_arrays({"s": loss}, {"bytes": costs}, labels=labels, budgets={"bytes": budget})


def chained(problem: Problem) -> Problem:
    """Every pair of choices of neighbouring groups counts."""
    rng = np.random.default_rng(0)
    size = int(problem.sizes[0])
    place = np.arange(size)
    index = [
        np.stack(np.meshgrid(g * size + place, (g + 1) * size + place, indexing="ij"), axis=-1).reshape(-1, 2)
        for g in range(problem.group_count - 1)
    ]
    pairs = np.concatenate(index)
    value = 0.3 * rng.normal(size=len(pairs)) * np.sqrt(problem.unary[pairs[:, 0]] * problem.unary[pairs[:, 1]])
    return problem.replace(interactions=(Pairs("s", pairs, value),))


def test_all_agree_on_problems_that_cannot_be_enumerated() -> None:
    plain = larger(1)
    basis = Basis("s", np.array([0.3, -0.2]), np.random.default_rng(1).normal(size=(36, 2)) * 0.05)
    cases = {
        "one budget": plain,
        "smallest for a loss": plain.replace(minimize={"bytes": 1.0}, budgets=(Budget(loss=True, max=0.5),)),
        "least maximum": plain.with_loss("s", aggregate="max"),
        "p-norm": plain.with_loss("s", aggregate="pnorm", p=3.0),
        "two formats": plain.replace(couplings=(MaxDistinct(2, tuple(range(30))),)),
        "maximum in a mixture": plain.replace(loss=Loss({"s": 1.0}, "max"), minimize={"loss": 1.0, "bytes": 1e-8}),
        "chain": chained(plain),
        "basis": larger(2, groups=6).replace(interactions=(basis,)),
    }
    for name, problem in cases.items():
        answers = [ask(solver, problem) for solver in EXACT]
        assert {a.claim for a in answers} == {"optimal"}, name
        found = [outcome(problem, a) for a in answers]
        assert max(o.objective for o in found) == pytest.approx(min(o.objective for o in found), rel=1e-10), name
        assert max(o.tie for o in found) == pytest.approx(min(o.tie for o in found), rel=1e-10), name


@exact
def test_a_gap_is_kept(solver: Solver) -> None:
    problem = larger(3, groups=60)
    truth = outcome(problem, ask(solver, problem)).objective
    answer = ask(solver, problem, gap=0.05)
    found = outcome(problem, answer).objective
    assert answer.claimed_bound is not None
    assert answer.claimed_bound <= truth * (1 + 1e-9)
    assert found - answer.claimed_bound <= 0.05 * found
    assert answer.limit is None


@exact
def test_answers_repeat_and_a_start_is_not_lost(solver: Solver) -> None:
    problem = larger(4)
    first, second = ask(solver, problem, seed=7, threads=1), ask(solver, problem, seed=7, threads=1)
    assert first.choice is not None
    assert second.choice is not None
    assert np.array_equal(first.choice, second.choice)
    assert first.statistics == second.statistics
    seen: list[Any] = []
    again = ask(solver, problem, first.choice, report=seen.append)
    assert np.array_equal(seen[0], first.choice)
    assert outcome(problem, again).objective <= outcome(problem, first).objective


@exact
def test_a_limit_that_fires_leaves_a_checked_allocation(solver: Solver) -> None:
    problem = larger(5, groups=20_000)
    begun = time.monotonic()
    answer = ask(solver, problem, time=0.3)
    assert time.monotonic() - begun < 30  # the worker is killed, whatever the library makes of its limit
    assert (answer.limit, answer.claim) == ("time", None)
    outcome(problem, answer)


def test_cpsat_reports_what_it_finds_and_only_better() -> None:
    problem = chained(larger(6, groups=20))
    seen: list[float] = []
    ask(OrtoolsCpsat(), problem, report=lambda choice: seen.append(problem.evaluate(choice).objective))
    assert len(seen) > 1
    assert seen == sorted(seen, reverse=True)
    assert all(a > b for a, b in itertools.pairwise(seen))


def test_cpsat_is_exact_where_the_objective_is_integer() -> None:
    problem = larger(7).replace(minimize={"bytes": 1.0}, budgets=(Budget(loss=True, max=0.5),))
    answer = ask(OrtoolsCpsat(), problem)
    assert answer.claimed_bound == outcome(problem, answer).objective


def test_cpsat_is_spared_the_presolve_step_that_loses_optima() -> None:
    """OR-Tools 9.15 calls worse allocations of these optimal unless told not to (google/or-tools issue 5293)."""
    for seed in (90, 95, 149, 302, 341, 403):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, 5, 5)
        count, start = int(sizes.sum()), np.concatenate([[0], np.cumsum(sizes)])
        loss, costs, other = rng.normal(size=count), rng.integers(1, 9, count), rng.normal(size=count)
        basis = Basis("s", rng.normal(size=2), rng.normal(size=(count, 2)) * (rng.random((count, 1)) < 0.8))
        problem = Problem.from_arrays({"s": loss, "t": other}, costs, indptr=start)
        row = Budget(score="t", max=float(other[start[:-1]].sum()))
        problem = problem.replace(budgets=(row,), interactions=(basis,))
        check(OrtoolsCpsat(), problem, best_of(problem), 0.0, seed)


def test_options_and_limits_that_cannot_be_honoured_are_named() -> None:
    with pytest.raises(UsageError, match="gurobi"):
        OrtoolsMip(engine="gurobi")  # type: ignore[arg-type]  # what a user may type
    with pytest.raises(UsageError, match="threads"):
        ask(OrtoolsMip(engine="highs"), larger(0), threads=2)
    for solver in (OrtoolsMip(), OrtoolsCpsat(), ScipyMilp()):
        assert ask(solver, larger(0), threads=2).claim == "optimal"
    assert repr(OrtoolsMip(engine="highs")) == "OrtoolsMip(engine='highs')"


@exact
def test_too_many_products_are_refused_by_number(solver: Solver) -> None:
    rng = np.random.default_rng(0)
    basis = Basis("score", np.ones(2), rng.normal(size=(54 * 7, 2)))
    problem = Problem.from_arrays(rng.random((54, 7)), rng.random((54, 7))).replace(interactions=(basis,))
    with pytest.raises(UnsupportedError, match="70119 products"):
        ask(solver, problem)


def test_mathopts_own_message_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    import solvers.ortools_mip as backend

    proto = backend._proto

    def spoiled(program: Any, offset: float) -> Any:
        return proto(program, 1e21)  # which SCIP takes for infinite

    monkeypatch.setattr(backend, "_proto", spoiled)
    with pytest.raises(SolverError, match=r"scip.*finite range.*ortools_cpsat"):
        OrtoolsMip().solve(larger(0, groups=4), Limits())


# -- libraries that share objects ------------------------------------------------------------------------------------

CVXPY_FIRST = ("cvxpy", "highspy", "ortools.sat.python.cp_model", "ortools.math_opt.python.mathopt")


@pytest.mark.parametrize("modules", [CVXPY_FIRST, CVXPY_FIRST[::-1]], ids=["cvxpy first", "ortools first"])
def test_cvxpy_and_ortools_share_a_process(modules: tuple[str, ...]) -> None:
    script = f"""
import importlib
for name in {modules!r}:
    importlib.import_module(name)
import numpy as np
from allocator.problem import Problem
from allocator.protocols import Limits
from solvers.cvxpy_relaxation import CvxpyRelaxation
from solvers.ortools_cpsat import OrtoolsCpsat
from solvers.ortools_mip import OrtoolsMip
from solvers.scipy_milp import ScipyMilp
problem = Problem.from_arrays([[3.0, 1.0], [2.0, 0.0]], [[1, 2], [1, 3]], budgets={{"cost": 4}})
for solver in (CvxpyRelaxation(), OrtoolsMip(), OrtoolsMip(engine="highs"), OrtoolsCpsat(), ScipyMilp()):
    assert solver.solve(problem, Limits()).choice.tolist() == [0, 1], solver
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
