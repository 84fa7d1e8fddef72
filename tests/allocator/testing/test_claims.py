"""The bar for solutions catches every kind of falsehood."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

import allocator
from allocator.problem import Problem
from allocator.solution import Allocation, Solution
from allocator.testing.claims import false_claims
from allocator.testing.reference import Reference


def rows(**parts: Any) -> dict[str, Any]:
    """Two groups; under the budget of 3 the best is (1, 1) at 4."""
    choices = [{"name": str(k), "cost": {"c": 2 * k - (k == 1)}, "score": {"s": float(4 - 2 * k)}} for k in range(3)]
    return {
        "format": "allocation-problem",
        "version": 1,
        "groups": [{"name": n, "choices": choices} for n in "gh"],
        "budgets": [{"resource": "c", "max": 3}],
        **parts,
    }


@pytest.fixture
def truth() -> Solution:
    return allocator.solve(rows(), solver="brute_force")


def at(*places: int) -> Allocation:
    return Allocation(Problem.from_rows(rows()), np.array(places, np.int32))


def test_the_truth_passes(truth: Solution) -> None:
    assert truth.status == "optimal"
    assert false_claims(Reference(rows()), truth) == []


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        ({"objective": 3.0}, "objective 3.0, in truth 4.0"),
        ({"loss": 3.0}, "loss 3.0, in truth 4.0"),
        ({"totals": {"c": 3}}, "totals {'c': 3}, in truth {'c': 2}"),
        ({"allocation": at(2, 2)}, "an allocation that is not feasible"),
        (
            {"allocation": at(0, 1), "objective": 6.0, "loss": 6.0, "proven_bound": 6.0, "totals": {"c": 1}},
            "optimal at 6.0",
        ),
        ({"proven_bound": 3.0, "gap": 0.25}, "optimal, yet proven_bound differs"),
        ({"status": "feasible", "proven_bound": 4.5, "gap": 0.0}, "above the optimum"),
        ({"status": "feasible", "proven_bound": math.nan, "gap": 0.0}, "above the optimum"),
        ({"status": "feasible", "proven_bound": 3.0, "gap": 0.1}, "gap 0.1, in truth 0.25"),
        ({"status": "feasible", "proven_bound": None, "gap": 0.1}, "a gap without a bound"),
        ({"status": "infeasible"}, "status infeasible beside an allocation"),
        ({"status": "unknown"}, "status unknown beside an allocation"),
        ({"multipliers": (-1.0,)}, "multiplier -1.0 of budget 0"),
        ({"multipliers": (math.nan,)}, "multiplier nan of budget 0"),
        ({"multipliers": ()}, "not parallel to the budgets"),
        ({"slack": (1.0, 2.0)}, "not parallel to the budgets"),
        ({"allocation": None, "status": "infeasible", "objective": None}, "infeasible, yet (1, 1) is feasible"),
        ({"allocation": None, "objective": None}, "status optimal without an allocation"),
        ({"allocation": None, "status": "unknown"}, "an objective or choices without an allocation"),
    ],
    ids=str,
)
def test_each_lie_is_caught(lie: dict[str, Any], found: str, truth: Solution) -> None:
    claims = false_claims(Reference(rows()), dataclasses.replace(truth, **lie))
    assert any(found in claim for claim in claims), claims


def test_a_false_tie_is_caught() -> None:
    parts: dict[str, Any] = {
        "loss": {"terms": {"s": 1.0}, "aggregate": "max"},
        "budgets": [{"resource": "c", "max": 6}],
    }
    reference = Reference(rows(**parts))
    assert reference.best is not None
    truth = allocator.solve(rows(**parts), solver="brute_force")
    assert false_claims(reference, truth) == []
    other = Allocation(Problem.from_rows(rows(**parts)), np.array([1, 1], np.int32))
    lie = dataclasses.replace(truth, allocation=other, totals={"c": 2})
    assert any("optimal, yet Σ unary is 4.0" in claim for claim in false_claims(reference, lie))


def test_an_allocation_of_an_infeasible_problem_is_caught(truth: Solution) -> None:
    impossible = Reference(rows(budgets=[{"resource": "c", "max": -1}]))
    assert any("not feasible" in claim for claim in false_claims(impossible, truth))
    nothing = Solution(status="infeasible", multipliers=(None,), slack=(None,))
    assert false_claims(impossible, nothing) == []
