"""The four backends that run in-process: truthful on every random problem, and as good as they promise."""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import allocator
from allocator import features
from allocator.bounds import find_prices
from allocator.checks.lagrangian import lower_bound
from allocator.errors import UnsupportedError, UsageError
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.testing.claims import false_claims, tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, PARTS, random_rows
from allocator.testing.reference import Reference

NAMES = ("brute_force", "uniform", "greedy", "lagrangian")


@pytest.mark.parametrize("parts", [PARTS, LINEAR], ids=["everything", "linear"])
def test_five_hundred_random_problems(parts: frozenset[str]) -> None:
    seen: Counter[tuple[str, str]] = Counter()
    for seed in range(times(500 if parts is PARTS else 250)):
        rows = random_rows(seed, parts)
        reference, problem = Reference(rows), Problem.from_rows(rows)
        for name in NAMES:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    solution = allocator.solve(problem, solver=name)
                except UnsupportedError:
                    seen[name, "unsupported"] += 1
                    continue
            assert not false_claims(reference, solution), (seed, name, solution)
            seen[name, solution.status] += 1
            if name != "brute_force":
                continue
            if reference.best is None:
                assert solution.status == "infeasible", seed
            else:
                assert solution.status == "optimal", seed
                assert solution.objective == pytest.approx(
                    reference.best.objective, rel=0, abs=tolerance(reference) + 1e-300
                ), seed
    assert not seen["brute_force", "unsupported"]
    assert not seen["uniform", "unsupported"]
    for name in NAMES:
        assert seen[name, "optimal"] > 30, seen


def test_what_is_unsupported_names_the_feature_and_who_takes_it(example: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match=r"'greedy' does not take basis \(.*\).* use .*brute_force"):
        allocator.solve(example, solver="greedy")


def knapsack(seed: int, groups: int = 40, choices: int = 6, tightness: float = 0.3, several: int = 1) -> Problem:
    rng = np.random.default_rng(seed)
    costs = {f"r{i}": np.sort(rng.integers(1, 1000, (groups, choices)), axis=1) for i in range(several)}
    scores = -(np.sort(-rng.random((groups, choices)), axis=1) ** 2)
    low = {r: int(c.min(axis=1).sum()) for r, c in costs.items()}
    high = {r: int(c.max(axis=1).sum()) for r, c in costs.items()}
    budgets = {r: int(low[r] + tightness * (high[r] - low[r])) for r in costs}
    return Problem.from_arrays(scores, costs, budgets=budgets)


@pytest.mark.parametrize("tightness", [0.05, 0.3, 0.9])
def test_greedy_and_lagrangian_are_near_the_bound_on_knapsacks(tightness: float) -> None:
    for seed in range(5):
        problem = knapsack(seed, tightness=tightness)
        for name, gap in (("greedy", 0.1), ("lagrangian", 0.02)):
            solution = allocator.solve(problem, solver=name)
            assert solution.allocation is not None
            assert solution.gap is not None
            assert solution.gap < gap


def test_lagrangian_handles_several_budgets() -> None:
    for seed in range(4):
        solution = allocator.solve(knapsack(seed, several=3), solver="lagrangian")
        assert solution.allocation is not None
        assert solution.gap is not None
        assert solution.gap < 0.1
        assert all(price is not None and price >= 0 for price in solution.multipliers)


def test_the_price_of_one_budget_gives_the_best_bound_there_is() -> None:
    """The bound is concave in the price: no other price on a fine grid may beat the one found."""
    for seed in range(6):
        linear = linearise(knapsack(seed))
        (price,) = find_prices(linear).values
        best = lower_bound(linear, (price,))
        for other in np.concatenate([np.geomspace(1e-8, 1.0, 300), price * np.linspace(0.9, 1.1, 101)]):
            assert lower_bound(linear, (float(other),)) <= best + 1e-9


def test_prices_of_several_budgets_come_close_to_the_best_bound() -> None:
    for seed in range(3):
        linear = linearise(knapsack(seed, groups=20, several=2))
        best = lower_bound(linear, find_prices(linear).values)
        grid = np.geomspace(1e-7, 1e-2, 40)
        top = max(lower_bound(linear, (float(a), float(b))) for a in [0.0, *grid] for b in [0.0, *grid])
        assert best >= top - 1e-6 * abs(top)


@pytest.mark.parametrize("exponent", [-12, -6, 0, 6, 12])
def test_the_scale_of_the_losses_changes_nothing(exponent: int) -> None:
    for several in (1, 2):
        problem = knapsack(1, several=several)
        scaled = problem.with_scores({"score": problem.scores["score"] * 2.0 ** (3 * exponent)})
        for name in ("greedy", "lagrangian")[several - 1 :]:
            plain = allocator.solve(problem, solver=name)
            again = allocator.solve(scaled, solver=name)
            assert dict(plain.choices) == dict(again.choices)
            assert again.gap == pytest.approx(plain.gap, rel=1e-3, abs=1e-9)


def test_uniform_takes_the_best_label() -> None:
    rows = random_rows(3, frozenset(), most_groups=4)
    for seed in range(60):
        rows = random_rows(seed, frozenset({"labels"}))
        reference = Reference(rows)
        solution = allocator.solve(rows, solver="uniform")
        open_groups = [g for g in rows["groups"] if len(g["choices"]) > 1]
        label = {g["name"]: {c["name"]: c.get("label", c["name"]) for c in g["choices"]} for g in rows["groups"]}
        one_label = [
            reference.objective(places)
            for places in reference.feasible
            if len({label[g["name"]][reference.names(places)[g["name"]]] for g in open_groups}) <= 1
        ]
        if solution.allocation is None:
            assert not one_label
        else:
            assert solution.objective == pytest.approx(min(one_label), rel=1e-12)


def test_brute_force_refuses_what_it_could_not_finish() -> None:
    with pytest.raises(UnsupportedError, match=r"brute_force would look at 1e31 allocations, more than 5e\+07"):
        allocator.solve(knapsack(0), solver="brute_force")
    with pytest.raises(UnsupportedError, match="more than 1e"):
        allocator.solve(knapsack(0, groups=3), solver="brute_force", most=10)


def test_brute_force_splits_heads_and_tails_right() -> None:
    """More allocations than one table holds: heads are joined with tails."""
    for seed in range(3):
        problem = knapsack(seed, groups=7, choices=5)
        solution = allocator.solve(problem, solver="brute_force")
        assert solution.status == "optimal"
        assert solution.run["statistics"]["allocations"] == 5**7
        for starts in (1, 101):
            other = allocator.solve(problem, solver="lagrangian", starts=starts)
            if other.objective is not None:
                assert other.objective >= (solution.objective or 0.0) - 1e-12


def test_brute_force_finds_what_rounding_hides() -> None:
    """Costs that cancel to just below 0, but to just above it when they are added one by one."""
    rng = np.random.default_rng(0)
    hidden = 0
    for _ in range(times(400)):
        first = rng.standard_normal(3) * 1e6
        last = -float(first[::-1].sum())
        if math.fsum([*first, last]) > 0 or float(first[0] + first[1] + first[2] + last) <= 0:
            continue
        hidden += 1
        costs = np.array([[x, x + 1e9] for x in [*first, last]])
        problem = Problem.from_arrays(rng.random((4, 2)) * 1e-12, costs, budgets={"cost": 0.0})
        solution = allocator.solve(problem, solver="brute_force")
        assert solution.status == "optimal"
        assert list(solution.choices.values()) == ["c0"] * 4
    assert hidden > 10


def test_brute_force_is_exact_where_interactions_cancel_the_unaries() -> None:
    """unary = ½ e v²: the scale S is 0, so that the true optimum must be hit to the last bit."""
    rng = np.random.default_rng(1)
    for _ in range(times(40)):
        rows = random_rows(int(rng.integers(1000)), frozenset({"basis"}), most_groups=4)
        vectors = {g["name"]: {c["name"]: [float(rng.standard_normal())] for c in g["choices"]} for g in rows["groups"]}
        rows["interactions"] = [{"score": "s", "basis": {"eigenvalues": [2.0], "vectors": vectors}}]
        rows["loss"] = {"terms": {"s": 1.0}}
        for group in rows["groups"]:
            for choice in group["choices"]:
                choice["score"]["s"] = vectors[group["name"]][choice["name"]][0] ** 2
        reference = Reference(rows)
        solution = allocator.solve(rows, solver="brute_force")
        if reference.best is not None:
            assert solution.objective == pytest.approx(reference.best.objective, rel=0, abs=reference.noise)
            assert solution.status == "optimal"


def rows_of(problem: Problem) -> dict[str, Any]:
    from allocator.formats.rows import problem_to_rows

    return problem_to_rows(problem)


def test_a_time_limit_stops_each_of_them() -> None:
    started = time.monotonic()
    for name in ("brute_force", "lagrangian"):
        problem = knapsack(0, groups=12, choices=4) if name == "brute_force" else knapsack(0, groups=3000, several=3)
        solution = allocator.solve(problem, solver=name, time_limit=0.05)
        assert solution.status in ("feasible", "optimal", "unknown")
        assert solution.limit == "time" or solution.status == "optimal" or name == "lagrangian"
    assert time.monotonic() - started < 60


def test_incumbents_are_reported_ever_better() -> None:
    for name in NAMES:
        seen: list[float] = []
        problem = knapsack(2, groups=6)

        def note(choice: Any, seen: list[float] = seen, problem: Problem = problem) -> None:
            outcome = problem.evaluate(choice)
            assert outcome.feasible
            seen.append(outcome.objective)

        solution = allocator.solve(problem, solver=name, report=note)
        assert all(b <= a for a, b in pairwise(seen))
        if solution.allocation is not None:
            assert seen[-1] == pytest.approx(solution.objective, rel=1e-12)


def test_options_are_read_and_refused_by_name() -> None:
    allocator.solve(knapsack(0, groups=3), solver="lagrangian", starts="5")
    with pytest.raises(UsageError, match="has no option 'turns'; it takes starts"):
        allocator.solve(knapsack(0, groups=3), solver="lagrangian", turns=5)
    with pytest.raises(UsageError, match=r"starts='many' must be like 8"):
        allocator.solve(knapsack(0, groups=3), solver="lagrangian", starts="many")


def test_declared_features_are_known() -> None:
    from allocator import registry

    for name in NAMES:
        assert registry.find("solvers", name).load().features <= features.ALL
