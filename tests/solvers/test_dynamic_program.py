"""The table over the budget against a dumb one, with rounding up and down, and at the ends of the range."""

from __future__ import annotations

import numpy as np
import pytest

import solvers._table as table
from allocator.errors import UnsupportedError
from allocator.linear import linearise
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.solution import Answer
from allocator.statement import Budget, IntArray
from allocator.testing.depth import times
from solvers._integers import NEVER, in_units
from solvers.dynamic_program import DynamicProgram


def knapsack(seed: int, groups: int = 20, choices: int = 4, step: int = 1, tightness: float = 0.4) -> Problem:
    rng = np.random.default_rng(seed)
    costs = step * rng.integers(0, 50, (groups, choices)) + rng.integers(0, 5, (groups, 1))
    least, most = costs.min(axis=1).sum(), costs.max(axis=1).sum()
    budget = int(least + tightness * (most - least))
    return Problem.from_arrays(rng.normal(size=(groups, choices)), costs, budgets={"cost": budget})


def dumb(values: np.ndarray, costs: np.ndarray, budget: int) -> float:
    """The least Σ value for each use reached, in a dictionary."""
    best = {0: 0.0}
    for value, cost in zip(values.tolist(), costs.tolist(), strict=True):
        after: dict[int, float] = {}
        for used, total in best.items():
            for v, c in zip(value, cost, strict=True):
                if used + c <= budget:
                    after[used + c] = min(after.get(used + c, np.inf), total + v)
        best = after
    return min(best.values())


def ask(problem: Problem, cells: int = 100_000) -> Answer:
    return DynamicProgram(cells=cells).solve(problem, Limits())


def worth(problem: Problem, answer: Answer) -> float:
    assert answer.choice is not None
    outcome = problem.evaluate(answer.choice)
    assert outcome.violations == ()
    return outcome.objective


def optimum(problem: Problem) -> float:
    shape = (problem.group_count, -1)
    return dumb(problem.unary.reshape(shape), problem.costs["cost"].reshape(shape), int(problem.budgets[0].max or 0))


@pytest.mark.parametrize("memory", [2**24, 1], ids=["all rows kept", "rows worked out again"])
def test_the_exact_table_finds_the_optimum(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MEMORY", memory)
    for seed in range(times(15)):
        problem = knapsack(seed, step=10 ** (seed % 4), tightness=0.1 * (seed % 10))
        answer = ask(problem)
        assert answer.claim == "optimal"
        assert answer.statistics["cells"] < 3000  # whatever the step: it is divided out
        assert worth(problem, answer) == pytest.approx(optimum(problem), abs=1e-12)
        assert solve(problem, DynamicProgram()).status == "optimal"


def test_a_rounded_table_is_feasible_and_its_bound_holds() -> None:
    """Many coarse tables: the bound rises and the allocation gets better with the number of cells, in the mean."""
    gaps = {10: 0.0, 50: 0.0, 400: 0.0}
    for seed in range(times(25)):
        problem = knapsack(seed, groups=12)
        best = optimum(problem)
        for cells in gaps:
            answer = ask(problem, cells)
            if answer.claim == "optimal":
                assert not answer.statistics["rounded"]
                continue
            assert answer.claim is None
            assert answer.claimed_bound is not None
            assert answer.claimed_bound <= best + 1e-12, (seed, cells)
            assert worth(problem, answer) >= best - 1e-12
            gaps[cells] += worth(problem, answer) - answer.claimed_bound
    assert gaps[10] >= gaps[50] >= gaps[400]


def test_rounding_up_keeps_the_row_and_what_keeps_the_row_is_within_the_rounded_down() -> None:
    """Directly on the units, for integers and floats, a max and a min, with random allocations near the limit."""
    rng = np.random.default_rng(0)
    inside = kept = 0
    for seed in range(times(150)):
        groups, choices = int(rng.integers(1, 8)), int(rng.integers(1, 5))
        costs = rng.integers(-50, 50, (groups, choices)) * (1 if seed % 2 else np.float64(0.37))
        sample = rng.integers(0, choices, (40, groups))
        use = costs[np.arange(groups), sample].sum(axis=1)
        limit = float(rng.choice(use))
        side = {"max": limit} if seed % 3 else {"min": limit}
        problem = Problem.from_arrays(rng.random((groups, choices)), costs)
        problem = problem.replace(budgets=(Budget(resource="cost", **side),))
        found = in_units(linearise(problem), int(rng.integers(2, 60)))
        assert found is not None
        up, down = found
        for places in sample:
            rows = problem.indptr[:-1] + places
            feasible = problem.evaluate(places).feasible
            if within(up.use[rows], up.budget):
                assert feasible, seed
                inside += 1
            if feasible:
                assert within(down.use[rows], down.budget), seed
                kept += 1
    assert inside > 100
    assert kept > inside


def within(use: IntArray, budget: int) -> bool:
    return bool((use < NEVER).all()) and int(use.sum()) <= budget


def test_floats_integers_beyond_2_to_53_and_no_row_at_all() -> None:
    rng = np.random.default_rng(1)
    for kind in ("float", "huge", "free", "min"):
        for _ in range(times(10)):
            costs = rng.random((6, 3)) * 10
            if kind == "huge":
                costs = rng.integers(2**55, 2**57, (6, 3))
            problem = Problem.from_arrays(rng.normal(size=(6, 3)), costs)
            if kind != "free":
                limit = costs[np.arange(6), rng.integers(0, 3, 6)].sum().item()
                side = {"min": limit} if kind == "min" else {"max": limit}
                problem = problem.replace(budgets=(Budget(resource="cost", **side),))
            best = solve(problem, "brute_force").objective
            answer = ask(problem)
            assert answer.claimed_bound is not None
            assert best is not None
            assert answer.claimed_bound <= best + 1e-12
            assert worth(problem, answer) <= best + 0.2
            assert (answer.claim == "optimal") == (kind == "free")


def test_budgets_at_the_ends() -> None:
    problem = knapsack(3)
    least = int(problem.costs["cost"].reshape(20, 4).min(axis=1).sum())
    tight = ask(problem.with_budget("cost", max=least))
    assert tight.claim == "optimal"
    assert ask(problem.with_budget("cost", max=least - 1)).claim == "infeasible"
    loose = ask(problem.with_budget("cost", max=10**9))
    assert worth(problem.replace(budgets=()), loose) == pytest.approx(problem.unary.reshape(20, 4).min(axis=1).sum())


def test_more_than_one_row_is_refused_and_the_clock_is_kept() -> None:
    problem = knapsack(4)
    with pytest.raises(UnsupportedError, match=r"one budget row, not 2.*use exact"):
        ask(problem.replace(budgets=(*problem.budgets, Budget(score="score", max=9.0))))
    answer = DynamicProgram().solve(problem, Limits(time=1e-9))
    assert (answer.limit, answer.claim) == ("time", None)
    worth(problem, answer)
