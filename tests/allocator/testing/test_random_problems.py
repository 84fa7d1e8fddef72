"""The generator itself: repeatable, inside what was asked for, and covering what it says."""

from __future__ import annotations

from collections import Counter

import pytest

from allocator import features
from allocator.problem import Problem
from allocator.testing.random_problems import LINEAR, PARTS, random_rows
from allocator.testing.reference import Reference

SAMPLE = 400


def test_a_seed_decides() -> None:
    assert random_rows(5) == random_rows(5)
    assert random_rows(5) != random_rows(6)


def test_every_feature_occurs_often() -> None:
    seen: Counter[str] = Counter()
    for seed in range(SAMPLE):
        seen.update(Problem.from_rows(random_rows(seed)).features)
    assert {f: n for f in features.ALL if (n := seen[f]) < SAMPLE // 50} == {}


def test_feasible_and_infeasible_problems_both_occur() -> None:
    infeasible = sum(Reference(random_rows(seed, most_allocations=60)).best is None for seed in range(SAMPLE))
    assert SAMPLE // 10 < infeasible < SAMPLE // 2


@pytest.mark.parametrize("parts", [LINEAR, features.LINEAR, features.ALL, frozenset({"pairs"}), frozenset()])
def test_only_what_was_asked_for_occurs(parts: frozenset[str]) -> None:
    for seed in range(SAMPLE // 2):
        assert Problem.from_rows(random_rows(seed, parts)).features <= parts & features.ALL


def test_leaving_one_feature_out_leaves_it_out() -> None:
    for part in sorted(features.ALL):
        for seed in range(40):
            assert part not in Problem.from_rows(random_rows(seed, PARTS - {part})).features


def test_budgets_are_met_to_the_last_bit_at_times() -> None:
    tight = 0
    for seed in range(SAMPLE):
        rows = random_rows(seed, most_allocations=60)
        reference = Reference(rows)
        for row in rows["budgets"]:
            limits = {row.get("max"), row.get("min")} - {None}
            tight += any(reference.used(places, row) in limits for places in reference.feasible)
    assert tight > SAMPLE // 5


def test_sizes_stay_within_the_limits() -> None:
    for seed in range(SAMPLE):
        rows = random_rows(seed, most_groups=3, most_choices=2, most_allocations=4)
        assert len(rows["groups"]) <= 3
        assert Reference(rows).count <= 4
        assert all(len(group["choices"]) <= 2 for group in rows["groups"])


def test_stats_are_given_to_every_group_and_change_nothing_else() -> None:
    for seed in range(50):
        plain, needed = random_rows(seed, PARTS - {"stats"}), random_rows(seed, stats=("rank", "norm"))
        assert not any("stats" in group for group in plain["groups"])
        for group in needed["groups"]:
            stats = group.pop("stats")
            assert set(stats) == {"rank", "norm"}
            assert all(value > 0 for value in stats.values())
        assert needed == plain
    named = [{tuple(group.get("stats", ())) for group in random_rows(seed)["groups"]} for seed in range(100)]
    assert all(len(names) == 1 for names in named)  # the columns form has a stat for all groups or for none
    assert {names.pop() for names in named} == {(), ("alpha",), ("beta",), ("alpha", "beta")}
