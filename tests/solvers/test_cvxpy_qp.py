"""Convex forms agree with the objective on every allocation, are convex, and their tangents bound it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import solvers.cvxpy_qp as backend
from allocator.certificate import Multipliers
from allocator.checks.lagrangian import proves_infeasible
from allocator.errors import UnsupportedError
from allocator.isolation import solve_isolated
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.quadratic import Quadratic, quadratic
from allocator.solution import Answer
from allocator.statement import Basis, Budget, FloatArray, Pairs
from allocator.testing.depth import times
from solvers._convexify import Convex, is_convex, plain, shifted, split
from solvers.cvxpy_qp import CvxpyQp


def drawn(seed: int, kind: str, groups: int = 4, choices: int = 3) -> Problem:
    """Interactions by a basis of signs + or ±, by pairs, or both; ragged groups."""
    rng = np.random.default_rng(seed)
    sizes = np.minimum(rng.integers(1, choices + 2, groups), choices)
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    n = int(indptr[-1])
    group = np.repeat(np.arange(groups), sizes)
    parts: list[Basis | Pairs] = []
    if kind in ("psd", "signed", "both"):
        e = rng.random(4) if kind == "psd" else rng.normal(size=4)
        parts.append(Basis("s", e, rng.normal(size=(n, 4)) * (rng.random((n, 1)) < 0.8)))
    if kind in ("pairs", "both"):
        a, b = np.nonzero(np.triu(group[:, None] != group[None, :]) & (rng.random((n, n)) < 0.5))
        parts.append(Pairs("s", np.stack([a, b], axis=1), rng.normal(size=len(a))))
    costs = rng.integers(1, 20, n)
    least = np.minimum.reduceat(costs, indptr[:-1]).sum()
    problem = Problem.from_arrays({"s": rng.normal(size=n)}, {"b": costs}, indptr=indptr)
    row = Budget(resource="b", max=int(least + 0.4 * (np.maximum.reduceat(costs, indptr[:-1]).sum() - least)))
    return problem.replace(interactions=tuple(parts), budgets=(row,))


def allocations(problem: Problem) -> list[np.ndarray]:
    return [np.array(p) for p in itertools.product(*map(range, problem.sizes.tolist()))]


def vector(problem: Problem, places: np.ndarray) -> FloatArray:
    x = np.zeros(problem.choice_count)
    x[problem.indptr[:-1] + places] = 1.0
    return x


def forms(model: Quadratic) -> list[tuple[Convex, bool]]:
    """Each form, and whether it is exact."""
    found = [(shifted(model), True), (split(model), not (model.eigenvalues < 0).any())]
    return found + ([(plain(model), True)] if is_convex(model) else [])


@pytest.mark.parametrize("kind", ["psd", "signed", "pairs", "both"])
def test_forms_say_what_the_problem_says(kind: str) -> None:
    """On every allocation; where a secant stands in, no more than that."""
    made = 0
    for seed in range(times(15)):
        problem = drawn(seed, kind)
        model = quadratic(problem)
        for form, exact in forms(model):
            made += 1
            for places in allocations(problem):
                x = vector(problem, places)
                bent = form.factor @ x
                value = form.linear @ x + 0.5 * bent @ bent + form.constant
                true = problem.evaluate(places).objective
                assert value <= true + form.slip + 1e-12
                if exact:
                    assert value == pytest.approx(true, abs=1e-10)
            assert form.slip < 1e-10
    assert made >= times(15) * (3 if kind == "psd" else 2)


@pytest.mark.parametrize("kind", ["psd", "signed", "pairs", "both"])
def test_the_tangent_at_any_point_bounds_every_allocation(kind: str) -> None:
    rng = np.random.default_rng(1)
    for seed in range(times(15)):
        problem = drawn(100 + seed, kind)
        for form, _ in forms(quadratic(problem)):
            for _ in range(5):
                gradient, constant = form.gradient(rng.normal(size=problem.choice_count))
                for places in allocations(problem):
                    assert gradient @ vector(problem, places) + constant <= problem.evaluate(places).objective + 1e-12


def test_only_a_basis_without_negative_eigenvalues_is_convex_as_it_stands() -> None:
    assert [is_convex(quadratic(drawn(0, kind))) for kind in ("psd", "signed", "pairs", "both", "none")] == [
        True, False, False, False, True,
    ]  # fmt: skip
    strict = CvxpyQp(convexify=False)
    strict.solve(drawn(0, "psd"), Limits())
    with pytest.raises(UnsupportedError, match=r"these have pairs.*cvxpy_sdp"):
        strict.solve(drawn(0, "pairs"), Limits())
    with pytest.raises(UnsupportedError, match="negative eigenvalues"):
        strict.solve(drawn(0, "signed"), Limits())


def ask(problem: Problem) -> Answer:
    return solve_isolated(CvxpyQp(kicks=3), problem, Limits())


def test_the_bound_is_near_where_the_interactions_are_convex() -> None:
    """Errors of layers that all point one way: what the relaxation is made for."""
    rng = np.random.default_rng(2)
    groups, bits = 20, np.arange(2, 7)
    amplitude = np.exp(rng.normal(0, 0.5, (groups, 1))) * 2.0**-bits
    vectors = (amplitude[:, :, None] * (1 + 0.2 * rng.normal(size=(groups, 5, 6)))).reshape(-1, 6)
    own = 0.5 * (vectors**2).sum(axis=1)
    costs = rng.integers(1000, 9000, (groups, 1)) * bits
    problem = Problem.from_arrays({"s": own.reshape(groups, 5)}, {"b": costs}, budgets={"b": int(costs.mean() * 18)})
    problem = problem.replace(interactions=(Basis("s", np.ones(6), vectors),))
    answer = ask(problem)
    assert answer.choice is not None
    assert answer.claimed_bound is not None
    found = problem.evaluate(answer.choice)
    assert found.feasible
    assert 0 <= found.objective - answer.claimed_bound <= 0.05 * found.objective
    assert answer.statistics["form"] == "plain"


def test_beyond_the_size_for_shifts_the_problem_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "MOST_SHIFTED", 5)
    for seed in range(times(10)):
        problem = drawn(seed, "both")
        answer = CvxpyQp(kicks=2).solve(problem, Limits())
        best = min(o.objective for o in map(problem.evaluate, allocations(problem)) if o.feasible)
        assert answer.claimed_bound is not None
        assert answer.claimed_bound <= best + 1e-12
        assert answer.statistics["form"] == "split into squares"


def test_rows_that_exclude_each_other_are_proved_infeasible() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(1, 100, (12, 3))
    problem = Problem.from_arrays({"s": rng.random((12, 3))}, {"a": first, "b": 100 - first})
    pairs = Pairs("s", np.array([[0, 4]]), np.array([-1.0]))
    rows = (Budget(resource="a", max=550), Budget(resource="b", max=550))
    problem = problem.replace(budgets=rows, interactions=(pairs,))
    answer = ask(problem)
    assert answer.claim == "infeasible"
    assert isinstance(answer.certificate, Multipliers)
    assert proves_infeasible(linearise(problem, with_interactions=True), answer.certificate.values)
