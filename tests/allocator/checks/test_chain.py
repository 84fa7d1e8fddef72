"""Optima of chains are proved from the price alone, and nothing that is not an optimum is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from allocator import solve
from allocator.certificate import Core, Multipliers
from allocator.checks.chain import check_chain
from allocator.evaluation import Outcome, scale_of
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.quadratic import quadratic
from allocator.reduce import reduce
from allocator.solution import Answer
from allocator.statement import Basis, Budget, Pairs
from allocator.testing.depth import times
from allocator.verification import verify
from solvers.graph import Graph


def chained(seed: int, groups: int = 6, *, floats: bool = False, least: bool = False) -> Problem:
    """Chains in any order of the groups, some cut in two; a max or a min on integers or floats."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, groups)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    order = rng.permutation(groups)
    ends = [e for e in itertools.pairwise(order.tolist()) if rng.random() < 0.8]
    index = [(a, b) for g, h in ends for a in range(*indptr[g : g + 2]) for b in range(*indptr[h : h + 2])]
    pair = np.array(index, np.int64).reshape(-1, 2)
    cost = rng.uniform(-3, 9, indptr[-1]) if floats else rng.integers(0, 12, indptr[-1])
    scores = {"s": rng.normal(size=indptr[-1])}
    problem = Problem.from_arrays(scores, {"r": cost}, indptr=indptr)
    used = np.minimum.reduceat(cost, indptr[:-1]).sum(), np.maximum.reduceat(cost, indptr[:-1]).sum()
    limit = used[0] + rng.uniform(0.1, 0.7) * (used[1] - used[0])
    limit = float(limit) if floats else int(limit)
    row = Budget(resource="r", min=limit) if least else Budget(resource="r", max=limit)
    parts = (Pairs("s", pair, rng.normal(size=len(pair))),) if len(pair) else ()
    return problem.replace(budgets=(row,), interactions=parts)


def every(problem: Problem) -> list[Outcome]:
    outcomes = (problem.evaluate(np.array(p, np.int64)) for p in itertools.product(*map(range, problem.sizes)))
    return sorted((o for o in outcomes if o.feasible), key=lambda o: o.objective)


@pytest.mark.parametrize("floats", [False, True])
def test_optima_are_proved_and_nothing_else_is(floats: bool) -> None:
    """At any price the bound is true; the best allocation passes, the second best does not."""
    rng = np.random.default_rng(0)
    passed = 0
    for seed in range(times(60)):
        problem = chained(seed, floats=floats, least=seed % 3 == 0)
        outcomes = every(problem)
        model = quadratic(problem)
        tolerance = 1e-12 * scale_of(problem)
        answer = Graph().solve(problem, Limits())
        assert isinstance(answer.certificate, Core)
        sign = -1.0 if seed % 3 == 0 else 1.0
        for prices in (answer.certificate.values, (sign * rng.uniform(0, 2),), (0.0,), (-sign,)):
            found = check_chain(model, prices, outcomes[0].objective, tolerance)
            assert found is not None
            assert found.bound <= outcomes[0].objective
            assert found.proved
            if len(outcomes) > 1 and outcomes[1].objective > outcomes[0].objective + 1e-9:
                worse = check_chain(model, prices, outcomes[1].objective, tolerance)
                assert worse is not None
                assert not worse.proved
                assert worse.better == pytest.approx(outcomes[0].objective, abs=1e-12)
                passed += 1
    assert passed > 100


def test_the_bound_is_that_of_looking_at_everything() -> None:
    for seed in range(times(40)):
        problem = chained(seed)
        problem = problem.replace(budgets=(*problem.budgets, Budget(resource="r", min=problem.budgets[0].max)))
        model = quadratic(problem)
        rows = [problem.indptr[:-1] + np.array(p) for p in itertools.product(*map(range, problem.sizes.tolist()))]
        prices = (0.4, -0.1)

        totals = []
        for taken in rows:
            paid = [
                p * float(r.column[taken].sum() - (r.hi if p > 0 else r.lo))
                for r, p in zip(model.linear.rows, prices, strict=True)
            ]
            totals.append(model.total(taken) + sum(paid))
        found = check_chain(model, prices, 1e9, 1e-12)
        assert found is not None
        assert found.bound == pytest.approx(min(totals), abs=1e-11)


def test_groups_of_one_choice_and_costs_beyond_floats() -> None:
    huge = 2**58
    problem = Problem.from_arrays(
        {"s": np.array([[0.0, -2.0], [0.0, -1.0], [0.0, -4.0]])},
        {"r": np.array([[0, huge + 1], [0, huge], [0, 3 * huge]])},
    )
    pairs = Pairs("s", np.array([[1, 3], [1, 4], [3, 4]]), np.array([1.0, -1.0, -3.0]))
    allowed = np.array([True, True, True, True, True, False])
    problem = problem.replace(interactions=(pairs,), budgets=(Budget(resource="r", max=2 * huge),), allowed=allowed)
    found = solve(problem, "graph")
    assert found.status == "optimal"
    assert found.objective == every(problem)[0].objective == -4.0


def test_a_basis_between_neighbours_is_proved_too() -> None:
    vectors = np.random.default_rng(1).normal(size=(12, 2))
    vectors[6:] = 0.0
    problem = Problem.from_arrays({"s": vectors[:, 0].reshape(4, 3)}, {"r": np.arange(12).reshape(4, 3)})
    problem = problem.replace(
        interactions=(Basis("s", np.array([2.0, -1.0]), vectors),), budgets=(Budget(resource="r", max=21),)
    )
    found = solve(problem, "graph")
    assert found.status == "optimal"
    assert found.objective == pytest.approx(every(problem)[0].objective)


def test_what_is_no_chain_has_no_proof() -> None:
    """A star of three, and a ring."""
    rng = np.random.default_rng(2)
    for ends in ([(0, 1), (0, 2), (0, 3)], [(0, 1), (1, 2), (0, 2)]):
        problem = Problem.from_arrays({"s": rng.normal(size=(4, 2))}, {"r": rng.integers(0, 9, (4, 2))})
        index = np.array([(2 * g, 2 * h + 1) for g, h in ends])
        problem = problem.replace(interactions=(Pairs("s", index, np.ones(len(ends))),))
        assert check_chain(quadratic(problem), (), 0.0, 1e-12) is None


def test_a_false_claim_is_not_believed() -> None:
    problem = chained(3, 12)
    problem = problem.replace(budgets=())
    optimum = solve(problem, "graph")
    assert optimum.status == "optimal"
    choice = np.zeros(problem.group_count, np.int64)
    told = verify(problem, reduce(problem), Answer(choice=choice, claim="optimal", certificate=Core(())))
    assert told.status == "feasible"
    assert told.proven_bound == pytest.approx(optimum.objective, abs=1e-12)
    told = verify(problem, reduce(problem), Answer(choice=choice, certificate=Multipliers(())))
    assert (told.status, told.certificate) == ("feasible", {"kind": "multipliers", "checked": True})


def test_lists_that_grow_too_long_leave_the_bound() -> None:
    problem = chained(4, 14)
    model = quadratic(problem)
    optimum = solve(problem, "graph")
    assert optimum.objective is not None
    full = check_chain(model, (0.0,), optimum.objective, 1e-12 * scale_of(problem))
    few = check_chain(model, (0.0,), optimum.objective, 1e-12 * scale_of(problem), most_states=5)
    assert full is not None
    assert few is not None
    assert (full.proved, few.proved) == (True, False)
    assert few.bound == full.bound < optimum.objective
