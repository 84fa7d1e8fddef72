"""The dumb reference against answers that were worked out elsewhere."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import allocator
from allocator.testing.claims import false_claims
from allocator.testing.reference import Reference

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "golden" / "example.expected.json").read_text())


def test_there_are_eleven_cases() -> None:
    assert len(CASES) == 11
    assert sum(case["best"] is None for case in CASES) == 2


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_the_reference_finds_the_golden_optimum(case: dict[str, Any], example: dict[str, Any]) -> None:
    reference = Reference(example | case["patch"])
    best = reference.best
    if case["best"] is None:
        assert best is None
        return
    assert best is not None
    assert best.objective == case["best"]["objective"]
    assert reference.loss(best.places) == case["best"]["loss"]
    assert reference.totals(best.places) == case["best"]["totals"]
    assert reference.names(best.places) == case["best"]["choices"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_solve_finds_and_proves_the_golden_optimum(case: dict[str, Any], example: dict[str, Any]) -> None:
    rows = example | case["patch"]
    solution = allocator.solve(rows, solver="brute_force")
    assert not false_claims(Reference(rows), solution)
    if case["best"] is None:
        assert solution.status == "infeasible"
        return
    assert solution.status == "optimal"
    assert solution.objective == case["best"]["objective"]
    assert dict(solution.totals) == case["best"]["totals"]
    assert dict(solution.choices) == case["best"]["choices"]


def _two(scores: list[float], **parts: Any) -> Reference:
    """Two groups of two choices each, worth scores[0], scores[1] and scores[2], scores[3]."""
    groups = [
        {"name": g, "choices": [{"name": n, "cost": {"c": k}, "score": {"s": v}} for k, (n, v) in enumerate(pair)]}
        for g, pair in (
            ("g", [("a", scores[0]), ("b", scores[1])]),
            ("h", [("a", scores[2]), ("b", scores[3])]),
        )
    ]
    return Reference({"groups": groups} | parts)


def test_worked_by_hand() -> None:
    plain = _two([4.0, 1.0, 3.0, 2.0])
    assert plain.loss((0, 0)) == 7.0
    assert plain.totals((1, 1)) == {"c": 2}
    assert plain.best is not None
    assert plain.best.places == (1, 1)
    budget = _two([4.0, 1.0, 3.0, 2.0], budgets=[{"resource": "c", "max": 1}])
    assert budget.violations((1, 1)) == ["budget 0 is over its max"]
    assert budget.best is not None
    assert budget.best.places == (1, 0)
    basis = {"eigenvalues": [2.0, -1.0], "vectors": {"g": {"a": [1.0, 2.0]}, "h": {"a": [3.0, 1.0]}}}
    bent = _two([4.0, 1.0, 3.0, 2.0], interactions=[{"score": "s", "basis": basis}])
    assert bent.loss((0, 0)) == 7.0 + 2.0 * (1 * 3) - 1.0 * (2 * 1)
    assert bent.loss((0, 1)) == 6.0
    assert bent.scale == pytest.approx(max(abs(4 - (1 - 2)), 1) + max(abs(3 - (9 - 0.5)), 2))
    most = _two([4.0, 1.0, 3.0, 2.0], loss={"terms": {"s": 1.0}, "aggregate": "max"})
    assert most.loss((1, 0)) == 3.0
    assert most.tie((1, 0)) == 4.0
    norm = _two([4.0, 0.0, 3.0, 0.0], loss={"terms": {"s": 1.0}, "aggregate": "pnorm", "p": 2})
    assert norm.loss((0, 0)) == 5.0
    assert norm.loss((1, 1)) == 0.0
    largest = _two([0.0] * 4, resources={"c": {"aggregate": "max", "offset": 0.5}})
    assert [largest.total(p, "c") for p in ((0, 0), (0, 1))] == [0.5, 1.0]


def test_limits_are_exact_for_integers_and_relaxed_for_floats() -> None:
    whole = _two([0.0] * 4, budgets=[{"resource": "c", "max": 1.9999999999999}])
    assert whole.violations((1, 1)) == ["budget 0 is over its max"]
    near = _two([0.0] * 4, budgets=[{"resource": "c", "max": 2 * (1 - 5e-13)}], resources={"c": {"offset": 0.0}})
    assert near.violations((1, 1))
    floats = _two([0.1, 0.2, 0.1, 0.2], budgets=[{"score": "s", "max": 0.4 * (1 - 5e-13)}])
    assert not floats.violations((1, 1))
    assert _two([0.1, 0.2, 0.1, 0.2], budgets=[{"score": "s", "max": 0.4 * (1 - 5e-12)}]).violations((1, 1))
    below = _two([-0.1, -0.2, -0.1, -0.2], budgets=[{"score": "s", "min": -0.4 * (1 - 5e-13)}])
    assert not below.violations((1, 1))


def test_sums_are_rounded_once() -> None:
    tiny = _two([1.0, 0.0, math.ulp(1.0) / 2, 0.0], budgets=[])
    assert tiny.loss((0, 0)) == 1.0
    three = Reference(
        {
            "groups": [
                {"name": "g", "choices": [{"name": "a", "cost": {"c": 0}, "score": {"s": 1e16, "t": 1.0, "u": -1e16}}]}
            ],
            "loss": {"terms": {"s": 1.0, "t": 1.0, "u": 1.0}},
        }
    )
    assert three.loss((0,)) == 1.0
