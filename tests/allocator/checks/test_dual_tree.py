"""A dual tree proves optima, and nothing that was tampered with proves what is false."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from allocator.certificate_dual import DualTree, Stage
from allocator.checks.dual_stage import base_of
from allocator.checks.dual_tree import check_dual_tree
from allocator.engine import native
from allocator.engine.quadratic_minorant import part_of, plain
from allocator.engine.quadratic_model import compact
from allocator.engine.quadratic_tree import grow, stage_of
from allocator.evaluation import scale_of
from allocator.problem import Problem
from allocator.quadratic import Quadratic, quadratic
from allocator.statement import FloatArray, IntArray
from allocator.testing.depth import times
from allocator.testing.interactions import dense_total, drawn, every, indicator, keeps

pytestmark = pytest.mark.skipif(native() is None, reason="the C extension was not built")


def proved(seed: int, groups: int = 5) -> tuple[Quadratic, DualTree, float, float] | None:
    """A problem, a tree for it, its optimum and the next best objective; None where nothing is feasible."""
    problem = drawn(seed, groups, rows=seed % 4, convex=seed % 3 == 0)
    model = quadratic(problem)
    values = sorted(_objective(problem, r) for r in every(problem) if keeps(problem, r))
    if len(values) < 2 or values[1] < values[0] + 1e-6:
        return None
    form = compact(model)
    found = plain(part_of(form, np.ones(form.choices, bool)))
    best = math.ldexp(model.linear.total(values[0]), form.lift)
    tree = grow(found, best, -found.rounding, unit=1.0, most=10_000, seconds=20)
    assert tree is not None
    assert tree.closed
    return model, DualTree((stage_of(tree),)), values[0], values[1]


def _objective(problem: Problem, rows: IntArray) -> float:
    return problem.evaluate(rows - problem.indptr[:-1]).objective


def test_optima_are_proved_and_what_is_better_is_not() -> None:
    asked = 0
    for seed in range(times(60)):
        if (case := proved(seed)) is None:
            continue
        model, tree, best, second = case
        tolerance = 1e-12 * scale_of(model.problem)
        assert check_dual_tree(model, tree, best, tolerance).proved
        false = check_dual_tree(model, tree, second, tolerance)
        assert not false.proved
        assert model.linear.objective(false.lowest) <= best + tolerance
        asked += 1
    assert asked > times(25)


def tampered(stage: Stage, rng: np.random.Generator) -> Stage:
    """One thing in it changed."""
    kind = rng.integers(12)
    count, m = stage.point.shape
    which = int(rng.integers(count))

    def noisy(array: FloatArray) -> FloatArray:
        return array + rng.normal(size=array.shape) * 10.0 ** rng.uniform(-3, 1)

    if kind == 0:
        return dataclasses.replace(stage, factor=noisy(stage.factor))
    if kind == 1:
        return dataclasses.replace(stage, face=noisy(stage.face))
    if kind == 2:
        return dataclasses.replace(stage, spare=noisy(stage.spare))
    if kind == 3:
        return dataclasses.replace(stage, point=noisy(stage.point))
    if kind == 4:
        return dataclasses.replace(stage, price=noisy(stage.price) * 10)
    if kind == 5:
        return dataclasses.replace(stage, unit=stage.unit * 10.0 ** rng.uniform(-3, 3))
    if kind == 6:
        return dataclasses.replace(stage, sign=-stage.sign)
    if kind == 7:
        return dataclasses.replace(stage, lift=stage.lift + int(rng.integers(-3, 4)))
    if kind == 8:
        branch = stage.branch.copy()
        branch[which] = rng.integers(-1, m)
        return dataclasses.replace(stage, branch=branch)
    if kind == 9:
        parent = stage.parent.copy()
        parent[which] = rng.integers(-1, count)
        return dataclasses.replace(stage, parent=parent)
    kept = np.sort(rng.choice(count, max(count - 1, 1), replace=False))
    if kind == 10:  # a node is gone, those below it hang where they can
        parent = np.minimum(np.searchsorted(kept, stage.parent[kept]), np.arange(len(kept)) - 1)
        parts = {name: getattr(stage, name)[kept] for name in ("branch", "point", "price")}
        parts["branch"] = np.where(np.arange(len(kept)) == 0, -1, parts["branch"])
        return dataclasses.replace(stage, parent=parent, **parts)
    gone = int(rng.integers(m))  # a choice is left out
    rows = np.delete(stage.rows, gone)
    return dataclasses.replace(
        stage,
        rows=rows,
        factor=np.delete(stage.factor, gone, axis=0),
        face=np.delete(stage.face, gone, axis=1),
        spare=np.delete(stage.spare, gone, axis=1),
        point=np.delete(stage.point, gone, axis=1),
        branch=np.where(stage.branch > gone, stage.branch - 1, np.where(stage.branch == gone, -1, stage.branch)),
    )


def test_tampering_never_proves_what_is_false() -> None:
    """The second best is not optimal, whatever the certificate says; its bound stays below the optimum."""
    refused = asked = 0
    for seed in range(times(70)):
        if (case := proved(seed)) is None:
            continue
        model, tree, best, second = case
        rng = np.random.default_rng(seed)
        tolerance = 1e-12 * scale_of(model.problem)
        for _ in range(12):
            changed = DualTree((tampered(tree.stages[0], rng),))
            found = check_dual_tree(model, changed, second, tolerance)
            assert not found.proved
            assert model.linear.objective(found.lowest) <= best + tolerance
            refused += not check_dual_tree(model, changed, best, tolerance).proved
            asked += 1
    assert refused > 0.3 * asked


def test_the_stage_is_the_loss_less_what_it_drops() -> None:
    for seed in range(times(25)):
        if (case := proved(seed, 4)) is None:
            continue
        model, tree, _, _ = case
        stage = tree.stages[0]
        rng = np.random.default_rng(seed)
        for _ in range(3):
            base = base_of(model, stage)
            assert base is not None
            for rows in every(model.problem):
                x = indicator(len(stage.rows), np.searchsorted(stage.rows, rows))
                bent = base.factor.T @ x
                total = base.linear @ x + 0.5 * bent @ bent + 0.5 * x @ base.apart @ x
                total += (base.limit - base.column @ x) @ (base.spare @ x)
                assert total <= math.ldexp(dense_total(model, rows), stage.lift) + 1e-14
            stage = dataclasses.replace(
                stage,
                factor=stage.factor + rng.normal(size=stage.factor.shape) * 0.2,
                face=stage.face + rng.normal(size=stage.face.shape) * 0.2,
                spare=stage.spare + rng.random(stage.spare.shape) * 0.2,
            )


def test_stages_follow_each_other_and_a_level_is_a_bound() -> None:
    checked = 0
    for seed in range(times(40)):
        if (case := proved(seed)) is None:
            continue
        model, tree, best, second = case
        tolerance = 1e-12 * scale_of(model.problem)
        stage = tree.stages[0]
        root = dataclasses.replace(
            stage, parent=stage.parent[:1], branch=stage.branch[:1], point=stage.point[:1], price=stage.price[:1]
        )
        assert check_dual_tree(model, DualTree((root, stage)), best, tolerance).proved
        level = best - 0.1
        found = check_dual_tree(model, dataclasses.replace(tree, level=level), second, tolerance)
        assert found.proved
        assert model.linear.objective(found.lowest) == pytest.approx(level)
        above = check_dual_tree(model, dataclasses.replace(tree, level=0.5 * (best + second)), second, tolerance)
        assert not above.proved
        checked += 1
    assert checked > times(15)


def test_what_cannot_be_read_is_refused() -> None:
    case = next(c for c in map(proved, range(50)) if c is not None and len(c[1].stages[0].side))
    model, tree, best, _ = case
    stage = tree.stages[0]
    broken = [
        dataclasses.replace(stage, rows=stage.rows[::-1].copy()),
        dataclasses.replace(stage, rows=stage.rows + model.problem.choice_count),
        dataclasses.replace(stage, factor=np.full_like(stage.factor, np.nan)),
        dataclasses.replace(stage, factor=stage.factor[:-1]),
        dataclasses.replace(stage, face=stage.face[:, :-1]),
        dataclasses.replace(stage, spare=np.full_like(stage.spare, np.inf)),
        dataclasses.replace(stage, side=stage.side + 5),
        dataclasses.replace(stage, unit=stage.unit * 0),
        dataclasses.replace(stage, sign=stage.sign * 2),
        dataclasses.replace(stage, point=stage.point[:, :-1]),
        dataclasses.replace(stage, price=stage.price[:, :0]),
        dataclasses.replace(stage, branch=stage.branch[:-1]),
        dataclasses.replace(stage, parent=stage.parent * 0),
        dataclasses.replace(stage, parent=stage.parent + len(stage.parent)),
    ]
    for changed in broken:
        assert not check_dual_tree(model, DualTree((changed,)), best, 1e-12).proved
    assert not check_dual_tree(model, DualTree(()), best, 1e-12).proved
    for name, wrong in (("rows", stage.rows[None]), ("point", stage.point[0]), ("branch", stage.branch * 0.5)):
        with pytest.raises((TypeError, ValueError)):
            DualTree((dataclasses.replace(stage, **{name: wrong}),)).tidy()
    assert check_dual_tree(model, tree.tidy(), best, 1e-9).proved
