"""The least maximum of the loss, and among equal maxima the least Σ unary."""

from __future__ import annotations

import dataclasses
import math

import pytest

from allocator.certificate import Threshold
from allocator.engine.cases import solve_cases
from allocator.engine.separable import Separated, solve_separable
from allocator.engine.threshold import solve_threshold
from allocator.problem import Problem
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, random_rows
from allocator.testing.reference import Reference

PARTS = (LINEAR | {"max_loss", "max_distinct", "cardinality", "implies"}) - {"resource_objective"}


def least_maximum(count, sides=1):
    seed = 0
    while count:
        seed += 1
        rows = random_rows(seed, PARTS, most_allocations=120)
        if rows["loss"]["aggregate"] != "max":
            continue
        rows["budgets"] = [b for b in rows["budgets"] if not b.get("loss")][:sides]
        for budget in rows["budgets"]:
            if "min" in budget and "max" in budget:
                del budget["min"]
        count -= 1
        yield seed, Reference(rows), Problem.from_rows(rows)


def oracle(linear):
    """Couplings by cases, as the exact backend does."""

    def plain(given):
        return solve_separable(given, tolerance=0.0, seconds=lambda: math.inf)

    if not linear.problem.couplings:
        return plain(linear)
    found = solve_cases(linear, plain, 0.0, lambda: math.inf)
    infeasible = found.closed and found.rows is None
    return Separated(found.rows, found.total, found.bound, infeasible, found.prices, found.certificate, found.limit)


def test_against_a_look_at_everything(engine):
    seen = {True: 0, False: 0}
    for seed, reference, problem in least_maximum(times(150)):
        found = solve_threshold(problem, oracle)
        seen[found.rows is None] += 1
        best = reference.best
        assert (found.rows is None) == (best is None), seed
        assert found.proved
        if best is None:
            assert found.infeasible
            continue
        places = tuple((found.rows - problem.indptr[:-1]).tolist())
        slip = 1e-12 * reference.scale
        assert not reference.violations(places), seed
        assert reference.objective(places) == best.objective, seed
        assert reference.tie(places) <= best.tie + slip, seed
        assert found.bound == best.objective
        assert isinstance(found.certificate, Threshold)
    assert min(seen.values()) > times(15)


def plain_problem():
    """The least maximum is 2; of the two allocations that have it, one has the smaller sum."""
    return Problem.from_rows(
        {
            "format": "allocation-problem",
            "version": 1,
            "loss": {"aggregate": "max"},
            "groups": [
                {
                    "name": "g0",
                    "choices": [
                        {"name": "a", "cost": {"r": 4}, "score": {"s": 0.0}},
                        {"name": "b", "cost": {"r": 1}, "score": {"s": 2.0}},
                    ],
                },
                {
                    "name": "g1",
                    "choices": [
                        {"name": "a", "cost": {"r": 3}, "score": {"s": 0.5}},
                        {"name": "b", "cost": {"r": 2}, "score": {"s": 2.0}},
                        {"name": "c", "cost": {"r": 1}, "score": {"s": 2.0}},
                    ],
                },
            ],
            "budgets": [{"resource": "r", "max": 5}],
        }
    )


def test_equal_maxima_are_told_apart_by_the_sum(engine):
    found = solve_threshold(plain_problem(), oracle)
    assert found.bound == 2.0
    assert found.total == 2.0  # a and c, by the cost; not b and b
    assert found.rows.tolist() in ([0, 4], [0, 2])


@pytest.mark.parametrize("given_up", range(4))
def test_a_level_without_an_answer_leaves_no_bound(given_up):
    """The oracle gives up once: the answer is feasible, and nothing is claimed of it that was not seen."""
    asked = []

    def tired(linear):
        asked.append(linear)
        found = oracle(linear)
        if len(asked) == given_up + 1:
            return dataclasses.replace(found, rows=None, infeasible=False, limit="time", bound=-math.inf)
        return found

    found = solve_threshold(plain_problem(), tired)
    if len(asked) > given_up:
        assert found.limit == "time" or found.rows is None
        assert not found.infeasible or found.limit is None
        assert found.limit is not None
        assert found.bound <= 2.0
