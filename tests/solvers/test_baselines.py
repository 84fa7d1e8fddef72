"""The baselines that other tools use, against naive loops, brute force and the reference."""

from __future__ import annotations

import itertools
import re
import tomllib
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import allocator
from allocator import registry
from allocator.errors import UnsupportedError, UsageError
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.statement import Budget, Loss
from allocator.testing.claims import false_claims
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, random_rows
from allocator.testing.reference import Reference

NAMES = ("prefix_cut", "bottleneck_bisection", "greedy_ratio", "random")
ONE = LINEAR - {"several_budgets", "lower_budgets", "scoped_budgets", "score_budgets"}
SEVERAL = LINEAR | {"pnorm_loss", "max_loss", "max_resource", "loss_budgets", "pairs", "basis"}
ROOT = Path(__file__).parents[2]
Groups = list[tuple[list[int], list[float]]]


def from_groups(groups: Groups, budget: float, **parts: Any) -> Problem:
    """Groups as (costs, losses)."""
    costs = np.array([c for cs, _ in groups for c in cs])
    losses = np.array([v for _, vs in groups for v in vs], np.float64)
    indptr = np.cumsum([0, *(len(cs) for cs, _ in groups)])
    return Problem.from_arrays(losses, costs, indptr=indptr, budgets={"cost": budget}, **parts)


def ragged(rng: np.random.Generator, most: int = 6) -> tuple[Groups, float]:
    groups = []
    for _ in range(int(rng.integers(2, most + 1))):
        n = int(rng.integers(1, 6))
        groups.append((rng.integers(1, 30, n).tolist(), rng.integers(0, 40, n).astype(float).tolist()))
    return groups, sum(min(c) for c, _ in groups) + float(rng.integers(0, 60))


def chosen(problem: Problem, solver: str, **options: Any) -> list[int]:
    solution = allocator.solve(problem, solver=solver, **options)
    assert solution.allocation is not None
    places: list[int] = solution.allocation.choice.tolist()
    return places


# -- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [ONE, SEVERAL], ids=["one budget", "several"])
def test_truthful_on_random_problems(parts: frozenset[str]) -> None:
    seen: Counter[tuple[str, str]] = Counter()
    refusals: set[tuple[str, str]] = set()
    for seed in range(times(200)):
        rows = random_rows(seed, parts)
        reference, problem = Reference(rows), Problem.from_rows(rows)
        for name in NAMES:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    solution = allocator.solve(problem, solver=name)
                except UnsupportedError as error:
                    refusals.add((name, re.sub(r"'.*?'", "", str(error))[:21]))
                    continue
            assert not false_claims(reference, solution), (seed, name)
            found = solution.allocation is not None
            seen[name, "found" if found else "missed" if reference.best is not None else "infeasible"] += 1
            assert found or parts is SEVERAL or reference.best is None, (seed, name)
    assert {text for _, text in refusals} <= {"solver  does not take", "minimising a pnorm lo"}
    assert not [name for name, _ in refusals if name == "random"]
    for name in NAMES:
        assert seen[name, "found"] > 50, seen
        assert seen[name, "infeasible"] > 10, seen
        assert seen[name, "missed"] <= 0.05 * seen[name, "found"], seen  # the repair of several rows is a heuristic


@pytest.mark.parametrize("name", NAMES)
def test_deterministic_and_reported(name: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        groups, budget = ragged(rng)
        problem = from_groups(groups, budget)
        seen: list[float] = []

        def note(choice: Any, seen: list[float] = seen, problem: Problem = problem) -> None:
            assert problem.evaluate(choice).feasible
            seen.append(problem.evaluate(choice).objective)

        solution = allocator.solve(problem, solver=name, report=note)
        assert chosen(problem, name) == chosen(problem, name)
        assert seen == sorted(seen, reverse=True)
        assert seen[-1] == solution.objective
        short = problem.with_budget("cost", max=sum(min(c) for c, _ in groups) - 1)
        assert allocator.solve(short, solver=name).allocation is None
        if name != "random":
            polished = allocator.solve(problem, solver=name, polish=True)
            assert (polished.objective or 0.0) <= (solution.objective or 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_declared(name: str) -> None:
    kind = registry.find("solvers", name).load()
    assert kind.name == name
    assert kind.exactness is Exactness.HEURISTIC
    assert repr(kind()) == repr(eval(repr(kind()), {kind.__name__: kind}))


def test_refusals() -> None:
    rows = random_rows(5, frozenset(), most_groups=4)
    rows["interactions"] = []
    names = [group["name"] for group in rows["groups"]]
    rows["couplings"] = [{"kind": "max_distinct", "count": 1, "groups": names}]
    for name in NAMES:
        with pytest.raises(UnsupportedError, match=rf"'{name}' does not take max_distinct .*use .*brute_force"):
            allocator.solve(rows, solver=name)
    problem = from_groups([([1, 2], [2.0, 1.0])], 5)
    for name, options, text in (
        ("random", {"samples": 0}, "samples=0: give 1 or more"),
        ("greedy_ratio", {"damping": 0.0}, r"damping=0.0: give a power"),
    ):
        with pytest.raises(UsageError, match=text):
            allocator.solve(problem, solver=name, **options)
    with pytest.raises(UnsupportedError, match=r"labelled 'int8'.*group number 0 .*'g0'.*has none; leave low and high"):
        allocator.solve(problem, solver="prefix_cut", high="int8")
    stats = {"sensitivity": np.array([1.0, np.nan])}
    with pytest.raises(UnsupportedError, match=r"'sensitivity'.*group number 1 .*lacks it"):
        allocator.solve(from_groups([([1, 2], [2.0, 1.0])] * 2, 5, stats=stats), solver="prefix_cut")


# -- prefix cut -------------------------------------------------------------------------------------------------------


def test_prefix_cut_is_the_best_k() -> None:
    """Every k in turn; the losses of low and high differ in all groups, so that the order is the only one."""
    rng = np.random.default_rng(1)
    for i in range(times(150)):
        n = int(rng.integers(2, 9))
        costs, gains = np.sort(rng.integers(1, 60, (n, 3)), axis=1), rng.permutation(100)[:n] + 1.0
        costs[:, 1:] += [1, 2]
        losses = np.stack([gains + 5, gains * 0.5 + 5, np.full(n, 5.0)], axis=1)
        sensitivity = rng.permutation(n).astype(float)
        stats = {"stats": {"sensitivity": sensitivity.copy()}} if i % 2 else {}
        order = np.argsort(-(sensitivity if i % 2 else gains))
        problem = Problem.from_arrays(
            losses, costs, budgets={"cost": int(costs[:, 0].sum() + rng.integers(0, 90))}, **stats
        )
        best: tuple[float, list[int]] = (np.inf, [])
        for k in range(n + 1):
            places = np.zeros(n, int)
            places[order[:k]] = 2
            outcome = problem.evaluate(places)
            if outcome.feasible and outcome.objective < best[0]:
                best = (outcome.objective, places.tolist())
        solution = allocator.solve(problem, solver="prefix_cut")
        assert chosen(problem, "prefix_cut") == best[1]
        assert solution.run["statistics"]["high"] == sum(p == 2 for p in best[1])


def test_prefix_cut_stops_at_the_first_that_does_not_fit() -> None:
    """The second group is too large; the third would fit, and is not tried: that is what a prefix is."""
    groups: Groups = [([1, 3], [9.0, 0.0]), ([1, 50], [8.0, 0.0]), ([1, 3], [7.0, 0.0])]
    assert chosen(from_groups(groups, 10), "prefix_cut") == [1, 0, 0]
    assert chosen(from_groups(groups, 10), "prefix_cut", polish=True) == [1, 0, 1]


def test_prefix_cut_between_labels_under_several_rows() -> None:
    costs = {"bytes": np.array([[1, 2, 4]] * 4), "ms": np.array([[4.0, 3.0, 1.0]] * 4)}
    scores = np.array([[8.0, 4.0, 0.0], [9.0, 5.0, 1.0], [7.0, 1.0, 0.0], [6.0, 2.0, 0.0]])
    problem = Problem.from_arrays(scores, costs, budgets={"bytes": 12}, choice_names=("int4", "int8", "keep"))
    rows = (*problem.budgets, Budget(resource="ms", max=14.0, min=13.5))
    assert chosen(problem, "prefix_cut", low="int4", high="int8") == [1, 1, 1, 1]
    two = allocator.solve(problem.replace(budgets=rows), solver="prefix_cut", low="int4", high="int8")
    assert dict(two.choices) == {"g0": "int8", "g1": "int4", "g2": "int8", "g3": "int4"}


# -- bottleneck -------------------------------------------------------------------------------------------------------


def least_largest(problem: Problem) -> float:
    outcomes = (
        (problem.evaluate(np.array(places)), places)
        for places in itertools.product(*(range(n) for n in problem.sizes.tolist()))
    )
    return min(float(problem.unary[o.rows].max()) for o, _ in outcomes if o.feasible)


def test_bottleneck_is_the_least_largest_loss() -> None:
    rng = np.random.default_rng(2)
    for _ in range(times(100)):
        groups, budget = ragged(rng, most=4)
        problem = from_groups(groups, budget)
        bare = allocator.solve(problem, solver="bottleneck_bisection", fill=False)
        full = allocator.solve(problem, solver="bottleneck_bisection")
        largest = least_largest(problem)
        for solution in (bare, full):
            assert solution.allocation is not None
            assert solution.run["statistics"]["largest_loss"] == largest
            assert problem.unary[solution.allocation.rows()].max() == largest
        assert full.allocation is not None
        assert bare.allocation is not None
        assert (problem.unary[full.allocation.rows()] <= problem.unary[bare.allocation.rows()]).all()
        rows, room = full.allocation.rows(), budget - full.totals["cost"]
        for row, (group, value) in enumerate(zip(problem.group_of, problem.unary, strict=True)):
            more = problem.costs["cost"][row] - problem.costs["cost"][rows[group]]
            assert value >= problem.unary[rows[group]] or more > room, "a better choice still fits"
        of_max = problem.replace(loss=Loss({"score": 1.0}, "max"))
        assert allocator.solve(of_max, solver="bottleneck_bisection").objective == largest


def test_bottleneck_fills_from_the_largest_loss() -> None:
    """All stand at 9 and 8 at least; what is left pays for one of them, and it goes to the larger."""
    groups: Groups = [([5, 9], [8.0, 1.0]), ([5, 9], [9.0, 5.0]), ([1, 99], [9.5, 0.0])]
    assert chosen(from_groups(groups, 15), "bottleneck_bisection") == [0, 1, 0]
    assert chosen(from_groups(groups, 15), "bottleneck_bisection", fill=False) == [0, 0, 0]


# -- greedy ratio -----------------------------------------------------------------------------------------------------


def naive_upgrades(groups: Groups, budget: float, damping: float) -> list[int]:
    """Look at all upgrades of all groups, take the best that fits, begin again."""
    places = [min(range(len(c)), key=lambda k: (c[k], v[k])) for c, v in groups]
    while True:
        used = sum(c[k] for (c, _), k in zip(groups, places, strict=True))
        moves = []
        for g, ((costs, losses), at) in enumerate(zip(groups, places, strict=True)):
            for k in range(len(costs)):
                saved, more = losses[at] - losses[k], costs[k] - costs[at]
                if saved > 0 and used + more <= budget:
                    moves.append((-(saved**damping) / more, g, k))
        if not moves:
            return places
        _, g, k = min(moves)
        places[g] = k


@pytest.mark.parametrize("damping", [1.0, 0.69])
def test_greedy_ratio_is_the_naive_loop(damping: float) -> None:
    rng = np.random.default_rng(3)
    differ = 0
    for _ in range(times(200)):
        groups, budget = ragged(rng)
        problem = from_groups(groups, budget)
        expected = naive_upgrades(groups, budget, damping)
        assert chosen(problem, "greedy_ratio", damping=damping) == expected
        differ += expected != chosen(problem, "greedy")
    assert differ > 0


def test_greedy_ratio_takes_choices_inside_the_hull_where_greedy_stands_still() -> None:
    """From (0, 10) the hull goes to (10, 0) straight past (4, 7), which is all that fits."""
    problem = from_groups([([0, 4, 10], [10.0, 7.0, 0.0])], 5)
    assert chosen(problem, "greedy") == [0]
    assert chosen(problem, "greedy_ratio") == [1]


def test_greedy_ratio_keeps_every_row_and_the_clock() -> None:
    rng = np.random.default_rng(4)
    costs = {r: np.sort(rng.integers(1, 100, (40, 5)), axis=1) for r in ("bytes", "ms")}
    scores = -np.sort(-rng.random((40, 5)), axis=1)
    low = {r: int(c[:, 0].sum()) for r, c in costs.items()}
    problem = Problem.from_arrays(scores, costs, budgets={r: low[r] + 300 for r in costs})
    solution = allocator.solve(problem, solver="greedy_ratio")
    assert solution.allocation is not None
    rows = solution.allocation.rows()
    for row in range(problem.choice_count):
        swapped = rows.copy()
        swapped[problem.group_of[row]] = row
        outcome = problem.evaluate(swapped - problem.indptr[:-1])
        assert not outcome.feasible or outcome.objective >= (solution.objective or 0.0)
    answer = registry.find("solvers", "greedy_ratio").load()().solve(problem, Limits(time=1e-9))
    assert answer.limit == "time"
    assert problem.evaluate(answer.choice).feasible


def test_greedy_ratio_keeps_a_lower_limit() -> None:
    """Each upgrade takes 2 off the use of the second row, and 3 is all that may go."""
    costs = {"bytes": np.array([[1, 2]] * 4), "ms": np.array([[5, 3]] * 4)}
    scores = np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 0.0], [1.5, 0.0]])
    problem = Problem.from_arrays(scores, costs, budgets={"bytes": 8})
    least = (*problem.budgets, Budget(resource="ms", min=17))
    solution = allocator.solve(problem.replace(budgets=least), solver="greedy_ratio")
    assert dict(solution.choices) == {"g0": "c0", "g1": "c1", "g2": "c0", "g3": "c0"}
    assert solution.run["statistics"] == {"upgrades": 1, "repaired": 0}
    assert chosen(problem, "greedy_ratio") == [1, 1, 1, 1]


# -- random -----------------------------------------------------------------------------------------------------------


def test_random_follows_the_seed_and_more_samples_are_no_worse() -> None:
    rng = np.random.default_rng(5)
    costs = np.sort(rng.integers(1, 100, (30, 5)), axis=1)
    problem = Problem.from_arrays(
        -np.sort(-rng.random((30, 5)), axis=1), costs, budgets={"cost": int(costs.mean() * 30)}
    )
    assert chosen(problem, "random", seed=1) == chosen(problem, "random", seed=1)
    assert chosen(problem, "random", seed=1) != chosen(problem, "random", seed=2)
    few = [allocator.solve(problem, solver="random", seed=s, samples=2).objective or 0.0 for s in range(10)]
    many = [allocator.solve(problem, solver="random", seed=s, samples=20).objective or 0.0 for s in range(10)]
    assert all(b <= a for a, b in zip(few, many, strict=True))
    assert sum(many) < sum(few)
    best = allocator.solve(problem, solver="exact").objective or 0.0
    assert min(many) > best


def test_random_repairs_without_looking_at_the_loss() -> None:
    """Half of the groups may stay dear; how much each of them loses by being cheap makes no difference."""
    losses = np.stack([np.repeat([1.0, 1000.0], 200), np.zeros(400)], axis=1)
    problem = Problem.from_arrays(losses, np.tile([1, 2], (400, 1)), budgets={"cost": 500})
    dear = np.array(chosen(problem, "random", samples=1))
    assert dear.sum() == 100
    assert 30 < dear[:200].sum() < 70


def test_random_draws_all_choices_alike() -> None:
    """Without a budget nothing is repaired: each choice of each group comes up equally often."""
    problem = Problem.from_arrays(np.zeros((300, 4)), np.ones((300, 4)))
    counts = np.bincount(np.concatenate([chosen(problem, "random", seed=s, samples=1) for s in range(20)]), minlength=4)
    assert counts / counts.sum() == pytest.approx(np.full(4, 0.25), abs=0.02)


# -- the page ---------------------------------------------------------------------------------------------------------


def test_every_backend_has_its_line_in_the_table() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["allocator.solvers"]
    page = (ROOT / "docs" / "solvers.md").read_text(encoding="utf-8")
    table = page[page.index("| name | idea |") : page.index("## Closed forms")]
    lines = re.findall(r"^\| `(\w+)` \|", table, re.M)
    assert sorted(lines) == sorted(declared)
