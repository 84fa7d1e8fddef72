"""The check of a cover: right ones prove, and no wrong one ever proves that a better allocation does not exist."""

from __future__ import annotations

import dataclasses
import math
from random import Random

import numpy as np
import pytest

from allocator.certificate import ByLabel, ByRow, Cases, Leaf
from allocator.checks.cases import check_cases
from allocator.engine.cases import solve_cases
from allocator.engine.separable import solve_separable
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, random_rows
from allocator.testing.reference import Reference

PARTS = (LINEAR | {"max_distinct", "cardinality", "implies"}) - {"several_budgets", "resource_objective"}
WILD = (math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 0.0, -1.0, 1e6)


def coupled(count, most=80):
    """Coupled problems with their linear view, the least Σ value (None: nothing is feasible), and a tolerance."""
    seed = 0
    while count:
        seed += 1
        rows = random_rows(seed, PARTS, most_allocations=most)
        if not rows["couplings"]:
            continue
        for budget in rows["budgets"]:
            if "min" in budget and "max" in budget:
                del budget["min"]
        count -= 1
        reference, problem = Reference(rows), Problem.from_rows(rows)
        linear = linearise(problem)
        best = None if reference.best is None else linear.total(reference.best.objective)
        yield seed, linear, best, 1e-12 * reference.scale + reference.noise


def solved(linear, tolerance=0.0):
    def oracle(given):
        return solve_separable(given, tolerance=tolerance, seconds=lambda: math.inf)

    return solve_cases(linear, oracle, tolerance, lambda: math.inf)


def test_what_the_search_hands_over_proves():
    proved = {True: 0, False: 0}
    for seed, linear, best, close in coupled(times(150)):
        covered = solved(linear, close / 8)
        assert covered.closed, seed
        total = math.inf if best is None else covered.total
        if best is None:
            assert covered.rows is None
        proved[best is None] += check_cases(linear, covered.certificate, total, close)
    assert proved[False] > times(60)
    assert proved[True] > times(10)


def random_case(rng, linear, depth=0):
    """Any tree: rows and labels of this problem or of none, prices that mean nothing."""
    problem = linear.problem
    if depth > 4 or rng.random() < 0.3:
        values = tuple(rng.choice([rng.uniform(-1, 1), *WILD]) for _ in range(rng.randint(0, len(problem.budgets) + 1)))
        return Leaf(values)
    children = random_case(rng, linear, depth + 1), random_case(rng, linear, depth + 1)
    if rng.random() < 0.5:
        return ByRow(rng.randint(0, problem.choice_count - 1), *children)
    table = problem.label_codes.table
    return ByLabel(rng.randint(0, len(problem.couplings) - 1), rng.randint(0, len(table) - 1), *children)


def test_no_tree_proves_what_is_false():
    """A total above the optimum by more than the tolerance, or infeasibility where something is feasible."""
    tried = proved = 0
    for seed, linear, best, close in coupled(times(160), most=60):
        if best is None:
            continue
        rng = Random(seed)
        trees = [Cases(random_case(rng, linear)) for _ in range(3)] + [solved(linear).certificate]
        for cases in trees:
            tried += 1
            assert not check_cases(linear, cases, math.inf, close), (seed, cases)
            assert not check_cases(linear, cases, best + 4 * close + 1e-9 * abs(best) + 1e-300, close), (seed, cases)
            proved += check_cases(linear, cases, best, close)
    assert tried > times(250)
    assert proved > times(60)


def two_groups(couplings):
    return linearise(
        Problem.from_rows(
            {
                "format": "allocation-problem",
                "version": 1,
                "groups": [
                    {
                        "name": f"g{g}",
                        "choices": [
                            {"name": "a", "cost": {"r": 1}, "score": {"s": 0.0}},
                            {"name": "b", "cost": {"r": 2}, "score": {"s": -1.0 - g}},
                        ],
                    }
                    for g in range(2)
                ],
                "budgets": [{"resource": "r", "max": 4}],
                "couplings": couplings,
            }
        )
    )


NOT_BOTH = {"kind": "at_most", "choices": [["g0", "b"], ["g1", "b"]], "count": 1}


def test_a_cover_with_a_hole_proves_nothing():
    linear = two_groups([NOT_BOTH])
    taken, other = Leaf((0.0,)), Leaf((0.0,))
    assert check_cases(linear, Cases(ByRow(3, taken, other)), -2.0, 0.0)
    assert not check_cases(linear, Cases(ByRow(3, taken, other)), -1.0, 0.0)  # -2 is better
    assert not check_cases(linear, Cases(ByRow(3, taken, other)), math.inf, 0.0)


def test_an_ignored_label_is_no_case():
    """`ignore` takes b out of the count: that it occurs rules nothing out."""
    linear = two_groups([{"kind": "max_distinct", "count": 1, "ignore": ["b"]}])
    b = linear.problem.label_codes.table.index("b")
    cases = Cases(ByLabel(0, b, Leaf((0.0,)), Leaf((0.0,))))
    assert not check_cases(linear, cases, -1.0, 0.0)
    assert check_cases(linear, cases, -3.0, 0.0)


@pytest.mark.parametrize("coupling", [NOT_BOTH, {"kind": "implies", "if": ["g0", "b"], "then": ["g1", "b"]}])
def test_labels_of_a_coupling_that_counts_none(coupling):
    linear = two_groups([coupling])
    best = min(v for v in (-2.0, -3.0) if coupling is not NOT_BOTH or v == -2.0)
    for code in range(2):
        cases = Cases(ByLabel(0, code, Leaf((0.0,)), Leaf((0.0,))))
        assert not check_cases(linear, cases, best + 0.5, 0.0)


@pytest.mark.parametrize(
    "root",
    [
        ByRow(99, Leaf(()), Leaf(())), ByRow(-1, Leaf(()), Leaf(())), ByLabel(7, 0, Leaf(()), Leaf(())),
        ByLabel(-1, 0, Leaf(()), Leaf(())), ByLabel(0, 50, Leaf(()), Leaf(())), ByLabel(0, -2, Leaf(()), Leaf(())),
        Leaf(("x",)), Leaf((None,)), None,
    ],
)  # fmt: skip
def test_what_cannot_be_read_proves_nothing(root):
    linear = two_groups([NOT_BOTH])
    assert not check_cases(linear, Cases(root), math.inf, 0.0)
    assert not check_cases(linear, Cases(ByRow(0, root, root)), math.inf, 0.0)


def test_a_deep_cover_is_no_trouble():
    linear = two_groups([NOT_BOTH])
    root = Leaf((0.0,))
    for _ in range(5000):
        root = ByRow(3, Leaf((0.0,)), root)
    assert check_cases(linear, Cases(root), -2.0, 0.0)


def test_rows_that_are_free_are_all_that_counts():
    linear = two_groups([NOT_BOTH])
    free = np.array([True, False, True, False])
    assert check_cases(dataclasses.replace(linear, free=free), Cases(Leaf((0.0,))), 0.0, 0.0)
    free[2] = False
    assert check_cases(dataclasses.replace(linear, free=free), Cases(Leaf(())), math.inf, 0.0)
