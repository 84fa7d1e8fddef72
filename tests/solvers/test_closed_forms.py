"""The closed forms against their textbook formulas, worked out a dumb way, and against the reference."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest

import allocator
from allocator import registry
from allocator.errors import UnsupportedError, UsageError
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.testing.claims import false_claims
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, random_rows
from allocator.testing.reference import Reference
from solvers._axis import Axis
from solvers._level import shares
from solvers.water_filling import fitted

NAMES = ("water_filling", "entropic", "inverse_rank", "desired_error", "threshold")
ONE = LINEAR - {"several_budgets", "lower_budgets", "scoped_budgets", "score_budgets", "resource_objective"}
SEVERAL = LINEAR - {"resource_objective"} | {"pnorm_loss", "max_loss", "loss_budgets"}


def with_stats(rows: dict[str, Any], seed: int) -> dict[str, Any]:
    rng = Random(seed)
    for group in rows["groups"]:
        group["stats"] = {"importance": rng.random(), "effective_rank": 1 + 50 * rng.random(), "rank_cost": 2.5}
    return rows


def curve(a: float, b: float, costs: list[int]) -> list[float]:
    return [a * math.exp(-b * c) for c in costs]


def from_groups(groups: list[tuple[list[Any], list[float]]], budget: float, **stats: Any) -> Problem:
    """Groups as (costs, losses), and their stats."""
    costs = np.array([c for cs, _ in groups for c in cs])
    losses = np.array([v for _, vs in groups for v in vs], np.float64)
    indptr = np.cumsum([0, *(len(cs) for cs, _ in groups)])
    numbers = {name: np.array(values, np.float64) for name, values in stats.items()}
    return Problem.from_arrays(losses, costs, indptr=indptr, budgets={"cost": budget}, stats=numbers)


def taken_costs(problem: Problem, solver: str, **options: Any) -> list[float]:
    solution = allocator.solve(problem, solver=solver, **options)
    assert solution.allocation is not None
    taken: list[float] = problem.costs["cost"][solution.allocation.rows()].tolist()
    return taken


# -- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [ONE, SEVERAL], ids=["one budget", "several"])
def test_truthful_on_random_problems(parts: frozenset[str]) -> None:
    seen: Counter[tuple[str, str]] = Counter()
    refusals: set[str] = set()
    for seed in range(times(200)):
        rows = with_stats(random_rows(seed, parts), seed)
        reference, problem = Reference(rows), Problem.from_rows(rows)
        for name in NAMES:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    solution = allocator.solve(problem, solver=name, polish=seed % 3 == 0)
                except UnsupportedError as error:
                    refusals.add(re.sub(r"'.*?'", "", str(error))[:21])
                    continue
            assert not false_claims(reference, solution), (seed, name)
            found = solution.allocation is not None
            seen[name, "found" if found else "missed" if reference.best is not None else "infeasible"] += 1
            assert found or parts is SEVERAL or reference.best is None, (seed, name)
    assert refusals <= {"solver  does not take"}, refusals
    for name in NAMES:
        assert seen[name, "found"] > 75, seen
        assert seen[name, "infeasible"] > 10, seen
        assert seen[name, "missed"] <= 0.05 * seen[name, "found"], seen  # the repair of several rows is a heuristic


def grid(seed: int, groups: int = 12, budget: float = 0.4) -> Problem:
    rng = np.random.default_rng(seed)
    costs = np.sort(rng.integers(1, 200, (groups, 7)), axis=1)
    losses = -np.sort(-(rng.random((groups, 7)) ** 3), axis=1)
    low, high = costs[:, 0].sum(), costs[:, -1].sum()
    stats = {"importance": rng.random(groups), "effective_rank": 1 + rng.random(groups), "rank_cost": np.ones(groups)}
    return Problem.from_arrays(losses, costs, budgets={"cost": int(low + budget * (high - low))}, stats=stats)


@pytest.mark.parametrize("name", NAMES)
def test_deterministic_reported_and_polished(name: str) -> None:
    for seed in range(5):
        problem = grid(seed)
        seen: list[float] = []

        def note(choice: Any, seen: list[float] = seen, problem: Problem = problem) -> None:
            outcome = problem.evaluate(choice)
            assert outcome.feasible
            seen.append(outcome.objective)

        plain = allocator.solve(problem, solver=name)
        polished = allocator.solve(problem, solver=name, polish=True, report=note)
        assert dict(plain.choices) == dict(allocator.solve(problem, solver=name, seed=9).choices)
        assert seen[0] == plain.objective
        assert seen[-1] == polished.objective
        assert all(b < a for a, b in pairwise(seen))
        assert plain.claim is None
        assert plain.claimed_bound is None


@pytest.mark.parametrize("name", NAMES)
def test_no_allocation_where_none_is_feasible(name: str) -> None:
    problem = grid(0)
    short = problem.with_budget("cost", max=int(problem.costs["cost"].reshape(12, 7).min(axis=1).sum()) - 1)
    solution = allocator.solve(short, solver=name)
    assert solution.allocation is None
    assert solution.status in ("infeasible", "unknown")


@pytest.mark.parametrize("name", NAMES)
def test_declared(name: str) -> None:
    kind = registry.find("solvers", name).load()
    assert kind.name == name
    assert kind.exactness is Exactness.HEURISTIC
    assert repr(kind()) == repr(eval(repr(kind()), {kind.__name__: kind}))
    with pytest.raises(UnsupportedError, match=f"'{name}' does not take resource_objective"):
        allocator.solve(grid(0).replace(minimize={"cost": 1.0}, budgets=()), solver=name)


@pytest.mark.parametrize("name", NAMES)
def test_integers_beyond_floats_decide(name: str) -> None:
    """Three costs of 2^53 + 3 add up to the limit exactly, and to more than it in floats."""
    size = 2**53 + 3
    numbers = {"importance": np.ones(3), "effective_rank": np.ones(3), "rank_cost": np.ones(3)}
    tight = Problem.from_arrays(np.ones((3, 1)), np.full((3, 1), size), budgets={"cost": 3 * size}, stats=numbers)
    assert sum([float(size)] * 3) > float(3 * size)
    assert allocator.solve(tight, solver=name).allocation is not None
    assert allocator.solve(tight.with_budget("cost", max=3 * size - 1), solver=name).allocation is None


def test_dominated_choices_and_no_budget() -> None:
    """Without a budget all take the best loss, and never a dearer choice that is no better."""
    problem = from_groups([([1, 5, 9], [3.0, 1.0, 1.0]), ([2, 2, 4], [5.0, 4.0, 6.0])], 100, **STATS_OF_TWO)
    for free in (problem, problem.replace(budgets=())):
        for name in ("water_filling", "entropic", "inverse_rank"):
            assert taken_costs(free, name) == [5, 2]


STATS_OF_TWO = {"importance": [1.0, 2.0], "effective_rank": [3.0, 4.0], "rank_cost": [1.0, 1.0]}


# -- the level --------------------------------------------------------------------------------------------------------


def test_shares_by_bisection() -> None:
    rng = np.random.default_rng(0)
    for _ in range(times(200)):
        n = int(rng.integers(1, 9))
        base, rate = rng.normal(size=n), rng.random(n) * rng.integers(0, 2, n) * 10.0 ** rng.integers(-3, 4)
        lo = rng.normal(size=n)
        hi = lo + rng.random(n) * rng.integers(0, 3, n)
        least, most = np.clip(base, lo, hi), np.clip(base, lo, hi)
        least, most = np.where(rate > 0, lo, least), np.where(rate > 0, hi, most)
        total = float(least.sum() + rng.uniform(-0.2, 1.2) * (most.sum() - least.sum()))
        low, high = -1e9, 1e9
        for _ in range(200):
            t = (low + high) / 2
            low, high = (t, high) if np.clip(base + rate * t, lo, hi).sum() < total else (low, t)
        expected = np.clip(base + rate * high, lo, hi)
        assert shares(base, rate, lo, hi, total) == pytest.approx(expected, abs=1e-6)


# -- water filling ----------------------------------------------------------------------------------------------------


def test_water_filling_is_the_optimum_of_exact_curves() -> None:
    """Curves built so that the continuous optimum lies on choices: all have slope ν there."""
    rng = np.random.default_rng(1)
    for _ in range(times(50)):
        wanted = rng.integers(1, 20, 6).tolist()
        decay, slope = rng.uniform(0.05, 0.5, 6), rng.uniform(1e-6, 1.0)
        scale = slope * np.exp(decay * np.array(wanted)) / decay
        costs = list(range(21))
        groups = [(costs, curve(float(a), float(b), costs)) for a, b in zip(scale, decay, strict=True)]
        problem = from_groups(groups, sum(wanted))
        assert taken_costs(problem, "water_filling") == wanted
        fit_log_a, fit_b = fitted(Axis.of(linearise(problem)) or pytest.fail("no axis"))
        assert fit_b == pytest.approx(decay, rel=1e-9)
        assert fit_log_a == pytest.approx(np.log(scale), rel=1e-9)
        exact = allocator.solve(problem, solver="exact")
        assert exact.objective == pytest.approx(allocator.solve(problem, solver="water_filling").objective)


def test_water_filling_rounds_the_clipped_optimum() -> None:
    """The slope by bisection, each group's cost clipped, the nearest choice; where that fits nothing is repaired."""
    rng, plain = np.random.default_rng(2), 0
    for _ in range(times(60)):
        groups, curves = [], []
        for _ in range(5):
            costs = sorted(rng.choice(60, 5, replace=False).tolist())
            a, b = float(rng.lognormal(0, 2)), float(rng.uniform(0.02, 0.6))
            curves.append((a, b, costs))
            groups.append((costs, curve(a, b, costs)))
        budget = sum(c[0] for _, _, c in curves) + int(rng.integers(1, 120))
        low, high = 1e-30, 1e6
        for _ in range(300):
            slope = math.sqrt(low * high)
            target = [min(max(math.log(a * b / slope) / b, c[0]), c[-1]) for a, b, c in curves]
            low, high = (slope, high) if sum(target) > budget else (low, slope)
        rounded = [min(c, key=lambda x, t=t: abs(x - t)) for (_, _, c), t in zip(curves, target, strict=True)]
        if sum(rounded) <= budget:
            assert taken_costs(from_groups(groups, budget), "water_filling") == rounded
            plain += 1
    assert plain > 20


def test_curves_are_fitted_by_weighted_regression() -> None:
    """numpy's polynomial fit of ln loss with weights √loss on the squares; dominated choices are left out."""
    rng = np.random.default_rng(9)
    for _ in range(times(20)):
        costs = np.sort(rng.choice(100, 6, replace=False))
        losses = -np.sort(-rng.lognormal(0, 2, 6))
        line = np.polyfit(costs, np.log(losses), 1, w=losses**0.25)
        worse = ([*costs.tolist(), int(costs[3]) + 1], [*losses.tolist(), float(losses[3]) * 1.5])
        log_a, b = fitted(Axis.of(linearise(from_groups([worse], 1e6))) or pytest.fail("no axis"))
        assert (float(log_a[0]), float(-b[0])) == pytest.approx((line[1], line[0]), rel=1e-6)


def test_water_filling_reads_the_stats() -> None:
    """The choices say that the first group matters, the stats that the second does."""
    costs = list(range(10))
    groups = [(costs, curve(100.0, 0.5, costs)), (costs, curve(1.0, 0.5, costs))]
    stats = {"rd_scale": [1.0, 100.0], "rd_decay": [0.5, 0.5]}
    fit, read = (taken_costs(from_groups(groups, 9, **p), "water_filling") for p in ({}, stats))
    assert fit == read[::-1]
    assert fit[0] > fit[1]


def test_water_filling_of_curves_that_end_at_nothing() -> None:
    """One loss above 0 and then 0, losses below 0, all of them 0: no warning, the larger loss first."""
    groups = [([1, 4], [2.0, 0.0]), ([1, 4], [3.0, 0.0]), ([1, 4], [0.0, 0.0]), ([1, 4], [-5.0, -6.0])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert taken_costs(from_groups(groups, 10), "water_filling") == [4, 4, 1, 1]
        for budget in range(4, 17):
            first, second, third, _ = taken_costs(from_groups(groups, budget), "water_filling")
            assert first <= second
            assert third == 1


# -- entropic and inverse rank ----------------------------------------------------------------------------------------


def test_entropic_is_the_softmax() -> None:
    """Equal groups of cost 1000 in steps of 1: φ = L·mean·softmax(−s/ε), no cap in reach."""
    rng = np.random.default_rng(3)
    for _ in range(times(10)):
        importance = rng.random(4)
        costs = list(range(1001))
        groups = [(costs, [1.0 - c / 1000 for c in costs])] * 4
        softmax = np.exp(-importance / 0.7) / np.exp(-importance / 0.7).sum()
        sparsity = 4 * 0.3 * softmax
        problem = from_groups(groups, 4 * 700, importance=importance)
        expected = 1000 * (1 - sparsity)
        assert taken_costs(problem, "entropic", temperature=0.7, most=1.0) == pytest.approx(expected, abs=2)


def test_entropic_shares_what_capped_groups_cannot_lose() -> None:
    """Proportional redistribution, round by round."""
    rng = np.random.default_rng(4)
    for _ in range(times(10)):
        importance, sizes = rng.random(5), rng.integers(300, 900, 5)
        weight, removed = np.exp(-importance / 0.1) * sizes, np.zeros(5)
        left, open_ = 0.5 * sizes.sum(), np.ones(5, bool)
        while left > 1e-9:
            step = np.where(open_, left * weight / weight[open_].sum(), 0.0)
            removed += step
            over = np.maximum(removed - 0.8 * sizes, 0.0)
            removed -= over
            left, open_ = over.sum(), open_ & (over == 0)
        groups = [(list(range(size + 1)), [1 - c / size for c in range(size + 1)]) for size in sizes.tolist()]
        problem = from_groups(groups, int(sizes.sum() // 2) + 1, importance=importance)
        solution = taken_costs(problem, "entropic", temperature=0.1)
        assert solution == pytest.approx(sizes - removed, abs=3)


def test_inverse_rank_is_the_formula() -> None:
    """k_g = T / Σ √(R_j ω_j) · √(R_g/ω_g), and no split of the same cost has less Σ R/k."""
    rng = np.random.default_rng(5)
    for _ in range(times(20)):
        rank, one = rng.uniform(5, 60, 4), rng.integers(1, 9, 4).astype(float)
        total = 4000
        expected = total / np.sqrt(rank * one).sum() * np.sqrt(rank / one)
        groups = [([int(w) * k for k in range(1, 4001)], [1 / k for k in range(1, 4001)]) for w in one]
        problem = from_groups(groups, total, effective_rank=rank, rank_cost=one)
        taken = np.array(taken_costs(problem, "inverse_rank")) / one
        assert taken == pytest.approx(expected, abs=10)  # ranks are rounded, then repaired
        best = float((rank / expected).sum())
        for _ in range(20):
            other = expected * rng.uniform(0.5, 2, 4)
            assert float((rank / (other * total / (other @ one))).sum()) >= best * (1 - 1e-12)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_missing_stats_are_refused_by_name() -> None:
    bare = grid(0).replace(stats={})
    for name, stat in (("entropic", "importance"), ("inverse_rank", "effective_rank")):
        with pytest.raises(UnsupportedError, match=rf"'{name}' needs the stat '{stat}'.*give each group \"stats\""):
            allocator.solve(bare, solver=name)
    rows = with_stats(random_rows(1, frozenset(), most_groups=4), 1)
    for name, stat in (("entropic", "importance"), ("inverse_rank", "rank_cost")):
        short = with_stats(random_rows(1, frozenset(), most_groups=4), 1)
        del short["groups"][-1]["stats"][stat]
        with pytest.raises(UnsupportedError, match=rf"'{stat}'.*'{rows['groups'][-1]['name']}'\) lacks it"):
            allocator.solve(short, solver=name)
    for stats, text in (
        ({"rd_scale": np.ones(12)}, "needs the stat 'rd_decay'"),
        ({"rd_scale": np.ones(12), "rd_decay": np.zeros(12)}, "'rd_decay'.*group number 0 .* not above 0"),
        ({"rd_scale": -np.ones(12), "rd_decay": np.ones(12)}, "'rd_scale'.* not above"),
    ):
        with pytest.raises(UnsupportedError, match=text):
            allocator.solve(bare.replace(stats=stats), solver="water_filling")
    with pytest.raises(UnsupportedError, match="'norm'"):
        allocator.solve(bare.replace(stats={"norm": np.zeros(12)}), solver="desired_error")


def test_stats_of_merged_groups_are_gone_and_said_to_be() -> None:
    choices = [{"name": n, "cost": {"bytes": c}, "score": {"s": v}} for n, c, v in (("a", 1, 2.0), ("b", 2, 1.0))]
    rows: dict[str, Any] = {"format": "allocation-problem", "version": 1}
    rows["groups"] = [{"name": n, "choices": choices, "stats": {"importance": 1.0}} for n in ("q", "k")]
    rows["budgets"] = [{"resource": "bytes", "max": 4}]
    assert allocator.solve(rows, solver="entropic").choices == {"q": "b", "k": "b"}
    rows["couplings"] = [{"kind": "same_choice", "groups": ["q", "k"]}]
    with pytest.raises(UnsupportedError, match="same_choice merges lose theirs"):
        allocator.solve(rows, solver="entropic")


def test_options_that_cannot_be_meant() -> None:
    for name, options, text in (
        ("entropic", {"temperature": 0.0}, "temperature=0.0: give"),
        ("entropic", {"most": 1.5}, "most=1.5: give"),
        ("threshold", {"by": "rank"}, "by='rank': give step or level"),
        ("threshold", {"score": "kl"}, "threshold: score='kl' is no score of this problem; it has score"),
        ("desired_error", {"score": "kl"}, "desired_error: score='kl' is no score"),
    ):
        with pytest.raises(UsageError, match=text):
            allocator.solve(grid(0), solver=name, **options)


def test_a_clock_that_has_run_out_still_leaves_an_allocation() -> None:
    limits = Limits(time=1e-9)
    for name in NAMES:
        answer = registry.find("solvers", name).load()(polish=True).solve(grid(0), limits)
        assert answer.limit == "time"
        assert grid(0).evaluate(answer.choice).feasible
