"""Minorants are the loss less what they drop; every bound of every relaxation lies below the optimum."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import allocator.engine.quadratic_model as forms
from allocator.engine import native
from allocator.engine.quadratic_lift import Lift
from allocator.engine.quadratic_minorant import Minorant, minorant, part_of, plain, tangent
from allocator.engine.quadratic_model import Compact, compact
from allocator.engine.quadratic_relax import Relaxed
from allocator.engine.quadratic_tree import grow
from allocator.quadratic import Quadratic, quadratic
from allocator.testing.depth import times
from allocator.testing.interactions import drawn, every, indicator, keeps, least

needs_c = pytest.mark.skipif(native() is None, reason="the C extension was not built")


def anything(form: Compact, seed: int) -> Minorant:
    """A minorant with random N, ν and blocks: valid, if weak."""
    part = part_of(form, np.ones(form.choices, bool))
    rng = np.random.default_rng(seed)
    apart = rng.random(part.matrix.shape) * rng.choice([0.0, 0.3])
    blocks = rng.normal(size=part.matrix.shape)
    return minorant(part, apart + apart.T, rng.random(part.column.shape) * 0.2, blocks + blocks.T)


def lifted(form: Compact, steps: int) -> Minorant:
    lift = Lift(part_of(form, np.ones(form.choices, bool)), 1.0)
    lift.step(steps)
    return lift.minorant()


RELAXATIONS = {
    "plain": lambda form, seed: plain(part_of(form, np.ones(form.choices, bool))),
    "anything": anything,
    "lifted a little": lambda form, seed: lifted(form, 3),
    "lifted": lambda form, seed: lifted(form, 60),
}


@pytest.mark.parametrize("name", RELAXATIONS)
def test_a_minorant_and_what_it_drops_are_the_loss(name: str) -> None:
    for seed in range(times(15)):
        form = compact(quadratic(drawn(seed, rows=seed % 4)))
        found = RELAXATIONS[name](form, seed)
        part = found.part
        assert (found.apart >= 0).all()
        assert (found.spare >= 0).all()
        for rows in every(form.source.problem):
            taken = form.inside(rows)
            assert taken is not None
            x = indicator(form.choices, taken)
            room = part.limit - part.column @ x
            bent = found.factor.T @ x
            total = found.linear @ x + 0.5 * bent @ bent + 0.5 * x @ found.apart @ x + room @ (found.spare @ x)
            assert total == pytest.approx(form.total(taken), abs=1e-9 * (1 + np.abs(found.linear).sum()))
            if keeps(form.source.problem, rows):
                assert (room >= 0).all()


@needs_c
@pytest.mark.parametrize("name", RELAXATIONS)
def test_branch_and_bound_finds_the_optimum_and_closes(name: str) -> None:
    closed = 0
    for seed in range(times(40)):
        model = quadratic(drawn(seed, convex=seed % 3 == 0, rows=seed % 4))
        form = compact(model)
        best = math.ldexp(least(model), form.lift)
        found = RELAXATIONS[name](form, seed)
        for begun in (math.inf, best + 0.5, best):
            if not math.isfinite(begun) and not math.isfinite(best):
                continue
            worth = begun if math.isfinite(begun) else 1e3
            tree = grow(found, worth, -1e-11, unit=1.0, most=5000, seconds=20)
            assert tree is not None
            assert tree.closed
            assert tree.root <= best + 1e-9 or tree.root >= worth - 1e-9
            if begun > best:
                assert tree.worth == pytest.approx(min(best, worth), abs=1e-8)
            closed += 1
    assert closed > times(60)


@needs_c
def test_a_search_cut_short_bounds_from_below() -> None:
    checked = 0
    for seed in range(times(30)):
        model = quadratic(drawn(100 + seed, 5, rows=1))
        form = compact(model)
        best = math.ldexp(least(model), form.lift)
        if not math.isfinite(best):
            continue
        for most in (1, 2, 5):
            tree = grow(plain(part_of(form, np.ones(form.choices, bool))), best, -1e-11, unit=1.0, most=most, seconds=9)
            assert tree is not None
            assert min(tree.lowest, best) <= best + 1e-9
            checked += not tree.closed
    assert checked > 5


def optimum_of_relaxation(model: Quadratic) -> float:
    """½ Σ e c² and the values at their least over parts of choices within the rows, by a general solver."""
    import scipy.optimize

    problem, e, v = model.problem, model.eigenvalues, model.vectors
    own = model.linear.value - 0.5 * v**2 @ e
    spans = itertools.pairwise(problem.indptr.tolist())
    rows = [{"type": "eq", "fun": lambda x, s=s, t=t: x[s:t].sum() - 1} for s, t in spans]
    rows += [
        {"type": "ineq", "fun": lambda x, r=r: float(r.hi) - r.column @ x}
        for r in model.linear.rows
        if r.hi is not None
    ]
    found = scipy.optimize.minimize(
        lambda x: own @ x + 0.5 * e @ (v.T @ x) ** 2,
        1.0 / problem.sizes[problem.group_of],
        jac=lambda x: own + v @ (e * (v.T @ x)),
        bounds=[(0, 1)] * len(own),
        constraints=rows,
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    return float(found.fun)


@pytest.mark.parametrize("dense", [True, False])
def test_descent_reaches_the_convex_program(dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "DENSE", 10_000 if dense else 0)
    near = asked = 0
    for seed in range(times(12)):
        model = quadratic(drawn(seed, 6, convex=True, rows=1))
        best = least(model)
        if not math.isfinite(best):
            continue
        form = compact(model)
        found = form.down(Relaxed(form, 1.0).bound)
        assert found <= best + 1e-9
        reference = optimum_of_relaxation(model)
        assert found <= reference + 1e-6 * (1 + abs(reference))
        near += found >= reference - 0.02 * (abs(reference) + 1)
        asked += 1
    assert asked >= 8
    assert near >= 0.9 * asked


def test_tangents_are_orthonormal_and_keep_sums() -> None:
    start = np.array([0, 1, 4, 6])
    face = tangent(start)
    assert face.shape == (6, 3)
    assert face.T @ face == pytest.approx(np.eye(3))
    assert np.add.reduceat(face, start[:-1], axis=0) == pytest.approx(np.zeros((3, 3)), abs=1e-15)


def test_a_lift_goes_on_with_fewer_choices() -> None:
    form = compact(quadratic(drawn(4, 5)))
    part = part_of(form, np.ones(form.choices, bool))
    lift = Lift(part, 1.0)
    lift.step(20)
    alive = np.ones(form.choices, bool)
    wide = int(np.argmax(np.diff(form.start)))
    alive[form.start[wide]] = False
    fewer = lift.narrowed(part_of(form, alive), np.flatnonzero(alive))
    assert fewer.steps == 20
    fewer.step(5)
    assert fewer.parts.shape == (form.choices - 1,)
    assert np.add.reduceat(fewer.parts, fewer.part.start[:-1]) == pytest.approx(np.ones(5))
