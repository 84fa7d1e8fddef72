"""The exact backend through `allocator.solve`: what it answers, proves, refuses and hands over."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import allocator
from allocator.engine import _native
from allocator.engine import cases as engine_cases
from allocator.errors import UnsupportedError, UsageError
from allocator.problem import Problem
from allocator.testing.claims import false_claims, tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, random_rows
from allocator.testing.reference import Reference
from solvers import exact
from solvers.exact import Exact

COUPLED = {"max_distinct", "cardinality", "implies", "same_choice"}
PARTS = LINEAR | COUPLED | {"max_loss", "pnorm_loss", "loss_budgets", "max_resource"}


@pytest.fixture(params=["c", "numpy"])
def engine(request, monkeypatch):
    if request.param == "c" and _native is None:
        pytest.skip("the extension was not built")  # tests/allocator/engine/test_native.py fails where it has to be
    monkeypatch.setenv("ALLOCATOR_ENGINE", request.param)  # whatever it says outside
    return request.param


def one_budget(seed, parts=PARTS):
    """A random problem under at most one row, which has one side."""
    rows = random_rows(seed, parts)
    rows["budgets"] = rows["budgets"][:1]
    for budget in rows["budgets"]:
        if "min" in budget and "max" in budget:
            del budget["min" if seed % 2 else "max"]
    return rows


@pytest.mark.parametrize(
    "parts", [PARTS, LINEAR - {"several_budgets"}, LINEAR | COUPLED], ids=["all", "linear", "coupled"]
)
def test_random_problems_under_one_budget(engine, parts):
    seen = Counter()
    for seed in range(times(150)):
        rows = one_budget(seed, parts)
        reference, problem = Reference(rows), Problem.from_rows(rows)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                solution = allocator.solve(problem, solver="exact")
            except UnsupportedError:
                seen["unsupported"] += 1
                continue
        assert not false_claims(reference, solution), (seed, solution)
        best, slip = reference.best, tolerance(reference) + 1e-300
        seen[solution.status] += 1
        if best is None:
            assert solution.status == "infeasible", seed
            continue
        assert solution.status == "optimal" or solution.claim == "optimal", (seed, solution)
        assert solution.objective <= best.objective + slip, seed
        if solution.claimed_bound is not None:
            assert solution.claimed_bound <= best.objective + slip, seed
    assert seen["optimal"] > times(60), seen
    assert seen["infeasible"] > times(10), seen
    assert seen["unsupported"] < times(15), seen


def knapsack(seed, groups=40, choices=5, shift=0.0, tightness=0.4):
    rng = np.random.default_rng(seed)
    cost = rng.integers(0, 10**6, (groups, choices))
    score = -((cost / 10**6) ** 0.7) * rng.uniform(0.5, 1.5, cost.shape) + shift
    low, high = int(cost.min(axis=1).sum()), int(cost.max(axis=1).sum())
    return Problem.from_arrays(score, {"r": cost}, budgets={"r": int(low + tightness * (high - low))})


def test_one_budget_is_proved_by_its_core(engine):
    solution = allocator.solve(knapsack(0), solver="exact", engine=engine)
    assert solution.status == "optimal"
    assert solution.proven_bound == solution.claimed_bound == solution.objective
    assert solution.certificate["kind"] in ("core", "multipliers")
    assert solution.run["statistics"]["engine"] == engine
    assert solution.limit is None
    assert solution.multipliers[0] > 0


def test_the_engines_give_the_same_allocation(monkeypatch):
    monkeypatch.delenv("ALLOCATOR_ENGINE", raising=False)
    if _native is None:
        pytest.skip("the extension was not built")
    for seed in range(times(10)):
        problem = knapsack(seed)
        c, numpy = (allocator.solve(problem, solver="exact", engine=e) for e in ("c", "numpy"))
        assert c.allocation.choice.tolist() == numpy.allocation.choice.tolist()
        assert c.objective == numpy.objective


def test_twice_the_same(engine):
    for seed in range(times(5)):
        first, second = (allocator.solve(knapsack(seed), solver="exact", engine=engine) for _ in range(2))
        assert first.allocation.choice.tolist() == second.allocation.choice.tolist()
        assert (first.objective, first.multipliers) == (second.objective, second.multipliers)


def test_threads_of_the_caller_do_not_meet(engine):
    problems = [knapsack(seed, groups=120) for seed in range(times(8))]
    alone = [allocator.solve(p, solver="exact", engine=engine).objective for p in problems]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda p: allocator.solve(p, solver="exact", engine=engine).objective, problems))
    assert together == alone


# -- options -----------------------------------------------------------------------------------------------------


def test_an_unknown_engine_is_refused_with_what_there_is():
    with pytest.raises(UsageError, match=r"engine='fortran': give auto, c, numpy"):
        allocator.solve(knapsack(0), solver="exact", engine="fortran")
    with pytest.raises(UsageError, match="exact"):
        allocator.solve(knapsack(0), solver="exact", motor="c")


def test_c_without_the_extension_is_refused(monkeypatch):
    monkeypatch.delenv("ALLOCATOR_ENGINE", raising=False)
    monkeypatch.setattr("allocator.engine._native", None)
    with pytest.raises(UsageError, match="the extension was not built; install with a C compiler, or use 'numpy'"):
        allocator.solve(knapsack(0), solver="exact", engine="c")
    solution = allocator.solve(knapsack(0), solver="exact")
    assert solution.run["statistics"]["engine"] == "numpy"
    assert solution.status == "optimal"


def test_the_environment_turns_c_off(monkeypatch):
    monkeypatch.setenv("ALLOCATOR_ENGINE", "numpy")
    assert allocator.solve(knapsack(0), solver="exact").run["statistics"]["engine"] == "numpy"
    with pytest.raises(UsageError, match="ALLOCATOR_ENGINE=numpy turns it off; unset it"):
        allocator.solve(knapsack(0), solver="exact", engine="c")


def test_the_solver_is_its_options():
    assert repr(Exact(engine="numpy")) == "Exact(engine='numpy')"
    assert allocator.solve(knapsack(0), solver=Exact(engine="numpy")).solver["options"]["engine"] == "numpy"


# -- limits ------------------------------------------------------------------------------------------------------


def test_no_time_leaves_a_checked_allocation_and_a_true_bound(engine):
    fired = 0
    for seed in range(times(6)):
        problem = knapsack(seed, groups=300, choices=6)
        best = allocator.solve(problem, solver="exact").objective
        solution = allocator.solve(problem, solver="exact", engine=engine, time_limit=1e-9)
        assert solution.objective >= best - 1e-9
        assert solution.status in ("optimal", "feasible")
        fired += solution.limit == "time"
        if solution.limit is None:
            continue
        assert solution.claim is None
        assert solution.claimed_bound <= best + 1e-9
        assert solution.proven_bound <= best + 1e-9
        assert solution.certificate["kind"] in ("multipliers", "core")
    assert fired


@pytest.mark.parametrize("shift", [0.0, 5.0, 0.28])
@pytest.mark.parametrize("gap", [1e-4, 0.01, 0.3, 5.0])
def test_a_gap_is_kept_and_the_bound_is_true(engine, gap, shift):
    early = 0
    for seed in range(times(6)):
        problem = knapsack(seed, groups=12, shift=shift)
        best = allocator.solve(problem, solver="exact").objective
        solution = allocator.solve(problem, solver="exact", engine=engine, gap=gap)
        assert solution.claimed_bound <= best + 1e-9
        assert solution.objective <= best + gap * abs(best) + 1e-9
        assert solution.objective - solution.claimed_bound <= gap * abs(solution.objective) + 1e-9
        assert solution.claim is None
        early += solution.objective > best + 1e-9
    assert early or gap < 0.1 or shift == 0.28  # there the optimum is near 0, and so is what a gap allows


def test_a_start_is_taken_or_left(engine):
    problem = knapsack(3)
    best = allocator.solve(problem, solver="exact")
    for start in (best, [0] * 40, [4] * 40, best.allocation.choice.tolist()):
        assert allocator.solve(problem, solver="exact", engine=engine, start=start).objective == best.objective


def test_what_is_found_is_reported(engine):
    seen = []
    solution = allocator.solve(knapsack(0), solver="exact", engine=engine, report=lambda c: seen.append(c.tolist()))
    assert seen
    assert seen[-1] == solution.allocation.choice.tolist()


# -- handing over ------------------------------------------------------------------------------------------------


def half_wanted(groups=8):
    """A coupling that takes many cases."""
    rows = {
        "format": "allocation-problem",
        "version": 1,
        "groups": [
            {
                "name": f"g{g}",
                "choices": [
                    {"name": "a", "cost": {"r": 3 + g}, "score": {"s": -1.0 - 0.01 * g}},
                    {"name": "b", "cost": {"r": 1}, "score": {"s": 0.0}},
                ],
            }
            for g in range(groups)
        ],
        "budgets": [{"resource": "r", "max": 1000}],
        "couplings": [{"kind": "at_most", "choices": [[f"g{g}", "a"] for g in range(groups)], "count": groups // 2}],
    }
    return rows, Reference(rows)


def test_too_many_cases_go_to_a_mip_solver(engine, monkeypatch):
    rows, reference = half_wanted()
    monkeypatch.setattr(engine_cases.solve_cases, "__defaults__", (2,))
    solution = allocator.solve(rows, solver="exact", engine=engine)
    assert solution.run["statistics"]["handed_over"] == "ortools_mip: the couplings made too many cases"
    assert solution.solver["name"] == "exact"
    assert not false_claims(reference, solution)
    assert solution.objective == pytest.approx(reference.best.objective)


def test_few_cases_stay(engine):
    rows, reference = half_wanted()
    solution = allocator.solve(rows, solver="exact", engine=engine)
    assert "handed_over" not in solution.run["statistics"]
    assert solution.run["statistics"]["cases"] > 1
    assert solution.objective == pytest.approx(reference.best.objective)
    assert not false_claims(reference, solution)


def test_what_is_not_separable_is_handed_over(engine, monkeypatch):
    """A p-norm in a mixture is no sum over groups; what the MIP solver says of it is passed on."""
    asked = []

    def run_backend(backend, problem, limits, start):
        asked.append(backend.name)
        return allocator.solution.Answer(choice=np.zeros(problem.group_count, np.int64))

    monkeypatch.setattr(exact, "run_backend", run_backend)
    rows, _ = half_wanted()
    rows |= {"couplings": [], "minimize": {"loss": 1, "r": 0.5}, "loss": {"aggregate": "max"}}
    solution = allocator.solve(rows, solver="exact", engine=engine)
    assert asked == ["ortools_mip"]
    assert solution.run["statistics"]["handed_over"].startswith("ortools_mip: minimising a max loss is not separable")


def test_pairs_are_refused_by_name(engine):
    rows, _ = half_wanted()
    rows["interactions"] = [{"score": "s", "pairs": [{"a": ["g0", "a"], "b": ["g1", "a"], "value": 1.0}]}]
    with pytest.raises(UnsupportedError, match="'exact' does not take pairs"):
        allocator.solve(rows, solver="exact", engine=engine)


# -- kinds of objective and row ----------------------------------------------------------------------------------


def of_kind(kind, seed):
    rng = np.random.default_rng(seed)
    cost, score = rng.integers(1, 50, (5, 4)), np.round(rng.random((5, 4)), 3)
    rows = {
        "format": "allocation-problem",
        "version": 1,
        "groups": [
            {
                "name": f"g{g}",
                "choices": [
                    {"name": f"c{k}", "cost": {"r": int(cost[g, k])}, "score": {"s": float(score[g, k])}}
                    for k in range(4)
                ],
            }
            for g in range(5)
        ],
        "budgets": [{"resource": "r", "max": int(cost.mean() * 5)}],
    }
    loss = {"loss": True, "max": float(np.sort(score, axis=1)[:, 1].sum())}
    return rows | {
        "sum": {},
        "pnorm": {"loss": {"aggregate": "pnorm", "p": [1, 1.5, 2, 8, 40][seed % 5]}},
        "max": {"loss": {"aggregate": "max"}},
        "mixture": {"minimize": {"loss": 1.0, "r": 0.01}},
        "compact": {"minimize": "r", "budgets": [loss]},
        "compact pnorm": {
            "minimize": "r", "loss": {"aggregate": "pnorm", "p": 2},
            "budgets": [{"loss": True, "max": float(np.sqrt((np.sort(score, axis=1)[:, 1] ** 2).sum()))}],
        },
        "compact max": {"minimize": "r", "loss": {"aggregate": "max"}, "budgets": [{"loss": True, "max": 0.5}]},
        "min row": {"budgets": [{"resource": "r", "min": int(cost.mean() * 6)}]},
        "no row": {"budgets": []},
        "maximum of a resource": {"resources": {"r": {"aggregate": "max"}}, "budgets": [{"resource": "r", "max": 20}]},
    }[kind]  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    ["sum", "pnorm", "max", "mixture", "compact", "compact pnorm", "compact max", "min row", "no row",
     "maximum of a resource"],
)  # fmt: skip
def test_kinds_of_objective_and_row(engine, kind):
    for seed in range(times(10)):
        rows = of_kind(kind, seed)
        reference = Reference(rows)
        solution = allocator.solve(rows, solver="exact", engine=engine)
        assert not false_claims(reference, solution), seed
        if reference.best is None:
            assert solution.status == "infeasible", seed
            continue
        assert "handed_over" not in solution.run["statistics"]
        assert solution.status == "optimal", seed
        assert solution.objective == pytest.approx(reference.best.objective, rel=1e-12, abs=1e-12), seed
        if kind == "min row":
            assert solution.multipliers[0] is None or solution.multipliers[0] <= 0


def test_minute_costs_and_values(engine):
    """Prices near the end of the range of floats: nothing overflows."""
    for scale in (1e-310, 1e-300, 1e-250):
        for size in (1e-300, 1.0, 1e200):
            score, cost = -size * np.array([[0.0, 1, 2], [0, 2, 3]]), scale * np.array([[0.0, 1, 2], [0, 1, 2]])
            problem = Problem.from_arrays(score, {"r": cost}, budgets={"r": 3 * scale})
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                solution = allocator.solve(problem, solver="exact", engine=engine)
            assert solution.status == "optimal"
            assert math.isclose(solution.objective, -4 * size, rel_tol=1e-12)
