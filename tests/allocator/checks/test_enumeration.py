"""The enumeration check against the reference, with right and wrong allocations of every kind of problem."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from allocator.checks.enumeration import enumerate_all, small_enough
from allocator.problem import Problem
from allocator.testing.claims import tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import random_rows
from allocator.testing.reference import Best, Places, Reference


def better(reference: Reference, a: Places, b: Places) -> bool:
    """Whether a beats b by more than the tolerance."""
    slip = tolerance(reference)
    if reference.objective(a) < reference.objective(b) - slip:
        return True
    return reference.objective(a) <= reference.objective(b) and reference.tie(a) < reference.tie(b) - slip


def test_proves_the_best_and_nothing_else() -> None:
    rng = Random(0)
    optimal = beaten = 0
    for seed in range(times(500)):
        rows = random_rows(seed, most_allocations=100)
        problem, reference = Problem.from_rows(rows), Reference(rows)
        best = reference.best
        if best is None:
            assert enumerate_all(problem, None).proved, seed
            continue
        found = enumerate_all(problem, None)
        assert not found.proved
        assert found.better is not None
        assert tuple(found.better.tolist()) in reference.feasible
        assert enumerate_all(problem, problem.evaluate(np.array(best.places))).proved, seed
        optimal += 1
        for places in rng.sample(reference.feasible, min(4, len(reference.feasible))):
            check = enumerate_all(problem, problem.evaluate(np.array(places)))
            if better(reference, best.places, places):
                assert not check.proved, seed
                assert check.better is not None
                assert better(reference, tuple(check.better.tolist()), places)
                beaten += 1
    assert optimal > 200
    assert beaten > 200


def _pair(scores: list[float], costs: list[Any], **parts: Any) -> dict[str, Any]:
    groups = [
        {
            "name": n,
            "choices": [
                {"name": str(k), "cost": {"c": c}, "score": {"s": s}}
                for k, (c, s) in enumerate(zip(costs, scores, strict=True))
            ],
        }
        for n in "gh"
    ]
    return {"format": "allocation-problem", "version": 1, "groups": groups, **parts}


def test_interactions_that_cancel_the_unaries_leave_no_slack() -> None:
    """unary = ½ e v²: S is 0, so that even the last bit of an objective counts."""
    rng = Random(5)
    for _ in range(times(60)):
        vectors = {n: {str(k): [rng.random() * 1e3] for k in range(4)} for n in "gh"}
        rows = _pair([0.0] * 4, [0, 1, 2, 3])
        for group in rows["groups"]:
            for choice in group["choices"]:
                choice["score"]["s"] = 0.5 * vectors[group["name"]][choice["name"]][0] ** 2
        rows["interactions"] = [{"score": "s", "basis": {"eigenvalues": [1.0], "vectors": vectors}}]
        problem, reference = Problem.from_rows(rows), Reference(rows)
        assert reference.best is not None
        assert enumerate_all(problem, problem.evaluate(np.array(reference.best.places))).proved


def test_a_huge_offset_does_not_hide_what_is_feasible() -> None:
    rng = Random(2)
    for _ in range(times(300)):
        costs = [rng.random() for _ in range(4)]
        offset = 1e12 * rng.random()
        rows = _pair([1.0, 2.0, 3.0, 4.0], costs, resources={"c": {"offset": offset}})
        total = Reference(rows).total((rng.randrange(4), rng.randrange(4)), "c")
        rows["budgets"] = [{"resource": "c", "max": total / (1 + 1e-12), "min": total}]
        problem, reference = Problem.from_rows(rows), Reference(rows)
        assert enumerate_all(problem, None).proved == (reference.best is None)


def test_only_small_problems_are_looked_at() -> None:
    scores = np.zeros((10, 4))
    problem = Problem.from_arrays(scores, scores)
    assert not small_enough(problem)
    assert not enumerate_all(problem, problem.evaluate(np.zeros(10, np.int64))).proved
    assert small_enough(Problem.from_arrays(scores[:9], scores[:9]))
    singles = Problem.from_arrays(np.zeros((200_000, 1)), np.zeros((200_000, 1)))
    assert small_enough(singles)
    assert enumerate_all(singles, singles.evaluate(np.zeros(200_000, np.int64))).proved


def test_a_maximum_counts_its_sum_only_among_equals() -> None:
    """(1, 0) has the least maximum by a hair, (0, 1) by far the smaller sum: the maximum decides."""
    rows = _pair([3.0, 3.0 - 1e-13], [0, 1], loss={"terms": {"s": 1.0}, "aggregate": "max"})
    rows["budgets"] = [{"resource": "c", "max": 1}]
    rows["groups"][1]["choices"][0]["score"]["s"] = 1.0
    rows["groups"][1]["choices"][1]["score"]["s"] = 0.0
    problem = Problem.from_rows(rows)
    assert Reference(rows).best == Best((1, 0), 3.0 - 1e-13, 4.0 - 1e-13)
    assert enumerate_all(problem, problem.evaluate(np.array([1, 0]))).proved
    assert not enumerate_all(problem, problem.evaluate(np.array([0, 0]))).proved


@pytest.mark.parametrize("aggregate", ["sum", "max"])
def test_offsets_spelled_as_floats(aggregate: str) -> None:
    rows = _pair([1.0, 0.0], [1, 3], resources={"c": {"offset": 2.0, "aggregate": aggregate}})
    rows["budgets"] = [{"resource": "c", "max": 2}]
    problem, reference = Problem.from_rows(rows), Reference(rows)
    assert enumerate_all(problem, None).proved == (reference.best is None)
