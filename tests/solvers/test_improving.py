"""The search ends where no change of one group, and none of two, is feasible and better, in C and in numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from allocator.engine import quadratic_model
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.quadratic import quadratic
from allocator.statement import Basis, Budget, Pairs
from allocator.testing.depth import times
from solvers._improving import Improving


def drawn(seed: int, groups: int = 6, choices: int = 3) -> Problem:
    rng = np.random.default_rng(seed)
    n = groups * choices
    group = np.arange(n) // choices
    a, b = np.nonzero(np.triu(group[:, None] != group[None, :]) & (rng.random((n, n)) < 0.4))
    parts = (
        Pairs("s", np.stack([a, b], axis=1), rng.normal(size=len(a))),
        Basis("s", rng.normal(size=2), rng.normal(size=(n, 2))),
    )
    costs, ms = rng.integers(1, 30, (groups, choices)), rng.random((groups, choices))
    limits = (Budget(resource="b", max=int(costs.mean() * groups)), Budget(resource="ms", min=0.3 * groups))
    problem = Problem.from_arrays({"s": rng.normal(size=(groups, choices))}, {"b": costs, "ms": ms})
    return problem.replace(interactions=parts, budgets=limits)


def ends(problem: Problem) -> Improving:
    """The search after one beginning, feasible or not."""
    found = Improving(quadratic(problem), Limits())
    found.begin(problem.indptr[:-1].copy())
    return found


@pytest.mark.parametrize("engine", ["c", "numpy"])
@pytest.mark.parametrize("groups_at_once", [1, 2])
def test_no_feasible_change_is_better(groups_at_once: int, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOCATOR_ENGINE", engine)
    if groups_at_once == 1:  # as for problems too large for changes of two groups
        monkeypatch.setattr(quadratic_model, "DENSE", 0)
        monkeypatch.setattr(quadratic_model, "THIN", 0)
    reached = 0
    for seed in range(times(25)):
        problem = drawn(seed)
        found = ends(problem).best
        if found is None:
            continue
        reached += 1
        assert found.feasible
        for groups in itertools.combinations(range(problem.group_count), groups_at_once):
            for places in itertools.product(range(3), repeat=groups_at_once):
                other = found.rows - problem.indptr[:-1]
                other[list(groups)] = places
                outcome = problem.evaluate(other)
                assert not outcome.feasible or outcome.objective >= found.objective - 1e-9
    assert reached > times(25) // 2


def test_kicks_find_the_optimum_repeat_and_report_ever_better() -> None:
    hits = asked = 0
    for seed in range(times(12)):
        problem = drawn(100 + seed)
        every = (problem.evaluate(np.array(p)) for p in itertools.product(range(3), repeat=6))
        best = min((o.objective for o in every if o.feasible), default=None)
        results = []
        for _ in range(2):
            seen: list[np.ndarray] = []
            found = Improving(quadratic(problem), Limits(report=seen.append, seed=3))
            found.begin(problem.indptr[:-1].copy())
            found.kick(30)
            results.append(None if found.best is None else found.best.rows.tolist())
            worth = [problem.evaluate(c).objective for c in seen]
            assert worth == sorted(worth, reverse=True)
        assert results[0] == results[1]
        if best is None:
            assert found.best is None
            continue
        assert found.best is not None
        asked += 1
        hits += found.best.objective <= best + 1e-12
    assert asked > times(12) // 2
    assert hits >= 0.9 * asked


def test_a_feasible_allocation_to_begin_from_is_never_lost() -> None:
    problem = drawn(0)
    every = [problem.evaluate(np.array(p)) for p in itertools.product(range(3), repeat=6)]
    found, best = Improving(quadratic(problem), Limits()), np.inf
    assert any(one.feasible for one in every)
    for outcome in every:
        found.begin(outcome.rows)
        best = min(best, outcome.objective) if outcome.feasible else best
        assert (found.best.objective if found.best is not None else np.inf) <= best


def test_without_time_something_feasible_is_still_found() -> None:
    late = Limits(time=1e-9)
    reached = 0
    for seed in range(times(25)):
        problem = drawn(seed)
        found = Improving(quadratic(problem), late)
        found.begin_all([problem.indptr[:-1].copy(), problem.indptr[1:] - 1])
        found.kick(100)
        reached += found.best is not None
    assert reached > times(25) // 2


def test_a_start_with_a_forbidden_choice_is_passed_over() -> None:
    problem = drawn(1)
    allowed = np.ones(problem.choice_count, bool)
    allowed[0] = False
    found = ends(problem.replace(allowed=allowed))
    assert found.best is None


def test_parts_are_rounded_to_the_largest_and_then_drawn() -> None:
    problem = drawn(2)
    allowed = np.ones(problem.choice_count, bool)
    allowed[::3] = False
    parts = np.tile([5.0, 0.0, 1.0], 6)  # the first of each group is forbidden, the second has no part
    found = Improving(quadratic(problem.replace(allowed=allowed)), Limits())
    for taken in found.rounded(parts):
        assert (taken - problem.indptr[:-1] == 2).all()
