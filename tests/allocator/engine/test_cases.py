"""Couplings by cases: the optimum, its cover, and what is said where a limit fires."""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
import pytest

from allocator.certificate import ByLabel, ByRow, Leaf
from allocator.engine.cases import solve_cases
from allocator.engine.separable import solve_separable
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, random_rows
from allocator.testing.reference import Reference

PARTS = (LINEAR | {"max_distinct", "cardinality", "implies"}) - {"several_budgets"}


def oracle_with(tolerance=0.0, **options):
    def oracle(linear):
        return solve_separable(linear, **{"tolerance": tolerance, "seconds": lambda: math.inf, **options})

    return oracle


def solve(linear, tolerance=0.0, left=lambda: math.inf, oracle=None, **options):
    return solve_cases(linear, oracle or oracle_with(tolerance), tolerance, left, **options)


def coupled(count, parts=PARTS):
    seed = 0
    while count:
        seed += 1
        rows = random_rows(seed, parts, most_allocations=150)
        if not rows["couplings"]:
            continue
        for budget in rows["budgets"]:
            if "min" in budget and "max" in budget:
                del budget["min"]
        count -= 1
        reference, problem = Reference(rows), Problem.from_rows(rows)
        yield seed, reference, problem, linearise(problem)


@pytest.mark.parametrize("kind", ["max_distinct", "cardinality", "implies", "all"])
def test_against_a_look_at_everything(engine, kind):
    kinds = {"max_distinct", "cardinality", "implies"} if kind == "all" else {kind}
    split = 0
    for seed, reference, problem, linear in coupled(times(90), (PARTS - {"scales"} - set(kinds)) | kinds):
        covered = solve(linear)
        assert covered.closed, seed
        assert covered.limit is None
        split += covered.cases > 1
        best = reference.best
        assert (covered.rows is None) == (best is None), seed
        if best is None:
            continue
        slip = 1e-12 * reference.scale + reference.noise
        places = tuple((covered.rows - problem.indptr[:-1]).tolist())
        assert not reference.violations(places), seed
        assert reference.objective(places) <= best.objective + slip, seed
        assert linear.objective(covered.total) == pytest.approx(reference.objective(places), rel=0, abs=slip)
        assert covered.bound == covered.total
    assert split > times(5)


def leaves(case):
    waiting, found = [case], []
    while waiting:
        case = waiting.pop()
        if isinstance(case, Leaf):
            found.append(case)
        else:
            assert isinstance(case, ByRow | ByLabel)
            waiting += [case.taken, case.other] if isinstance(case, ByRow) else [case.used, case.unused]
    return found


def test_limits_leave_a_bound(engine):
    fired = 0
    for seed, reference, _, linear in coupled(times(150)):
        for most in (1, 2, 4):
            covered = solve(linear, most_cases=most)
            slip = 1e-12 * reference.scale + reference.noise
            if covered.closed:
                continue
            fired += 1
            assert covered.limit == "cases"
            assert covered.certificate is None
            if reference.best is not None:
                assert linear.objective(covered.bound) <= reference.best.objective + slip, seed
        assert solve(linear, left=lambda: 0.0).limit in (None, "time")
    assert fired >= times(8)


def test_a_case_without_an_answer_leaves_no_bound():
    """The oracle gives up on one case (rounding): what is in it may be better than all that is seen."""
    for seed, reference, _, linear in coupled(times(100)):
        asked = []

        def oracle(given, asked=asked):
            asked.append(given)
            found = oracle_with()(given)
            if len(asked) == 2 and found.rows is not None:
                return dataclasses.replace(found, rows=None, bound=-math.inf, limit="rounding")
            return found

        covered = solve(linear, oracle=oracle)
        if covered.limit == "rounding":
            assert not covered.closed
            assert covered.bound == -math.inf
        elif reference.best is not None:
            best = linear.total(reference.best.objective)
            assert covered.total <= best + 1e-12 * reference.scale + reference.noise, seed


def test_a_tolerance_is_kept_and_said(engine):
    for seed, reference, _, linear in coupled(times(80)):
        if reference.best is None:
            continue
        best, slip = linear.total(reference.best.objective), 1e-12 * reference.scale + reference.noise
        for tolerance in (0.03 * reference.scale, math.inf):
            covered = solve(linear, tolerance)
            if covered.rows is None:
                continue
            assert covered.bound <= best + slip, seed
            assert covered.total <= best + tolerance + slip, seed
            assert covered.total - covered.bound <= tolerance + slip, seed


def at_most_one(groups):
    """Every group wants what only one may take: one case for each."""
    value = np.stack([-1.0 - np.arange(groups) / groups, np.zeros(groups)], axis=1)
    problem = Problem.from_rows(
        {
            "format": "allocation-problem",
            "version": 1,
            "groups": [
                {
                    "name": f"g{g}",
                    "choices": [
                        {"name": n, "cost": {"r": 1}, "score": {"s": float(v)}} for n, v in zip("ab", row, strict=True)
                    ],
                }
                for g, row in enumerate(value)
            ],
            "couplings": [{"kind": "at_most", "choices": [[f"g{g}", "a"] for g in range(groups)], "count": 1}],
        }
    )
    return linearise(problem)


def test_a_cover_may_be_deeper_than_the_stack():
    depth, frame = 0, sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    linear = at_most_one(250)
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(depth + 150)
        covered = solve(linear)
    finally:
        sys.setrecursionlimit(limit)
    assert covered.closed
    assert covered.total == pytest.approx(-1.996)
    assert len(leaves(covered.certificate.root)) == 250


def test_twice_the_same(engine):
    for _, _, _, linear in coupled(times(30)):
        first, second = solve(linear), solve(linear)
        assert (first.rows is None) == (second.rows is None)
        assert first.rows is None or first.rows.tolist() == second.rows.tolist()
        assert first.certificate == second.certificate
