"""The separable view: sums over it are the problem's own sums, and its rows let every feasible allocation through."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import pytest

from allocator import features
from allocator.errors import UnsupportedError
from allocator.linear import SMALL, linearise
from allocator.problem import Problem
from allocator.statement import Resource
from allocator.testing.claims import tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, random_rows
from allocator.testing.reference import Reference

SEPARABLE = LINEAR | features.LINEAR | {"pnorm_loss", "loss_budgets", "lower_budgets", "max_resource", "stderr"}


def test_values_and_rows_say_what_the_problem_says() -> None:
    checked = 0
    for seed in range(times(400)):
        rows = random_rows(seed, SEPARABLE, most_allocations=60)
        problem, reference = Problem.from_rows(rows), Reference(rows)
        try:
            linear = linearise(problem)
        except UnsupportedError:
            assert problem.features & {"max_resource", "pnorm_loss"}
            continue
        feasible = set(reference.feasible)
        for places in reference.allocations():
            taken = problem.indptr[:-1] + np.array(places)
            total = math.fsum(linear.value[taken].tolist())
            objective, slip = reference.objective(places), tolerance(reference) + 1e-300
            if linear.power != 1 and total < SMALL:  # the powers of small unaries vanish
                assert linear.objective(total) <= objective + slip
            else:
                assert linear.objective(total) == pytest.approx(objective, rel=1e-12, abs=slip)
            kept = bool(linear.free[taken].all())
            for row in linear.rows:
                use = math.fsum(row.column[taken].tolist()) if not row.exact else sum(row.column[taken].tolist())
                kept &= (row.hi is None or use <= row.hi) and (row.lo is None or use >= row.lo)
            assert kept or places not in feasible
            if kept and places not in feasible:  # only by the rounding of float limits
                assert any(not row.exact for row in linear.rows)
            checked += 1
    assert checked > 3000


def test_totals_and_objectives_are_inverse() -> None:
    for seed in range(100):
        problem = Problem.from_rows(random_rows(seed, LINEAR | {"pnorm_loss"}))
        try:
            linear = linearise(problem)
        except UnsupportedError:
            continue
        for total in (0.25, 1.0, 3.5):
            back = linear.total(linear.objective(total))
            size = abs(linear.constant) + 3.5
            assert back == pytest.approx(total, rel=1e-9, abs=1e-12 * size) or not linear.scale


def _norm(minimize: Any) -> dict[str, Any]:
    groups = [
        {"name": n, "choices": [{"name": str(k), "cost": {"c": k}, "score": {"s": 3.0 - k}} for k in range(3)]}
        for n in "gh"
    ]
    loss = {"terms": {"s": 1.0}, "aggregate": "pnorm", "p": 2}
    return {"format": "allocation-problem", "version": 1, "groups": groups, "loss": loss, "minimize": minimize}


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 2.0])
def test_a_weight_on_a_p_norm_counts(weight: float) -> None:
    linear = linearise(Problem.from_rows(_norm({"loss": weight})))
    assert linear.objective(math.fsum(linear.value[[0, 3]].tolist())) == pytest.approx(weight * math.sqrt(18))


def test_a_row_on_a_p_norm_lets_through_what_just_keeps_it() -> None:
    rng = Random(0)
    for _ in range(times(300)):
        rows = _norm("loss")
        rows["loss"]["p"] = rng.choice([1.5, 2, 3, 7, 40])
        for group in rows["groups"]:
            for choice in group["choices"]:
                choice["score"]["s"] = rng.random() * 10.0 ** rng.choice([0, 0, -3, -9])
        if rng.random() < 0.3:  # powers at the very end of the range of floats
            rows["loss"]["p"] = 40
            for group in rows["groups"]:
                for choice in group["choices"]:
                    choice["score"]["s"] = 10.0 ** rng.uniform(-7.98, -7.9)
            rows["groups"][0]["choices"][0]["score"]["s"] = 1.0
        places = (rng.randrange(3), rng.randrange(3))
        loss = Reference(rows).loss(places)
        edge = {"max": loss / (1 + 1e-12), "min": loss * (1 + 1e-12)}
        for side, limit in edge.items():
            limit = min(
                (limit, math.nextafter(limit, 0), math.nextafter(limit, 99)), key=lambda x: _over(rows, places, side, x)
            )
            bound = rows | {"budgets": [{"loss": True, side: limit}]}
            if Reference(bound).violations(places):
                continue
            (row,) = linearise(Problem.from_rows(bound)).rows
            use = math.fsum(row.column[[places[0], 3 + places[1]]].tolist())
            assert row.hi is None or use <= row.hi
            assert row.lo is None or use >= row.lo


def _over(rows: dict[str, Any], places: tuple[int, ...], side: str, limit: float) -> tuple[bool, float]:
    """Sorts limits: those that the allocation keeps first, the tightest of them foremost."""
    broken = bool(Reference(rows | {"budgets": [{"loss": True, side: limit}]}).violations(places))
    return broken, limit if side == "max" else -limit


@pytest.mark.parametrize("minimize", [{"loss": -1.0}, {"loss": 1.0, "c": 1.0}])
def test_what_is_not_separable_is_refused(minimize: Any) -> None:
    with pytest.raises(UnsupportedError, match="not separable"):
        linearise(Problem.from_rows(_norm(minimize)))


def test_interactions_are_refused_unless_the_caller_sees_to_them(example: dict[str, Any]) -> None:
    problem = Problem.from_rows(example)
    with pytest.raises(UnsupportedError, match="interactions between groups are not separable"):
        linearise(problem)
    assert len(linearise(problem, with_interactions=True).rows) == 2


def test_a_cap_forbids_larger_unaries(example: dict[str, Any]) -> None:
    rows = example | {"interactions": [], "loss": {"terms": {"ggn": 1.0}, "aggregate": "max"}}
    problem = Problem.from_rows(rows)
    linear = linearise(problem, cap=0.05)
    assert (linear.free == (problem.free & (problem.unary <= 0.05) & (problem.costs["peak_bytes"] <= 140000))).all()
    assert (linear.value == problem.unary).all()


def test_the_plain_case_copies_no_column() -> None:
    problem = Problem.from_arrays([[2.0, 1.0], [3.0, 1.0]], [[0, 4], [0, 5]], budgets={"cost": 5})
    linear = linearise(problem)
    assert linear.value is problem.scores["score"]
    assert linear.rows[0].column is problem.costs["cost"]
    assert linear.free is problem.free
    assert linear.whole


def test_masks_leave_the_problem_as_it_is() -> None:
    problem = Problem.from_arrays(
        [[2.0, 1.0], [3.0, 1.0]], [[0, 4], [0, 5]], resources={"cost": Resource("1", "max", 0)}
    )
    bound = problem.with_budget("cost", max=4)
    assert linearise(bound).free.tolist() == [True, True, True, False]
    assert bound.free.all()
