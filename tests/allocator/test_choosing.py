"""`auto` and the features it goes by."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from allocator import registry, solve
from allocator.choosing import choose_solver
from allocator.features import ALL, MEANING
from allocator.problem import Problem
from allocator.reduce import reduce
from allocator.statement import Basis, Budget, Cardinality, Implies, MaxDistinct, Pairs
from allocator.testing.coupled_layers import coupled_layers
from allocator.testing.random_problems import random_rows


def larger(rows: dict[str, Any]) -> Problem:
    """The same kind of problem with more groups than anyone can look at."""
    groups = list(rows["groups"])
    for i in range(14):
        choices = [{**groups[0]["choices"][0], "name": f"n{k}", "label": "a", "allowed": True} for k in range(3)]
        groups.append({"name": f"more{i}", "choices": choices, "tags": ["x", "y", "z"]})
    return Problem.from_rows(rows | {"groups": groups})


def test_every_choice_takes_the_problem() -> None:
    names = set()
    for seed in range(150):
        for problem in (Problem.from_rows(random_rows(seed)), larger(random_rows(seed))):
            reduced = reduce(problem).problem
            name, why = choose_solver(reduced)
            assert why
            names.add(name)
            if reduced is not None:
                assert reduced.features <= registry.find("solvers", name).load().features
    assert len(names) >= 3


def test_one_budget_goes_to_the_engine_at_any_size() -> None:
    scores = np.zeros((6000, 2))
    assert choose_solver(Problem.from_arrays(scores, scores))[0] == "exact"
    assert choose_solver(Problem.from_arrays(scores[:100], scores[:100], budgets={"cost": 3}))[0] == "exact"
    assert choose_solver(None)[0] == "brute_force"


def test_many_couplings_that_count_go_to_an_integer_program() -> None:
    problem = Problem.from_arrays(np.zeros((60, 6)), np.zeros((60, 6)), budgets={"cost": 3})
    rows = [Cardinality("exactly", (6 * g, 6 * g + 7), 1) for g in range(30)]
    assert choose_solver(problem.replace(couplings=tuple(rows[:5])))[0] == "exact"
    assert choose_solver(problem.replace(couplings=tuple(rows)))[0] == "ortools_mip"
    joined = problem.replace(couplings=tuple(rows), interactions=(Basis("score", np.ones(1), np.ones((360, 1))),))
    assert choose_solver(joined)[0] == "annealing"
    assert solve(joined).status == "feasible"
    few = Problem.from_arrays(np.zeros((30, 2)), np.zeros((30, 2)), budgets={"cost": 3})
    joined = few.replace(couplings=tuple(Cardinality("exactly", (2 * g, 2 * g + 3), 1) for g in range(25)),
                         interactions=(Basis("score", np.ones(1), np.ones((60, 1))),))  # fmt: skip
    assert choose_solver(joined)[0] == "ortools_cpsat"


def test_interactions_go_to_our_own_engine_unless_something_else_needs_another() -> None:
    problem = Problem.from_arrays(np.zeros((30, 4)), np.zeros((30, 4)), budgets={"cost": 3})
    joined = problem.replace(interactions=(Basis("score", np.ones(1), np.ones((120, 1))),))
    assert choose_solver(joined)[0] == "quadratic"
    assert (
        choose_solver(joined.replace(couplings=(MaxDistinct(count=2, groups=tuple(range(30))),)))[0] == "ortools_cpsat"
    )
    few = Problem.from_arrays(np.zeros((4, 4)), np.zeros((4, 4)))
    few = few.replace(interactions=(Basis("score", np.ones(1), np.ones((16, 1))),))
    assert choose_solver(few)[0] == "brute_force"


def paired(edges: Iterable[tuple[int, int]], groups: int, choices: int = 3) -> Problem:
    """Random scores, costs and pairs between all choices of the groups that are joined; one budget."""
    rng = np.random.default_rng(0)
    ends = [(g * choices + i, h * choices + j) for g, h in edges for i in range(choices) for j in range(choices)]
    costs = rng.integers(1, 9, (groups, choices))
    problem = Problem.from_arrays({"s": rng.normal(size=costs.shape)}, {"c": costs}, budgets={"c": 4 * groups})
    return problem.replace(interactions=(Pairs("s", np.array(ends), rng.normal(size=len(ends))),))


def test_chains_under_one_budget_are_proved_by_graph() -> None:
    order = np.random.default_rng(1).permutation(40).tolist()
    line = list(itertools.pairwise(order))
    for edges in (line, line[:12] + line[20:], [(0, 1), (0, 1)]):
        problem = paired(edges, 40)
        assert choose_solver(problem)[0] == "graph"
        solution = solve(problem)
        assert solution.status == "optimal"
        assert solution.totals["c"] <= 160
    one = paired([(0, 1), (1, 2), (1, 3)], 40)
    assert choose_solver(one)[0] == "quadratic"  # a star
    assert choose_solver(paired([*line, (order[-1], order[0])], 40))[0] == "quadratic"  # a ring
    both = problem.replace(budgets=(Budget(resource="c", max=160, min=100),))
    assert choose_solver(both)[0] == "quadratic"
    basis = Basis("s", np.ones(1), np.ones((120, 1)))
    assert choose_solver(problem.replace(interactions=(*problem.interactions, basis)))[0] == "quadratic"


def test_a_group_without_a_choice_to_make_joins_nothing() -> None:
    """A star whose middle is settled is no star."""
    star = paired([(0, h) for h in range(1, 20)], 20)
    settled = star.replace(pins={0: 1})
    assert choose_solver(reduce(star).problem)[0] == "quadratic"
    assert choose_solver(reduce(settled).problem)[0] == "graph"
    assert solve(settled).status == "optimal"


def test_tables_that_are_too_many_are_not_for_graph() -> None:
    problem = paired([(0, 1)], 40)
    wide = Problem.from_arrays({"s": np.zeros((3, 1000))}, {"c": np.zeros((3, 1000))}, budgets={"c": 1.0})
    pairs = Pairs("s", np.array([[0, 1000], [1000, 2000]]), np.ones(2))
    assert choose_solver(wide.replace(interactions=(pairs,)))[0] == "quadratic"
    assert choose_solver(problem)[0] == "graph"


def test_a_limit_on_a_loss_in_which_all_groups_interact_is_for_the_subspace_program() -> None:
    basis = Basis("s", np.ones(1), np.random.default_rng(0).normal(size=(60, 1)))
    few, many = paired([(0, 1), (3, 4)], 20), paired(itertools.combinations(range(20), 2), 20)
    limit = (Budget(loss=True, max=-5.0),)
    for problem, expected in (
        (few, "ortools_cpsat"),
        (many, "cvxpy_subspace"),
        (few.replace(interactions=(basis,)), "cvxpy_subspace"),
        (few.replace(interactions=(*few.interactions, basis)), "cvxpy_subspace"),
    ):
        smallest = problem.replace(minimize={"c": 1.0}, budgets=limit)
        assert choose_solver(smallest)[0] == expected
        assert choose_solver(problem.replace(budgets=(*problem.budgets, *limit)))[0] == expected
        coupled = smallest.replace(couplings=(MaxDistinct(count=2, groups=tuple(range(20))),))
        assert choose_solver(coupled)[0] == "ortools_cpsat"


def test_the_smallest_under_a_loss_is_found_by_auto() -> None:
    problem = coupled_layers(0, 3.0, layers=9)
    least = solve(problem, "quadratic").loss
    smallest = problem.replace(minimize={"bits": 1.0}, budgets=(Budget(loss=True, max=least + 1e-9),))
    solution = solve(smallest)
    assert solution.loss <= least + 1e-9
    assert solution.objective <= problem.budgets[0].max


def test_several_budgets_go_to_the_engine_while_that_is_quick() -> None:
    def several(groups: int) -> Problem:
        costs = {name: np.zeros((groups, 2)) for name in "ab"}
        return Problem.from_arrays(np.zeros((groups, 2)), costs, budgets={"a": 1, "b": 1})

    assert choose_solver(several(100))[0] == "exact"
    assert choose_solver(several(6000))[0] == "lagrangian"


def _rows(**parts: Any) -> dict[str, Any]:
    groups = [
        {
            "name": n,
            "tags": ["x"],
            "choices": [{"name": c, "cost": {"c": k, "m": k}, "score": {"s": k}} for k, c in enumerate("ab")],
        }
        for n in "gh"
    ]
    return {
        "format": "allocation-problem",
        "version": 1,
        "resources": {"m": {"aggregate": "max"}},
        "groups": groups,
        **parts,
    }


PAIR = {"a": ["g", "a"], "b": ["h", "a"], "value": 1.0}
BASIS = {"eigenvalues": [1.0], "vectors": {"g": {"a": [1.0]}}}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, set()),
        ({"pins": {"g": "a"}}, set()),
        ({"budgets": [{"resource": "c", "max": 1}]}, set()),
        ({"budgets": [{"resource": "c", "max": 1}, {"resource": "c", "max": 2}]}, {"several_budgets"}),
        ({"budgets": [{"resource": "c", "max": 1, "min": 0}]}, {"several_budgets", "lower_budgets"}),
        ({"budgets": [{"resource": "c", "min": 1}]}, {"lower_budgets"}),
        ({"budgets": [{"resource": "c", "max": 1, "tags": ["x"]}]}, {"scoped_budgets"}),
        ({"budgets": [{"score": "s", "max": 1}]}, {"score_budgets"}),
        ({"budgets": [{"loss": True, "max": 1}]}, {"loss_budgets"}),
        ({"budgets": [{"resource": "m", "max": 1}, {"resource": "c", "max": 1}]}, set()),
        ({"budgets": [{"resource": "m", "max": 1, "tags": ["x"]}]}, set()),
        ({"budgets": [{"resource": "m", "min": 1}]}, {"max_resource", "lower_budgets"}),
        ({"minimize": "c"}, {"resource_objective"}),
        ({"minimize": {"loss": 1, "c": 1}}, {"resource_objective"}),
        ({"minimize": {"loss": 2}}, set()),
        ({"minimize": "m"}, {"resource_objective", "max_resource"}),
        ({"loss": {"aggregate": "max"}}, {"max_loss"}),
        ({"loss": {"aggregate": "max"}, "minimize": "c"}, {"resource_objective"}),
        ({"loss": {"aggregate": "max"}, "minimize": "c", "budgets": [{"loss": True, "max": 1}]},
         {"resource_objective", "max_loss", "loss_budgets"}),
        ({"loss": {"aggregate": "pnorm", "p": 2}}, {"pnorm_loss"}),
        ({"interactions": [{"score": "s", "pairs": [PAIR]}]}, {"pairs"}),
        ({"interactions": [{"score": "s", "basis": BASIS}]}, {"basis"}),
        ({"interactions": [{"score": "s", "basis": BASIS}], "minimize": "c"}, {"resource_objective"}),
        ({"interactions": [{"score": "s", "basis": BASIS}], "loss": {"terms": {"s": 0.0}}}, set()),
        ({"couplings": [{"kind": "same_choice", "groups": ["g", "h"]}]}, {"same_choice"}),
        ({"couplings": [{"kind": "max_distinct", "count": 1}]}, {"max_distinct"}),
        ({"couplings": [{"kind": "at_most", "count": 1, "choices": [["g", "a"]]}]}, {"cardinality"}),
        ({"couplings": [{"kind": "implies", "if": ["g", "a"], "then": ["h", "a"]}]}, {"implies"}),
    ],
    ids=lambda part: "+".join(sorted(part)) or "none",  # a set has no order
)  # fmt: skip
def test_features_are_those_that_a_solver_must_understand(parts: dict[str, Any], expected: set[str]) -> None:
    assert Problem.from_rows(_rows(**parts)).features == expected


def test_every_feature_has_a_meaning_in_words() -> None:
    assert set(MEANING) == ALL
    assert all(MEANING.values())


def coupled(seed: int) -> Problem:
    """60 groups of 6, the choices of each half of them tied to one another along a chain, and a dense interaction."""
    rng = np.random.default_rng(seed)
    scores, costs = np.sort(rng.random((60, 6)), axis=1), np.arange(6, 0, -1) * rng.integers(1, 9, (60, 1))
    problem = Problem.from_arrays(scores, costs, budgets={"cost": int(0.55 * costs[:, 0].sum())})
    tied = [Implies(6 * g + 5, 6 * g + 11) for g in range(30)] + [Implies(6 * g + 10, 6 * g + 4) for g in range(30)]
    vectors = 0.05 * rng.normal(size=(360, 40)) * np.sqrt(scores.reshape(-1, 1))
    return problem.replace(couplings=tuple(tied), interactions=(Basis("score", np.ones(40), vectors),))


@pytest.mark.parametrize("seed", range(3))
def test_a_search_under_couplings_begins_where_interactions_are_left_out(seed: int) -> None:
    problem = coupled(seed)
    assert choose_solver(problem)[0] == "annealing"
    plain = solve(problem.replace(interactions=()))
    assert plain.status == "optimal"
    begun = problem.evaluate(plain.allocation.choice)
    found = solve(problem)
    assert found.objective <= begun.objective
    assert np.array_equal(found.allocation.choice, solve(problem).allocation.choice)
    given = solve(problem, start=plain)
    assert found.objective == pytest.approx(given.objective)
