"""Any point, any μ and any prices give a bound below every feasible allocation; nonsense gives none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from allocator.certificate_dual import Dual
from allocator.checks.dual import bent, dual_bound, narrowed
from allocator.problem import Problem
from allocator.quadratic import Quadratic, quadratic
from allocator.statement import Basis, Budget
from allocator.testing.depth import times
from allocator.testing.interactions import dense_total, drawn, every, keeps


def anything(model: Quadratic, rng: np.random.Generator) -> Dual:
    scale = 10.0 ** rng.uniform(-2, 1)
    point = rng.normal(size=len(model.eigenvalues)) * scale
    held = rng.normal(size=len(model.pair_value)) * scale if rng.random() < 0.7 else None
    return Dual(tuple((rng.normal(size=len(model.problem.budgets)) * scale).tolist()), point, held)


def test_any_dual_bounds_from_below() -> None:
    useful = 0
    for seed in range(times(120)):
        problem = drawn(seed, rows=seed % 4)
        model = quadratic(problem)
        rng = np.random.default_rng(seed)
        alive = np.ones(problem.choice_count, bool)
        if seed % 2:
            alive = rng.random(problem.choice_count) < 0.7
            alive[problem.indptr[:-1]] = True
        totals = [dense_total(model, r) for r in every(problem) if keeps(problem, r) and alive[r].all()]
        for _ in range(5):
            bound = dual_bound(model, anything(model, rng), alive)
            assert bound <= min(totals, default=math.inf)
            useful += bool(totals) and bound > min(totals) - 2
    assert useful > times(60)


def test_the_bent_function_is_below_the_loss_of_every_allocation() -> None:
    for seed in range(times(40)):
        problem = drawn(seed, rows=0)
        model = quadratic(problem)
        alive = np.ones(problem.choice_count, bool)
        found = bent(model, anything(model, np.random.default_rng(seed)), alive)
        assert found is not None
        for rows in every(problem):
            assert found.column[rows].sum() + found.constant <= dense_total(model, rows) + 1e-15


def test_what_can_be_below_the_target_stays_alive() -> None:
    gone = 0
    for seed in range(times(60)):
        problem = drawn(seed, rows=seed % 3)
        model = quadratic(problem)
        rng = np.random.default_rng(seed)
        totals = {tuple(r.tolist()): dense_total(model, r) for r in every(problem) if keeps(problem, r)}
        if not totals:
            continue
        target = float(np.quantile(list(totals.values()), 0.3))
        bound, alive = narrowed(model, anything(model, rng), np.ones(problem.choice_count, bool), target)
        assert bound <= min(totals.values())
        gone += int((~alive).sum())
        for rows, total in totals.items():
            assert total >= target or alive[list(rows)].all()
    assert gone


def test_the_point_of_the_allocation_is_exact_where_all_eigenvalues_are_positive() -> None:
    """One choice for each group: c is known, and y = e·c makes the bound the loss."""
    vectors = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.25]])
    e = np.array([2.0, 0.5])
    problem = Problem.from_arrays({"s": np.array([[1.0], [2.0], [3.0]])}, np.ones((3, 1), int))
    model = quadratic(problem.replace(interactions=(Basis("s", e, vectors),)))
    point = model.eigenvalues * (vectors.sum(axis=0))
    total = dense_total(model, np.arange(3))
    assert dual_bound(model, Dual((), point), np.ones(3, bool)) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e290])
def test_far_scales_bound_too(scale: float) -> None:
    base = drawn(5, convex=True, rows=1)
    part = base.interactions[0]
    assert isinstance(part, Basis)
    scaled = base.replace(
        scores={"s": base.scores["s"] * scale}, interactions=(Basis("s", part.eigenvalues * scale, part.vectors),)
    )
    model = quadratic(scaled)
    totals = [dense_total(model, r) for r in every(scaled) if keeps(scaled, r)]
    point = model.eigenvalues * model.vectors[scaled.indptr[:-1]].sum(axis=0)
    bound = dual_bound(model, Dual((0.0,), point), np.ones(scaled.choice_count, bool))
    assert math.isfinite(bound)
    assert min(totals) - 100 * scale <= bound <= min(totals)


def test_nonsense_bounds_nothing() -> None:
    problem = drawn(7, rows=1).replace(budgets=(Budget(resource="b", max=30),))
    model = quadratic(problem)
    alive = np.ones(problem.choice_count, bool)
    count = len(model.eigenvalues)
    nonsense = [
        Dual((0.0,), np.full(count, np.nan)),
        Dual((0.0,), np.full(count, 1e200)),
        Dual((0.0,), np.zeros(count + 1)),
        Dual((0.0,), np.zeros((count, 1))),
        Dual((0.0,), np.zeros(count), np.zeros(len(model.pair_value) + 1)),
        Dual((0.0,), np.zeros(count), np.full(len(model.pair_value), np.inf)),
    ]
    least = min(dense_total(model, r) for r in every(problem) if keeps(problem, r))
    for given in nonsense:
        assert dual_bound(model, given, alive) <= least
        bound, left = narrowed(model, given, alive, least)
        assert bound <= least
        assert left.all() or math.isfinite(bound)
    for prices in ((math.nan,), (math.inf,), (-5.0,), (1e308,), ()):
        assert dual_bound(model, Dual(prices, np.zeros(count)), alive) <= least
