"""The local search ends where no change of one group, and none of two, is feasible and better."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import allocator.interaction_search as search
from allocator.interaction_search import InteractionSearch
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.quadratic import quadratic
from allocator.statement import Basis, Budget, Pairs
from allocator.testing.depth import times


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


@pytest.mark.parametrize("groups_at_once", [1, 2])
def test_no_feasible_change_is_better(groups_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if groups_at_once == 1:
        monkeypatch.setattr(search, "DENSE", 0)  # as for problems too large for changes of two groups
    reached = 0
    for seed in range(times(25)):
        problem = drawn(seed)
        found = InteractionSearch(quadratic(problem), Limits())
        found.begin(problem.indptr[:-1].copy())
        if found.choice is None or found.best is None:
            continue
        reached += 1
        for groups in itertools.combinations(range(problem.group_count), groups_at_once):
            for places in itertools.product(range(3), repeat=groups_at_once):
                other = found.choice.copy()
                other[list(groups)] = places
                outcome = problem.evaluate(other)
                assert not outcome.feasible or outcome.objective >= found.best.objective - 1e-9
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
            found = InteractionSearch(quadratic(problem), Limits(report=seen.append))
            found.begin(problem.indptr[:-1].copy())
            found.kick(30, seed=3)
            results.append(found.choice)
            worth = [problem.evaluate(c).objective for c in seen]
            assert worth == sorted(worth, reverse=True)
        if best is None or found.best is None:
            continue
        asked += 1
        assert results[0] is not None
        assert np.array_equal(results[0], results[1])
        hits += found.best.objective <= best + 1e-12
    assert asked > times(12) // 2
    assert hits >= 0.9 * asked


def test_an_allocation_that_is_offered_is_kept_as_it_is_if_it_is_feasible_and_better() -> None:
    problem = drawn(0)
    every = [problem.evaluate(np.array(p)) for p in itertools.product(range(3), repeat=6)]
    found, best = InteractionSearch(quadratic(problem), Limits()), np.inf
    assert any(one.feasible for one in every)
    for outcome in every:
        found.offer(outcome.rows)
        best = min(best, outcome.objective) if outcome.feasible else best
        assert (found.best.objective if found.best is not None else np.inf) == best
