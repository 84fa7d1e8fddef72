"""The lifted program: its forms, the bound that any multipliers give, and how tight it is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from allocator.errors import UnsupportedError
from allocator.isolation import solve_isolated
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.quadratic import quadratic
from allocator.statement import Basis, Budget, Pairs
from allocator.testing.depth import times
from solvers._lift import Lift, lift
from solvers.cvxpy_qp import CvxpyQp
from solvers.cvxpy_sdp import CvxpySdp


def indefinite(seed: int, groups: int = 4, choices: int = 3, rows: int = 2) -> Problem:
    """A basis of signs ± and pairs, under a max and, with two rows, a float row with both sides."""
    rng = np.random.default_rng(seed)
    n = groups * choices
    group = np.arange(n) // choices
    a, b = np.nonzero(np.triu(group[:, None] != group[None, :]) & (rng.random((n, n)) < 0.3))
    parts = (
        Basis("s", rng.normal(size=3), rng.normal(size=(n, 3))),
        Pairs("s", np.stack([a, b], axis=1), rng.normal(size=len(a))),
    )
    costs, ms = rng.integers(1, 20, (groups, choices)), rng.random((groups, choices))
    limits = (
        Budget(resource="b", max=int(costs.min(axis=1).sum() + 0.5 * np.ptp(costs, axis=1).sum())),
        Budget(resource="ms", max=float(ms.mean() * groups * 1.2), min=0.1),
    )
    problem = Problem.from_arrays({"s": rng.normal(size=(groups, choices))}, {"b": costs, "ms": ms})
    return problem.replace(interactions=parts, budgets=limits[:rows])


def feasible(problem: Problem) -> list[np.ndarray]:
    every = (np.array(p) for p in itertools.product(*map(range, problem.sizes.tolist())))
    return [p for p in every if problem.evaluate(p).feasible]


def lifted_vector(problem: Problem, lifted: Lift, places: np.ndarray) -> np.ndarray:
    """u, from the choices that are not last in their groups; and check that the basis gives all of them back."""
    taken = set((problem.indptr[:-1] + places).tolist())
    x = np.array([1.0, *(float(r in taken) for r in lifted.free.tolist())])
    inside = [0, *(i for i, row in enumerate(lifted.basis) if i and row[0] == 0)]
    u = x[inside]
    assert np.array_equal(lifted.basis @ u, x)
    return u


def test_the_forms_are_what_they_are_called() -> None:
    for seed in range(times(8)):
        problem = indefinite(seed)
        model = quadratic(problem)
        lifted = lift(model)
        for places in feasible(problem):
            u = lifted_vector(problem, lifted, places)
            assert u @ lifted.form @ u * lifted.unit == pytest.approx(problem.evaluate(places).objective, abs=1e-10)
            assert np.abs(np.einsum("i,kij,j->k", u, lifted.zero, u)).max() == 0.0
            assert np.einsum("i,kij,j->k", u, lifted.positive, u).min() >= -1e-15  # rounding of this sum
            assert u @ u <= 1 + problem.group_count


def test_any_multipliers_bound_the_optimum() -> None:
    """Random ones, of either sign and any size: the bound is useless, and holds."""
    rng = np.random.default_rng(0)
    finite = 0
    for seed in range(times(12)):
        problem = indefinite(seed)
        lifted = lift(quadratic(problem))
        best = min((problem.evaluate(p).objective for p in feasible(problem)), default=np.inf)
        for _ in range(25):
            size = 10.0 ** rng.integers(-4, 3)
            zero, positive = (size * rng.normal(size=len(f)) for f in (lifted.zero, lifted.positive))
            bound = lifted.bound(float(size * rng.normal()), zero, positive)
            assert bound <= best
            finite += np.isfinite(bound)
        assert lifted.bound(np.nan, zero, positive) == -np.inf
        assert lifted.bound(0.0, zero, np.full(len(lifted.positive), np.inf)) == -np.inf
    assert finite == times(12) * 25


def test_it_is_much_tighter_than_the_convex_program() -> None:
    lifted, convex = [], []
    for seed in range(times(10)):
        problem = indefinite(seed, rows=1)
        best = min(problem.evaluate(p).objective for p in feasible(problem))
        spread = max(problem.evaluate(p).objective for p in feasible(problem)) - best
        for solver, gaps in ((CvxpySdp(kicks=3), lifted), (CvxpyQp(kicks=3), convex)):
            answer = solve_isolated(solver, problem, Limits())
            assert answer.claimed_bound is not None
            assert answer.claimed_bound <= best + 1e-12
            gaps.append((best - answer.claimed_bound) / spread)
            assert answer.choice is not None
    assert np.mean(lifted) < 0.04
    assert np.mean(convex) > 3 * np.mean(lifted)


def test_too_many_choices_are_refused_by_number() -> None:
    problem = indefinite(0, groups=21)
    with pytest.raises(UnsupportedError, match=r"63 choices to 2016 products, more than most=60.*cvxpy_qp"):
        CvxpySdp().solve(problem, Limits())
    with pytest.raises(UnsupportedError, match="most=5"):
        CvxpySdp(most=5).solve(indefinite(0), Limits())


def test_infeasible_rows_give_no_allocation_and_no_false_word() -> None:
    problem = indefinite(1)
    single = CvxpySdp().solve(problem.with_budget("b", max=1), Limits())
    assert (single.choice, single.claim) == (None, "infeasible")
    costs = problem.costs["b"]
    both = problem.replace(costs={**problem.costs, "c": 20 - costs})
    limits = (Budget(resource="b", max=39), Budget(resource="c", max=39))
    answer = CvxpySdp().solve(both.replace(budgets=limits), Limits())
    assert (answer.choice, answer.claim) == (None, "infeasible")
