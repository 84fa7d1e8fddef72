"""Local search with interactions: C is numpy step by step, no change of one or two groups is better where it ends."""

from __future__ import annotations

import itertools
from time import monotonic

import numpy as np
import pytest

import allocator.engine.quadratic_model as forms
from allocator.engine import native
from allocator.engine.quadratic_model import compact
from allocator.engine.quadratic_numpy import State
from allocator.engine.quadratic_search import annealed, searched
from allocator.quadratic import quadratic
from allocator.statement import IntArray
from allocator.testing.depth import times
from allocator.testing.interactions import dense_total, drawn, keeps

needs_c = pytest.mark.skipif(native() is None, reason="the C extension was not built")


HELD = {"double": (10_000, 10_000), "single": (0, 10_000), "vectors": (0, 0)}
DIGITS = {"double": 1e-12, "single": 1e-5, "vectors": 1e-12}


@pytest.fixture(params=HELD)
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """In which way W is held."""
    for name, limit in zip(("DENSE", "THIN"), HELD[request.param], strict=True):
        monkeypatch.setattr(forms, name, limit)
    return str(request.param)


def test_the_form_has_the_totals_and_fields_of_the_problem(held: str) -> None:
    for seed in range(20):
        model = quadratic(drawn(seed))
        form = compact(model)
        assert (form.matrix is not None) == (held != "vectors")
        assert form.matrix is None or (form.matrix.dtype == np.float64) == (held == "double")
        rng = np.random.default_rng(seed)
        taken = form.start[:-1] + rng.integers(0, np.diff(form.start))
        assert form.down(form.total(taken)) == pytest.approx(dense_total(model, form.row[taken]), abs=1e-12)
        field = np.ldexp(form.field(taken), -form.lift)
        assert field == pytest.approx(model.matrix[form.row][:, form.row[taken]].sum(axis=1), abs=DIGITS[held])


def test_forbidden_choices_are_left_out() -> None:
    problem = drawn(3)
    wide = int(np.argmax(problem.sizes))
    allowed = np.ones(problem.choice_count, bool)
    allowed[int(problem.indptr[wide])] = False
    form = compact(quadratic(problem.replace(allowed=allowed)))
    assert form.row.tolist() == np.flatnonzero(allowed).tolist()
    rows = problem.indptr[:-1].copy()
    assert form.inside(rows) is None
    rows[wide] += 1
    taken = form.inside(rows)
    assert taken is not None
    assert form.row[taken].tolist() == rows.tolist()


@needs_c
def test_c_and_numpy_take_the_same_steps(held: str) -> None:
    for seed in range(times(25)):
        form = compact(quadratic(drawn(seed, 5, rows=seed % 4)))
        rng = np.random.default_rng(seed)
        taken = form.start[:-1] + rng.integers(0, np.diff(form.start))
        found = [searched(form, taken, kicks=6, seed=seed, engine=engine) for engine in ("c", "numpy")]
        same(found)


@needs_c
def test_c_and_numpy_walk_the_same_way(held: str) -> None:
    for seed in range(times(25)):
        form = compact(quadratic(drawn(seed, 5, rows=seed % 4)))
        rng = np.random.default_rng(seed)
        taken = form.start[:-1] + rng.integers(0, np.diff(form.start))
        prices = rng.random(2 * len(form.lo))
        found = [
            annealed(form, taken, prices=prices, proposals=1500, heat=(0.5, 0.01), seed=seed, engine=engine)
            for engine in ("c", "numpy")
        ]
        same(found)


def same(found: list[IntArray | None]) -> None:
    """Equal allocations, or none."""
    one, other = found
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one.tolist() == other.tolist()


def test_no_feasible_change_is_better(held: str) -> None:
    together = 1 if held == "vectors" else 2
    reached = 0
    for seed in range(times(25)):
        problem = drawn(seed, 5, rows=2)
        model = quadratic(problem)
        form = compact(model)
        taken = searched(form, form.start[:-1].copy(), seed=1, kicks=2)
        if taken is None:
            continue
        reached += 1
        rows = form.row[taken]
        assert keeps(problem, rows)
        worth = dense_total(model, rows)
        for groups in itertools.combinations(range(5), together):
            for other in itertools.product(*(range(*problem.indptr[g : g + 2].tolist()) for g in groups)):
                moved = rows.copy()
                moved[list(groups)] = other
                assert not keeps(problem, moved) or dense_total(model, moved) >= worth - 1000 * DIGITS[held]
    assert reached > times(25) // 2


def test_annealing_never_loses_what_it_began_with() -> None:
    for seed in range(10):
        form = compact(quadratic(drawn(seed, 6, rows=1)))
        begun = searched(form, form.start[:-1].copy())
        if begun is None:
            continue
        ended = annealed(form, begun, prices=np.full(2 * len(form.lo), 0.1), proposals=300, heat=(5.0, 0.5), seed=seed)
        assert ended is not None
        assert form.total(ended) <= form.total(begun) + 1e-12


def test_no_time_is_no_harm() -> None:
    form = compact(quadratic(drawn(1, 6)))
    begun = searched(form, form.start[:-1].copy())
    assert begun is not None
    before = monotonic()
    assert searched(form, begun, kicks=10**9, seconds=0.05) is not None
    prices = np.full(2 * len(form.lo), 0.1)
    assert annealed(form, begun, prices=prices, proposals=10**9, heat=(1.0, 0.1), seconds=0.05) is not None
    assert monotonic() - before < 5


def test_random_numbers_are_those_of_splitmix64() -> None:
    form = compact(quadratic(drawn(1, 2)))
    state = State(form, form.start[:-1].copy(), 1234567, monotonic() + 1)
    state.draw()
    assert state.draw() == 3203168211198807973 // 2**11 * 2.0**-53  # second output published for seed 1234567
