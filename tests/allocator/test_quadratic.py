"""The quadratic view agrees with what an allocation is worth, dense or not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import allocator.quadratic as view
from allocator.errors import UnsupportedError
from allocator.problem import Problem
from allocator.quadratic import quadratic
from allocator.reduce import reduce
from allocator.statement import Basis, Budget, Pairs
from allocator.testing.depth import times
from allocator.testing.random_problems import DETAILS, LINEAR, random_rows


@pytest.mark.parametrize("dense", [4000, 0])
def test_total_and_field_say_what_the_problem_says(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "DENSE", dense)
    with_interactions = 0
    for seed in range(times(150)):
        problem = reduce(Problem.from_rows(random_rows(seed, LINEAR | DETAILS | {"pairs", "basis"}))).problem
        if problem is None or problem.loss.aggregate != "sum":
            continue
        model = quadratic(problem)
        with_interactions += bool(len(model.pair) or len(model.eigenvalues))
        for places in itertools.islice(itertools.product(*map(range, problem.sizes.tolist())), 0, None, 7):
            taken = problem.indptr[:-1] + np.array(places, np.int64)
            if not model.linear.free[taken].all():
                continue
            true = problem.evaluate(np.array(places, np.int64)).objective
            slip = 1e-12 * (model.size + abs(model.linear.constant) + abs(true))
            assert model.linear.objective(model.total(taken)) == pytest.approx(true, abs=slip, rel=0)
            rows = model.between(taken)
            assert rows.sum(axis=0) == pytest.approx(model.field(taken), abs=slip)
    assert with_interactions > times(150) // 4


def test_pairs_of_a_basis_are_its_matrix_and_many_are_refused() -> None:
    rng = np.random.default_rng(0)
    basis = Basis("s", np.array([1.0, -2.0]), rng.normal(size=(6, 2)))
    problem = Problem.from_arrays({"s": rng.random((3, 2))}, {"c": rng.random((3, 2))}).replace(interactions=(basis,))
    model = quadratic(problem)
    pair, value = model.as_pairs(15)
    table = np.zeros((6, 6))
    table[pair[:, 0], pair[:, 1]] = value
    assert np.allclose(table + table.T, model.matrix)
    assert (np.diag(model.matrix) == 0).all()
    assert model.matrix[0, 1] == 0  # one group
    with pytest.raises(UnsupportedError, match="more than 14"):
        model.as_pairs(14)


def test_a_limit_on_a_loss_with_interactions_is_refused() -> None:
    problem = Problem.from_arrays({"s": np.zeros((2, 2))}, {"c": np.zeros((2, 2))})
    problem = problem.replace(interactions=(Pairs("s", np.array([[0, 2]]), np.array([1.0])),))
    with pytest.raises(UnsupportedError, match="limit on a loss with interactions"):
        quadratic(problem.replace(budgets=(Budget(loss=True, max=1.0),)))
