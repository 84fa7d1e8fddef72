"""The linear relaxation: a bound that holds, prices that prove it, and an allocation not far from it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from allocator.certificate import Multipliers
from allocator.checks.lagrangian import lower_bound, proves_infeasible
from allocator.errors import UnsupportedError
from allocator.evaluation import Outcome, scale_of
from allocator.isolation import solve_isolated
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.reduce import reduce
from allocator.solution import Answer
from allocator.statement import Budget, Pairs
from allocator.testing.claims import tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, random_rows
from allocator.testing.reference import Reference
from solvers.cvxpy_relaxation import CvxpyRelaxation


def ask(problem: Problem) -> Answer:
    return solve_isolated(CvxpyRelaxation(), problem, Limits())


def outcome(problem: Problem, answer: Answer) -> Outcome:
    assert answer.choice is not None
    found = problem.evaluate(answer.choice)
    assert found.violations == ()
    return found


def prices(answer: Answer) -> tuple[float, ...]:
    assert isinstance(answer.certificate, Multipliers)
    return answer.certificate.values


def best_of(problem: Problem) -> Outcome | None:
    """By looking at everything."""
    every = itertools.product(*map(range, problem.sizes.tolist()))
    feasible = (o for o in (problem.evaluate(np.array(places, np.int64)) for places in every) if o.feasible)
    return min(feasible, key=lambda o: o.objective, default=None)


def larger(seed: int, groups: int) -> Problem:
    """Two-bit to seven-bit choices as in practice, too many to enumerate."""
    rng = np.random.default_rng(seed)
    bits = np.arange(2, 8)
    loss = np.exp(rng.normal(0, 1.5, (groups, 1))) * 4.0**-bits * np.exp(rng.normal(0, 0.2, (groups, 6)))
    costs = np.exp(rng.normal(12, 1, groups)).astype(np.int64)[:, None] * bits // 8
    budget = int(costs[:, 0].sum() + 0.3 * (costs[:, -1] - costs[:, 0]).sum())
    return Problem.from_arrays({"s": loss}, {"bytes": costs}, budgets={"bytes": budget})


def relaxed(first: int) -> Iterator[tuple[int, Problem, Outcome | None, float, Answer]]:
    for seed in range(first, first + times(120)):
        rows = random_rows(seed, LINEAR | {"loss_budgets", "pnorm_loss"}, most_allocations=150)
        problem = reduce(Problem.from_rows(rows)).problem
        if problem is None:
            continue
        try:
            answer = ask(problem)
        except UnsupportedError:  # a p-norm in a mixture
            continue
        yield seed, problem, best_of(problem), tolerance(Reference(rows)), answer


def test_the_relaxation_bounds_and_rounds() -> None:
    proved = missed = compared = 0
    gaps = []
    for seed, problem, best, slip, answer in relaxed(30_000):
        if best is None:
            assert answer.choice is None, seed
            if answer.claim == "infeasible" and answer.certificate is not None:
                assert proves_infeasible(linearise(problem), prices(answer)), seed
            continue
        compared += 1
        assert answer.claim != "infeasible", seed
        if answer.claimed_bound is not None:
            assert answer.claimed_bound <= best.objective + slip, seed
            linear = linearise(problem)
            checked = linear.objective(lower_bound(linear, prices(answer)))
            assert checked == pytest.approx(answer.claimed_bound, rel=1e-6, abs=1e-6 * scale_of(problem)), seed
        if answer.choice is None:
            missed += 1
            continue
        found = outcome(problem, answer)
        gaps.append((found.objective - best.objective) / max(scale_of(problem), 1e-300))
        if answer.claim == "optimal":
            assert found.objective <= best.objective + slip, seed
            proved += 1
    assert missed <= compared // 25
    assert proved >= compared // 3
    assert np.mean(gaps) < 0.01


def test_the_relaxation_is_close_on_problems_of_real_size() -> None:
    problem = larger(8, groups=100)
    rows = (*problem.budgets, Budget(score="s", max=1e3), Budget(resource="bytes", min=1))
    answer = ask(problem.replace(budgets=rows))
    found = outcome(problem, answer).objective
    assert answer.claimed_bound is not None
    assert found - answer.claimed_bound <= 0.02 * found
    price, *idle = prices(answer)
    assert price > 0
    assert idle == pytest.approx([0.0, 0.0], abs=1e-6 * price)


def test_rows_that_exclude_each_other_are_proved_infeasible() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(1, 100, (20, 4))
    problem = Problem.from_arrays({"s": rng.random((20, 4))}, {"a": first, "b": 100 - first})
    rows = (Budget(resource="a", max=900), Budget(resource="b", max=900))
    answer = ask(problem.replace(budgets=rows))
    assert answer.claim == "infeasible"
    assert proves_infeasible(linearise(problem.replace(budgets=rows)), prices(answer))


def test_the_relaxation_refuses_interactions() -> None:
    pairs = Pairs("s", np.array([[0, 6]]), np.array([-1.0]))
    with pytest.raises(UnsupportedError, match="interactions"):
        ask(larger(9, groups=5).replace(interactions=(pairs,)))
