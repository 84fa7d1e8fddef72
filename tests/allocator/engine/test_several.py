"""The search under several budgets finds every optimum, in C and in numpy, and says so only when it is one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest

from allocator import engine
from allocator.checks.tree import check_tree
from allocator.engine import several, several_search, several_stairs
from allocator.engine.several import Several, solve_several
from allocator.errors import UnsupportedError
from allocator.evaluation import scale_of
from allocator.linear import Linear, linearise
from allocator.problem import Problem
from allocator.statement import Budget
from allocator.testing.claims import tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, random_rows
from allocator.testing.reference import Reference

PARTS = LINEAR | {"loss_budgets"}


@pytest.fixture(params=["c", "numpy"])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ALLOCATOR_ENGINE", "" if request.param == "c" else "numpy")
    if request.param == "c" and engine.native() is None:
        pytest.skip("the C extension is not built here")
    return str(request.param)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small problems go through all the stages that large ones do."""
    monkeypatch.setattr(several, "FEW", 1)
    monkeypatch.setattr(several, "FIRST", 2)
    monkeypatch.setattr(several, "PLAIN", 6)
    monkeypatch.setattr(several_stairs, "GAIN", -1.0)
    monkeypatch.setattr(several_search, "TABLES", ((3, 16), (40, 256)))


def solve(linear: Linear, **options: Any) -> Several:
    return solve_several(linear, tolerance=1e-12 * scale_of(linear.problem), **options)


def check(linear: Linear, found: Several, total: float) -> bool:
    assert found.tree is not None
    return check_tree(linear, found.tree, total, 1e-12 * scale_of(linear.problem)).proved


def references(first: int, count: int) -> Iterator[tuple[int, Linear, Reference]]:
    for seed in range(first, first + count):
        rows = random_rows(seed, PARTS, most_groups=7, most_allocations=200)
        linear = linearise(Problem.from_rows(rows))
        if sum(r.hi is not None or r.lo is not None for r in linear.rows) <= several.MOST_ROWS:
            yield seed, linear, Reference(rows)


@pytest.mark.usefixtures("compiled", "eager")
def test_random_problems_against_all_their_allocations() -> None:
    feasible = infeasible = checked = 0
    for seed, linear, reference in references(0, times(400)):
        found = solve(linear)
        if reference.best is None:
            assert found.infeasible, seed
            assert found.rows is None, seed
            infeasible += 1
            checked += check(linear, found, math.inf)
            continue
        assert found.rows is not None, seed
        assert found.proved, seed
        assert not found.infeasible, seed
        places = tuple((found.rows - linear.problem.indptr[:-1]).tolist())
        assert not reference.violations(places), seed
        slip = tolerance(reference)
        assert reference.objective(places) <= reference.best.objective + slip, seed
        assert linear.objective(found.bound) <= reference.best.objective + slip, seed
        for price, budget in zip(found.prices, linear.problem.budgets, strict=True):
            assert price == 0 or (budget.max if price > 0 else budget.min) is not None, seed
        feasible += 1
        checked += check(linear, found, found.total)
    assert feasible > 200
    assert infeasible > 50
    assert checked >= 0.98 * (feasible + infeasible)


def drawn(seed: int) -> Problem:
    """Up to nine groups and four rows that one allocation keeps exactly, or misses by one."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, int(rng.integers(4, 9)))
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    n = int(indptr[-1])
    values = [rng.random(n), rng.integers(-5, 6, n) * 1.0, rng.lognormal(0, 3, n), rng.standard_normal(n)]
    value = values[rng.integers(4)]
    taken = np.array([rng.integers(s, e) for s, e in pairwise(indptr)])
    costs: dict[str, Any] = {}
    budgets = []
    for name in "abcd"[: rng.integers(1, 5)]:
        columns = [
            rng.integers(0, 1000, n),
            rng.integers(0, 4, n) * 64,
            rng.integers(-50, 50, n),
            rng.random(n) * 100,
            np.zeros(n, np.int64),
            rng.integers(0, 9, n) + 2**57,
        ]
        column = columns[rng.integers(len(columns))]
        costs[name] = column
        use = column[taken].sum().item()
        sides = [{"max": use}, {"min": use}, {"min": use - 20, "max": use}, {"min": use, "max": use}, {"max": use - 1}]
        limits = sides[rng.choice(5, p=[0.45, 0.2, 0.15, 0.1, 0.1])]
        budgets.append(Budget(resource=name, **limits))
    return Problem.from_arrays(value, costs, indptr=indptr).replace(budgets=tuple(budgets))


def best_of_all(problem: Problem) -> float | None:
    """Least Σ value of all allocations that keep the rows, by listing them; limits as the problem enforces them."""
    linear = linearise(problem)
    total = np.zeros(1)
    uses = [np.zeros(1, row.column.dtype) for row in linear.rows]
    for s, e in zip(problem.indptr[:-1], problem.indptr[1:], strict=True):
        total = (total[:, None] + linear.value[s:e]).ravel()
        uses = [(u[:, None] + row.column[s:e]).ravel() for u, row in zip(uses, linear.rows, strict=True)]
    kept = np.ones(len(total), bool)
    for row, use in zip(linear.rows, uses, strict=True):
        kept &= True if row.hi is None else use <= row.hi
        kept &= True if row.lo is None else use >= row.lo
    return float(total[kept].min()) if kept.any() else None


@pytest.mark.usefixtures("compiled", "eager")
def test_tight_and_two_sided_rows_against_a_listing() -> None:
    solved = 0
    for seed in range(times(250)):
        problem = drawn(seed)
        best, linear = best_of_all(problem), linearise(problem)
        found = solve(linear)
        slip = 2e-12 * scale_of(problem)
        if best is None:
            assert found.infeasible, seed
            assert check(linear, found, math.inf), seed
            continue
        assert found.proved, seed
        assert found.total == pytest.approx(best, abs=slip), seed
        assert found.bound <= best + slip, seed
        assert check(linear, found, found.total), seed
        assert not check(linear, found, best + 1e-6 * abs(best) + 4 * slip), seed
        solved += 1
    assert solved > 150


def layers(rng: np.random.Generator, groups: int, rows: int) -> Problem:
    """Like a network's layers under bytes, time and energy, all limits tight."""
    size = rng.choice([1, 4, 4, 14], groups) * 1024
    bits = np.array([2, 3, 4, 6, 8])
    value = rng.lognormal(0, 1, (groups, 1)) * size[:, None] * 4.0**-bits * rng.lognormal(0, 0.2, (groups, 5))
    cost = {"bytes": size[:, None] * bits // 8}
    for r in range(rows - 1):
        noise = rng.lognormal(0, 0.2, (groups, 5))
        cost[f"row{r}"] = np.rint(cost["bytes"] * noise + 99 * r).astype(np.int64)
    budgets = {}
    for name, column in cost.items():
        low, high = int(column.min(axis=1).sum()), int(column.max(axis=1).sum())
        budgets[name] = low + (high - low) // 4
    return Problem.from_arrays(value, cost, budgets=budgets)


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_both_engines_agree_where_listing_is_out_of_reach(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine.native() is None:
        pytest.skip("the C extension is not built here")
    for seed in range(times(2)):
        problem = layers(np.random.default_rng(seed), 40, rows)
        linear = linearise(problem)
        fast = solve(linear)
        monkeypatch.setenv("ALLOCATOR_ENGINE", "numpy")
        slow = solve(linear)
        monkeypatch.delenv("ALLOCATOR_ENGINE")
        assert fast.proved
        assert slow.proved
        assert fast.total == pytest.approx(slow.total, abs=1e-12 * scale_of(problem))
        assert check(linear, fast, fast.total)


@pytest.mark.usefixtures("compiled")
def test_a_limit_leaves_an_allocation_and_a_bound() -> None:
    problem = layers(np.random.default_rng(3), 120, 3)
    linear = linearise(problem)
    best = solve(linear, most_nodes=2_000_000)
    for options in ({"most_nodes": 50}, {"seconds": 0.0}):
        seen: list[Any] = []
        found = solve(linear, report=seen.append, **options)
        assert found.limit == ("nodes" if "most_nodes" in options else "time")
        assert not found.proved
        assert found.tree is None
        assert found.rows is not None
        assert problem.evaluate(found.rows - problem.indptr[:-1]).feasible
        assert found.bound <= best.total <= found.total
        assert (seen[-1] == found.rows - problem.indptr[:-1]).all()


@pytest.mark.usefixtures("compiled")
def test_a_start_is_kept_when_it_is_the_best_and_ignored_when_it_is_infeasible() -> None:
    problem = layers(np.random.default_rng(4), 30, 2)
    linear = linearise(problem)
    best = solve(linear)
    assert best.rows is not None
    again = solve(linear, start=best.rows - problem.indptr[:-1])
    assert again.proved
    assert again.rows is not None
    assert (again.rows == best.rows).all()
    dearest = np.full(problem.group_count, 4)
    assert not problem.evaluate(dearest).feasible
    assert solve(linear, start=dearest).total == best.total


def test_more_than_four_rows_are_refused_by_number() -> None:
    cost = {f"r{i}": np.array([[0, 1], [1, 0]]) for i in range(5)}
    problem = Problem.from_arrays(np.zeros((2, 2)), cost, budgets=dict.fromkeys(cost, 1))
    with pytest.raises(UnsupportedError, match="5 budget rows"):
        solve(linearise(problem))


def test_the_same_run_gives_the_same_answer() -> None:
    problem = layers(np.random.default_rng(5), 60, 3)
    first, second = (solve(linearise(problem)) for _ in range(2))
    assert first.rows is not None
    assert second.rows is not None
    assert (first.rows == second.rows).all()
    assert (first.total, first.bound, first.prices, first.tree, first.nodes) == (
        second.total,
        second.bound,
        second.prices,
        second.tree,
        second.nodes,
    )


def test_couplings_are_kept_because_candidates_are_evaluated() -> None:
    rng = Random(0)
    tried = 0
    for seed in range(times(60)):
        rows = random_rows(rng, PARTS | {"same_choice", "cardinality"}, most_allocations=60)
        linear, reference = linearise(Problem.from_rows(rows)), Reference(rows)
        if not linear.problem.couplings or reference.best is None or len(linear.rows) > several.MOST_ROWS:
            continue
        found = solve(linear)
        assert found.rows is not None, seed
        places = tuple((found.rows - linear.problem.indptr[:-1]).tolist())
        assert not reference.violations(places), seed
        assert reference.objective(places) <= reference.best.objective + tolerance(reference), seed
        tried += 1
    assert tried > 5
