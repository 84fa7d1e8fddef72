"""Sums kept while groups change are those of a fresh start, and mean what the core says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.problem import Problem
from allocator.testing.depth import times
from allocator.testing.random_problems import PARTS
from allocator.testing.reference import Reference
from allocator.testing.strategies import problem_rows
from solvers._ground import Ground
from solvers._moves import switch, warm_switch
from solvers._population import Population

ROWS = problem_rows((PARTS - {"same_choice"}) | {"pairs", "basis"})


def scale(reference: Reference) -> float:
    return 1e-9 * reference.scale + 1e3 * reference.noise


def populated(rows: dict[str, Any], seed: int, count: int = 4) -> tuple[Ground, Population] | None:
    """Random allocations of free choices; None where the problem has none."""
    ground = Ground.of(Problem.from_rows(rows))
    if ground is None:
        return None
    rng = np.random.default_rng(seed)
    places = rng.integers(ground.counts, size=(count, len(ground.counts)))
    return ground, Population(ground, ground.axis.order[ground.axis.starts + places])


def same_as_fresh(population: Population, reference: Reference) -> None:
    fresh = Population(population.ground, population.rows)
    slip = scale(reference)
    assert fresh.objective() == pytest.approx(population.objective(), rel=1e-9, abs=slip)
    assert fresh.tie() == pytest.approx(population.tie(), rel=1e-9, abs=slip)
    assert (fresh.sums.exact == population.sums.exact).all()
    for now, then in zip(fresh.sums.labels, population.sums.labels, strict=True):
        assert (now == then).all()
    for now, then in zip(fresh.sums.maxima, population.sums.maxima, strict=True):
        assert (now == then).all()


@settings(max_examples=times(60))
@given(ROWS, st.integers(0, 2**31))
def test_changes_add_up(rows: dict[str, Any], seed: int) -> None:
    made = populated(rows, seed)
    if made is None:
        return
    ground, population = made
    reference, rng = Reference(rows), np.random.default_rng(seed)
    for _ in range(10):
        members = np.flatnonzero(rng.random(len(population)) < 0.7)
        groups = rng.integers(len(ground.counts), size=len(members))
        places = rng.integers(ground.counts[groups])
        population.change(members, groups, ground.axis.order[ground.axis.starts[groups] + places])
        same_as_fresh(population, reference)
    for choice, objective in zip(population.choices(), population.objective(), strict=True):
        assert objective == pytest.approx(ground.problem.evaluate(choice).objective, rel=1e-9, abs=scale(reference))


@settings(max_examples=times(60))
@given(ROWS, st.integers(0, 2**31))
def test_candidates_are_what_a_change_would_make(rows: dict[str, Any], seed: int) -> None:
    made = populated(rows, seed)
    if made is None:
        return
    ground, population = made
    reference, rng = Reference(rows), np.random.default_rng(seed)
    members = np.arange(len(population))
    groups = rng.integers(len(ground.counts), size=len(population))
    found, excess, (objective, tie) = population.candidates(members, groups, with_objective=True)
    for k in range(found.shape[1]):
        changed = population.take(members)
        changed.change(members, groups, found[:, k])
        real = k < ground.counts[groups]
        slip = scale(reference)
        assert objective[:, k] == pytest.approx(changed.objective(), rel=1e-9, abs=slip)
        assert tie[:, k] == pytest.approx(changed.tie(), rel=1e-9, abs=slip)
        assert excess[real, k] == pytest.approx(changed.excess()[real], rel=1e-9, abs=1e-12)
        assert np.isinf(excess[~real, k]).all()
    assert (found[np.arange(len(members)), 0] == ground.axis.order[ground.axis.starts[groups]]).all()


@settings(max_examples=times(60))
@given(ROWS, st.integers(0, 2**31))
def test_no_excess_means_feasible(rows: dict[str, Any], seed: int) -> None:
    made = populated(rows, seed, 12)
    if made is None:
        return
    ground, population = made
    reference = Reference(rows)
    tight = any(reference.noise > 1e-13 * abs(v) for b in rows["budgets"] for v in (b.get("max"), b.get("min")) if v)
    for choice, excess in zip(population.choices(), population.excess(), strict=True):
        if not tight:
            assert (excess == 0) == ground.problem.evaluate(choice).feasible


@settings(max_examples=times(60))
@given(ROWS, st.integers(0, 2**31), st.booleans())
def test_switches_hold_and_are_undone(rows: dict[str, Any], seed: int, warm: bool) -> None:
    made = populated(rows, seed, 8)
    if made is None or not len(made[0].movable):
        return
    population = made[1]
    population = population.take(np.flatnonzero(population.excess() == 0))
    if not len(population):
        return
    everyone, rng = np.arange(len(population)), np.random.default_rng(seed)
    before, kept = population.rows.copy(), population.sums.take(everyone)
    if warm:
        drawn = warm_switch(population, np.full(len(population), 0.1), rng, 0.5)
    else:
        drawn = switch(population, everyone, rng, 0.5)
    assert (population.excess()[drawn.holds] == 0).all()
    assert ((population.rows != before).sum(axis=1) <= 2).all()
    same_as_fresh(population, Reference(rows))
    drawn.undo_rows(population, ~drawn.holds)
    population.sums.put_back(kept, ~drawn.holds)
    assert (population.rows[~drawn.holds] == before[~drawn.holds]).all()
    same_as_fresh(population, Reference(rows))
