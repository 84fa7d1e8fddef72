"""Every single change against evaluating the changed allocation itself."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from allocator.changes import Changes
from allocator.coupling_changes import state
from allocator.problem import Problem
from allocator.testing.depth import times
from allocator.testing.random_problems import random_rows
from allocator.testing.reference import Reference


def drawn(seed: int) -> tuple[Reference, tuple[int, ...]]:
    """A problem and an allocation of it, feasible where one is at hand."""
    reference = Reference(random_rows(seed))
    rng = Random(seed)
    everything = list(reference.allocations())
    kept = [places for places in everything if not reference.violations(places)]
    return reference, rng.choice(kept if kept and rng.random() < 0.8 else everything)


def every_change(reference: Reference, places: tuple[int, ...]):
    for g, group in enumerate(reference.groups):
        for k in range(len(group["choices"])):
            yield (*places[:g], k, *places[g + 1 :])


def test_changes_are_those_of_the_reference() -> None:
    feasible = infeasible = 0
    for seed in range(times(400)):
        reference, places = drawn(seed)
        problem = Problem.from_rows(reference.rows)
        changes = Changes(problem.evaluate(np.array(places)))
        now = reference.objective(places)
        size = reference.scale + reference.noise
        for row, changed in enumerate(every_change(reference, places)):
            words = f"random_rows({seed}), {places} -> {changed}"
            assert changes.objective[row] == pytest.approx(reference.objective(changed) - now, abs=1e-12 * size), words
            assert changes.loss[row] == pytest.approx(
                reference.loss(changed) - reference.loss(places), abs=1e-12 * (reference._loss_scale() + 1e-9 * size)
            ), words
            broken = [v for v in reference.violations(changed) if "forbidden" not in v and "pin" not in v]
            kept = bool(changes.within[row] and changes.coupled[row])
            assert kept == (not broken), f"{words}: {broken}"
            feasible += kept
            infeasible += not kept
    assert min(feasible, infeasible) > times(500)


def test_sums_that_end_on_the_limit_are_decided_as_if_added_without_rounding() -> None:
    rng = np.random.default_rng(0)
    for _ in range(times(50)):
        scores, costs = rng.random((9, 4)), rng.random((9, 4)) * 10.0 ** rng.integers(-9, 9, (9, 1))
        costs -= costs.mean()  # so that sums cancel, and their limits are relaxed by next to nothing
        problem = Problem.from_arrays(scores, costs, budgets={"cost": 1})
        choice = rng.integers(0, 4, 9)
        other = choice.copy()
        other[3] = (choice[3] + 1) % 4
        limit = problem.evaluate(other).used[0]
        row = int(problem.indptr[3] + other[3])
        for nudged, holds in ((limit, True), (np.nextafter(limit * (1 - np.sign(limit) * 2e-12), -np.inf), False)):
            asked = problem.with_budget("cost", float(nudged))
            assert asked.evaluate(other).feasible is holds
            assert bool(Changes(asked.evaluate(choice)).within[row]) is holds


def test_state_of_a_coupling_in_words(example) -> None:
    problem = Problem.from_rows(example)
    rows = problem.evaluate(np.zeros(problem.group_count, int)).rows
    told = [state(problem, rows, c) for c in problem.couplings]
    assert len(told) == len(problem.couplings)
    assert all(text and isinstance(tight, bool) for text, tight in told)
