"""Each transformation does to the optimum what it says, by the dumb reference, and leaves what it was given alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from allocator.problem import Problem
from allocator.testing import transformations as t
from allocator.testing.claims import tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import DETAILS, MASKS, PARTS, random_rows
from allocator.testing.reference import Reference

PLAIN = MASKS | DETAILS - {"negative_weights"}
CASES: dict[str, tuple[frozenset[str], Callable[[Any, Random], t.Transformed]]] = {
    "permuted": (PARTS, t.permuted),
    "up": (PARTS, lambda rows, rng: t.losses_scaled(rows, 30)),
    "down": (PARTS, lambda rows, rng: t.losses_scaled(rows, -40)),
    "costs": (PARTS, lambda rows, rng: t.costs_scaled(rows, 3)),
    "dominated": (t.ONE_WAY | PLAIN, t.dominated_added),
    "constant": (t.ADDS_UP | PLAIN, t.constant_added),
    "loosened": (PARTS, t.budgets_loosened),
}


@pytest.mark.parametrize("name", CASES)
def test_the_optimum_follows(name: str) -> None:
    parts, transform = CASES[name]
    changed = 0
    for seed in range(times(150)):
        rows = random_rows(seed, parts, most_allocations=40)
        before = copy.deepcopy(rows)
        made = transform(rows, Random(seed))
        assert rows == before, seed
        Problem.from_rows(made.rows)
        first, second = Reference(rows), Reference(made.rows)
        changed += made.rows != rows
        if first.best is None:
            assert second.best is None or made.at_most, seed
            continue
        assert second.best is not None, seed
        slip = tolerance(first) * max(1.0, made.factor) + tolerance(second) + 1e-300
        expected = made.expected(first.best.objective)
        assert second.best.objective <= expected + slip, seed
        if not made.at_most:
            assert second.best.objective >= expected - slip, seed
    assert changed > times(150) // 2


def test_integer_costs_are_scaled_in_integers() -> None:
    rows = random_rows(0, frozenset())
    rows["groups"][0]["choices"][0]["cost"] = dict.fromkeys(rows["groups"][0]["choices"][0]["cost"], 2**50 + 1)
    for choice in (c for g in rows["groups"] for c in g["choices"]):
        choice["cost"] = {r: int(v) for r, v in choice["cost"].items()}
    rows["budgets"] = [{"resource": "bytes", "max": 7.9}]
    made = t.costs_scaled(rows, 3).rows
    assert made["groups"][0]["choices"][0]["cost"]["bytes"] == 3 * (2**50 + 1)
    assert made["budgets"] == [{"resource": "bytes", "max": 21}]


def test_a_loosened_budget_can_be_felt() -> None:
    lower = 0
    for seed in range(120):
        rows = random_rows(seed, frozenset(), most_allocations=40)
        first, second = Reference(rows).best, Reference(t.budgets_loosened(rows, Random(seed)).rows).best
        lower += first is not None and second is not None and second.objective < first.objective
    assert lower > 5
