"""Elimination on graphs of every shape, the table over a chain's budget, and what is refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from allocator import solve
from allocator.chains import chains
from allocator.errors import UnsupportedError
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.quadratic import quadratic
from allocator.solution import Answer
from allocator.statement import Basis, Budget, Pairs
from allocator.testing.depth import times
from solvers._elimination import Elimination, tables
from solvers.graph import Graph

Edges = Sequence[tuple[int, int]]


def joined(seed: int, edges: Edges, groups: int, choices: int = 3, *, budget: bool = True, step: int = 1) -> Problem:
    """Interactions of either sign along the edges."""
    rng = np.random.default_rng(seed)
    place = np.arange(choices)
    index = [
        np.stack(np.meshgrid(g * choices + place, h * choices + place, indexing="ij"), axis=-1).reshape(-1, 2)
        for g, h in edges
    ]
    pairs = np.concatenate(index) if index else np.zeros((0, 2), np.int64)
    costs = step * rng.integers(1, 12, (groups, choices))
    least = int(costs.min(axis=1).sum())
    most = int(least + 0.4 * (costs.max(axis=1).sum() - least))
    problem = Problem.from_arrays({"s": rng.normal(size=(groups, choices))}, {"bytes": costs})
    rows = (Budget(resource="bytes", max=most),) if budget else ()
    interaction = (Pairs("s", pairs, rng.normal(size=len(pairs))),) if len(pairs) else ()
    return problem.replace(budgets=rows, interactions=interaction)


def random_edges(rng: np.random.Generator, groups: int) -> Edges:
    every = list(itertools.combinations(range(groups), 2))
    return [e for e in every if rng.random() < rng.choice([0.2, 0.4, 0.9])]


def best_of(problem: Problem) -> float | None:
    every = itertools.product(*map(range, problem.sizes.tolist()))
    feasible = (o for o in (problem.evaluate(np.array(p, np.int64)) for p in every) if o.feasible)
    return min((o.objective for o in feasible), default=None)


def ask(problem: Problem, **options: Any) -> Answer:
    return Graph(**options).solve(problem, Limits())


def worth(problem: Problem, answer: Answer) -> float:
    assert answer.choice is not None
    outcome = problem.evaluate(answer.choice)
    assert outcome.feasible
    return outcome.objective


def test_without_budgets_any_graph_is_solved_exactly() -> None:
    rng = np.random.default_rng(0)
    for seed in range(times(60)):
        problem = joined(seed, random_edges(rng, 5), 5, budget=False)
        answer = ask(problem, kicks=0)
        assert answer.claim == "optimal"
        assert worth(problem, answer) == pytest.approx(best_of(problem), rel=1e-12, abs=1e-12)


def test_elimination_finds_the_least_for_any_unaries() -> None:
    """Directly, over groups of different sizes, against looking at everything."""
    rng = np.random.default_rng(1)
    for _ in range(times(60)):
        sizes = rng.integers(1, 4, 6)
        indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        group = np.repeat(np.arange(6), sizes)
        n = int(indptr[-1])
        free = rng.random(n) < 0.8
        free[indptr[:-1]] = True
        a, b = np.nonzero(np.triu(group[:, None] != group[None, :]))
        kept = free[a] & free[b] & (rng.random(len(a)) < 0.4)
        if not kept.any():
            continue
        pair, value = np.stack([a[kept], b[kept]], axis=1), rng.integers(-3, 4, int(kept.sum())).astype(float)
        rows, joint = tables(group, free, indptr, pair, value)
        graph = Elimination(rows, joint, width=6, cells=10**6)
        unary = rng.integers(-2, 3, n).astype(float)
        least, taken = graph.minimise(unary)
        matrix = np.zeros((n, n))
        matrix[pair[:, 0], pair[:, 1]] = value

        def total(chosen: Sequence[int], unary: Any = unary, matrix: Any = matrix) -> float:
            at = list(chosen)
            return float(unary[at].sum() + matrix[np.ix_(at, at)].sum())

        true = min(total(c) for c in itertools.product(*(rows[g].tolist() for g in sorted(rows))))
        assert least == pytest.approx(true)
        assert total(sorted(taken.values())) == pytest.approx(true)


@pytest.mark.parametrize(
    ("edges", "width"),
    [
        ([(g, g + 1) for g in range(7)], 1),
        ([((g - 1) // 2, g) for g in range(1, 8)], 1),
        ([(g, (g + 1) % 8) for g in range(8)], 2),
        ([(g, h) for g in range(8) for h in (g + 1, g + 2) if h < 8], 2),
        ([(0, 1), (1, 2), (4, 5)], 1),
    ],
    ids=["chain", "tree", "ring", "band", "parts"],
)
def test_the_width_of_known_graphs(edges: Edges, width: int) -> None:
    answer = ask(joined(0, edges, 8, 2), width=width)
    assert answer.statistics["width"] == width
    with pytest.raises(UnsupportedError, match=rf"over {width + 1} groups at once.*width={width - 1}"):
        ask(joined(0, edges, 8, 2), width=width - 1)


def test_dense_graphs_and_bases_are_refused_by_number() -> None:
    problem = joined(0, list(itertools.combinations(range(9), 2)), 9)
    with pytest.raises(UnsupportedError, match=r"tables over 9 groups.*cvxpy_qp"):
        ask(problem)
    with pytest.raises(UnsupportedError, match=r"cells=20;.*raise cells"):
        ask(joined(0, [(0, 1), (1, 2)], 3), cells=20)
    vectors = np.random.default_rng(0).normal(size=(900, 2))
    wide = Problem.from_arrays(vectors[:, :1].reshape(300, 3), vectors[:, 1:].reshape(300, 3))
    with pytest.raises(UnsupportedError, match="the basis joins 900 choices"):
        ask(wide.replace(interactions=(Basis("score", np.ones(2), vectors),)))


def test_a_basis_that_joins_few_groups_is_taken() -> None:
    rng = np.random.default_rng(3)
    for _ in range(times(10)):
        vectors = rng.normal(size=(15, 2))
        vectors[6:] = 0.0  # three of five groups stay alone
        problem = joined(int(rng.integers(1000)), [], 5)
        problem = problem.replace(interactions=(Basis("s", np.array([1.5, -0.7]), vectors),))
        answer = ask(problem)
        assert answer.claim == "optimal"
        assert worth(problem, answer) == pytest.approx(best_of(problem), abs=1e-12)


def test_chains_under_a_budget_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any order of the groups in the chains, rings left out; a max or a min, integers or floats; both engines."""
    rng = np.random.default_rng(4)
    for seed in range(times(120)):
        order = rng.permutation(6).tolist()
        cut = int(rng.integers(0, 8))  # two of them: one chain of six
        edges = [(min(a, b), max(a, b)) for i, (a, b) in enumerate(itertools.pairwise(order)) if i != cut]
        problem = joined(seed, edges, 6, step=2**40 + 1 if seed % 4 == 0 else 1)
        if seed % 3 == 0:
            rows = (Budget(resource="bytes", min=problem.budgets[0].max),)
            problem = problem.replace(budgets=rows)
        if seed % 5 == 0:
            limit = problem.budgets[0].max or problem.budgets[0].min
            assert limit is not None
            row = Budget(resource="us", **{"max" if problem.budgets[0].max else "min": 1e-3 * limit})
            problem = problem.replace(costs={"us": 1e-3 * problem.costs["bytes"]}, resources={}, budgets=(row,))
        allowed = rng.random(problem.choice_count) < 0.8
        if seed % 7 == 0:
            problem = problem.replace(allowed=allowed)
        monkeypatch.setenv("ALLOCATOR_ENGINE", "numpy" if seed % 2 else "c")
        best = best_of(problem)
        if best is None:
            assert solve(problem, "graph").status == "infeasible"
            continue
        answer = ask(problem)
        assert answer.claim == "optimal"
        assert worth(problem, answer) == pytest.approx(best, abs=1e-12)
        found = solve(problem, "graph")
        assert (found.status, found.objective) == ("optimal", pytest.approx(best, abs=1e-12))
    assert ask(problem.replace(budgets=(Budget(resource="bytes", max=1),))).claim == "infeasible"


def test_float_rows_that_are_met_to_the_last_bit() -> None:
    """The limit is a sum of costs itself: rounding it to integers must neither lose nor let through anything."""
    rng = np.random.default_rng(8)
    for seed in range(times(60)):
        problem = joined(seed, [(g, g + 1) for g in range(4)], 5)
        us = rng.normal(size=15) + 1.0
        limit = math.fsum(us[np.arange(5) * 3 + rng.integers(0, 3, 5)])
        problem = problem.replace(costs={"us": us}, resources={}, budgets=(Budget(resource="us", max=limit),))
        answer = ask(problem)
        assert answer.claim == "optimal"
        assert worth(problem, answer) == pytest.approx(best_of(problem), abs=1e-12)


def test_a_start_of_the_same_value_stands_and_a_worse_one_does_not() -> None:
    problem = joined(3, [(0, 1), (1, 2)], 4)
    told: list[np.ndarray[Any, Any]] = []
    best = Graph().solve(problem, Limits(report=told.append))
    assert best.choice is not None
    assert [t.tolist() for t in told] == [best.choice.tolist()]
    again = Graph().solve(problem, Limits(), best.choice)
    assert again.choice is not None
    assert again.choice.tolist() == best.choice.tolist()
    dear = problem.costs["bytes"].reshape(4, 3).argmin(axis=1)
    other = Graph().solve(problem, Limits(), dear)
    assert worth(problem, other) == worth(problem, best)


def test_a_gap_is_kept_and_said() -> None:
    problem = joined(9, [(g, g + 1) for g in range(79)], 80, step=12345)
    noise = np.random.default_rng(9).integers(0, 10**4, problem.choice_count)
    problem = problem.replace(costs={"bytes": problem.costs["bytes"] + noise})
    found = solve(problem, "graph", gap=0.01)
    assert (found.status, found.claim) == ("feasible", None)
    assert found.gap is not None
    assert 0 < found.gap <= 0.01
    exact = solve(problem, "graph")
    assert exact.status == "optimal"
    assert found.objective is not None
    assert exact.objective is not None
    assert found.proven_bound is not None
    assert found.proven_bound <= exact.objective <= found.objective


def test_chains_are_told_from_trees_and_rings() -> None:
    def of(edges: Edges, count: int) -> Any:
        ends = np.array(edges, np.int64)
        return chains(ends[:, 0], ends[:, 1], count)

    groups, together = of([(0, 2), (1, 2)], 4)
    assert groups.tolist() == [0, 2, 1, 3]
    assert together.tolist() == [True, True, False]
    assert of([(0, 1), (1, 2), (0, 2)], 3) is None
    assert of([(0, 1), (0, 2), (0, 3)], 4) is None


def lagrangian_bound(problem: Problem) -> float:
    """The highest bound that any prices give, as a linear program over all allocations."""
    model = quadratic(problem)
    rows, least = [], []
    for places in itertools.product(*map(range, problem.sizes.tolist())):
        taken = problem.indptr[:-1] + np.array(places)
        over = [r.column[taken].sum() - r.hi for r in model.linear.rows if r.hi is not None]
        under = [r.lo - r.column[taken].sum() for r in model.linear.rows if r.lo is not None]
        rows.append([1.0, *(-x for x in over), *(-x for x in under)])
        least.append(model.total(taken))
    count = len(rows[0])
    bounds = [(None, None)] + [(0, None)] * (count - 1)
    found = linprog([-1.0] + [0.0] * (count - 1), A_ub=rows, b_ub=least, bounds=bounds)
    return -float(found.fun)


def test_prices_of_several_budgets_reach_the_highest_bound_there_is() -> None:
    """Trees and bands under a max and a row with both sides."""
    rng = np.random.default_rng(5)
    for seed in range(times(20)):
        edges = [((g - 1) // 2, g) for g in range(1, 5)] + [(0, 3)] * (seed % 2)
        problem = joined(seed, edges, 5)
        costs = rng.integers(0, 9, 15)
        limits = (problem.budgets[0], Budget(resource="ms", max=int(costs.sum() // 3), min=3))
        problem = problem.replace(costs={**problem.costs, "ms": costs}, budgets=limits)
        best = best_of(problem)
        answer = ask(problem)
        if best is None:
            assert answer.choice is None
            continue
        assert answer.claimed_bound is not None
        assert answer.claimed_bound <= best + 1e-12
        assert answer.claimed_bound >= lagrangian_bound(problem) - 1e-6
        assert worth(problem, answer) <= best + 0.3


def test_a_long_chain_under_a_fine_budget_is_proved() -> None:
    rng = np.random.default_rng(6)
    groups = 60
    problem = joined(6, [(g, g + 1) for g in range(groups - 1)], groups, 4)
    costs = rng.integers(10**6, 10**7, problem.choice_count)
    limit = int(costs.reshape(groups, 4).mean() * groups * 0.8)
    problem = problem.replace(costs={"bytes": costs}, budgets=(Budget(resource="bytes", max=limit),))
    answer = ask(problem)
    assert answer.claim == "optimal"
    assert solve(problem, "graph").status == "optimal"


def test_a_limit_that_fires_leaves_an_allocation() -> None:
    problem = joined(7, [(g, g + 1) for g in range(799)] + [(0, 2)], 800)
    answer = Graph().solve(problem, Limits(time=0.05))
    assert answer.limit == "time"
    assert math.isfinite(worth(problem, answer))


def test_a_chain_stops_with_the_clock_at_an_allocation_and_a_true_bound() -> None:
    problem = joined(10, [(g, g + 1) for g in range(39)], 40, 4)
    answer = Graph().solve(problem, Limits(time=1e-9))
    assert (answer.limit, answer.claim) == ("time", None)
    best = worth(problem, ask(problem))
    assert answer.claimed_bound is not None
    assert answer.claimed_bound <= best <= worth(problem, answer)


def test_one_group_and_groups_without_a_choice_to_make() -> None:
    one = joined(11, [], 1)
    assert worth(one, ask(one)) == best_of(one)
    fixed = joined(12, [(0, 1), (1, 2), (0, 2)], 3, 1)  # a ring of what stands anyway
    found = solve(fixed, "graph")
    assert (found.status, found.objective) == ("optimal", pytest.approx(best_of(fixed)))


def test_a_chain_that_is_no_pair_at_all_is_left_to_prices_where_it_is_large() -> None:
    problem = joined(13, [(0, 1)], 100, 4, step=997)
    small, large = ask(problem), ask(problem, cells=500)
    assert small.claim == "optimal"
    assert "cuts" in small.statistics
    assert "passes" in large.statistics
    assert large.claimed_bound is not None
    assert large.claimed_bound <= worth(problem, small) <= worth(problem, large) + 1e-12
