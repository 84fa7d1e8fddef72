"""Conflicts against brute force: what excludes each other does, and nothing in the set is idle."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import allocator
from allocator.conflicts import Conflict, Member, _smallest, conflict
from allocator.errors import UsageError
from allocator.problem import Problem
from allocator.relaxing import Oracle, constraints_of
from allocator.statement import Budget, Implies, MaxDistinct, Resource
from allocator.testing.depth import times
from allocator.testing.random_problems import PARTS, random_rows
from allocator.testing.reference import Reference


def place(member: Member) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in member.pointer.split("/")[1:]]


def kept(rows: dict[str, Any], members: list[Member]) -> dict[str, Any]:
    """The problem under these constraints alone."""
    places = [place(m) for m in members]
    budgets = []
    for i, row in enumerate(rows["budgets"]):
        sides = {side for part, at, *more in places if part == "budgets" and at == str(i) for side in more}
        if sides:
            budgets.append({k: v for k, v in row.items() if k not in ("max", "min") or k in sides})
    couplings = [c for i, c in enumerate(rows["couplings"]) if ["couplings", str(i)] in places]
    pins = {g: c for g, c in rows.get("pins", {}).items() if ["pins", g] in places}
    return rows | {"budgets": budgets, "couplings": couplings, "pins": pins}


def uses(rows: dict[str, Any], members: list[Member], row: dict[str, Any]) -> list[float]:
    """Every left side of the row that is reached under these constraints."""
    reference = Reference(kept(rows, members))
    return [reference.used(places, row) for places in reference.feasible]


def check(rows: dict[str, Any], found: Conflict) -> None:
    reference = Reference(rows)
    assert (found.status == "infeasible") == (reference.best is None)
    if found.status != "infeasible":
        assert found.status == "feasible"
        return
    assert found.irreducible
    members = list(found.members)
    assert not Reference(kept(rows, members)).feasible
    for member in members:
        others = [m for m in members if m is not member]
        assert Reference(kept(rows, others)).feasible
        if member.kind in ("max", "min"):
            row = rows["budgets"][int(place(member)[1])]
            reached = uses(rows, others, row)
            size = max(map(abs, reached)) * 1e-12
            assert member.least == pytest.approx(min(reached), rel=1e-12, abs=size)
            if member.most is not None:
                assert member.most == pytest.approx(max(reached), rel=1e-12, abs=size)
            assert member.relaxed == (member.least if member.kind == "max" else member.most)
            relaxed = kept(rows, members)
            for changed in relaxed["budgets"]:
                if member.kind in changed and {**changed, "max": 0, "min": 0} == {**row, "max": 0, "min": 0}:
                    changed[member.kind] = member.relaxed
            assert member.relaxed is None or Reference(relaxed).feasible


def test_conflicts_are_irreducible_and_relaxations_are_the_mildest() -> None:
    infeasible, sizes = 0, set()
    for seed in range(times(200)):
        rows = random_rows(seed, PARTS, most_allocations=60)
        found = conflict(Problem.from_rows(rows))
        check(rows, found)
        infeasible += found.status == "infeasible"
        sizes.add(len(found.members))
    assert infeasible > times(40)
    assert sizes >= {0, 1, 2}


def two_groups(*rows: Budget, **parts: Any) -> Problem:
    return Problem.from_arrays(
        np.array([[3.0, 2, 0], [2, 1, 0]]), {"bytes": np.array([[10, 20, 40], [10, 20, 40]])},
        group_names=["a", "b"], choice_names=["x", "y", "z"], resources={"bytes": Resource("byte", offset=5)}, **parts,
    ).replace(budgets=rows)  # fmt: skip


def test_budget_below_what_is_possible_stands_alone_with_the_smallest_max() -> None:
    found = conflict(two_groups(Budget("bytes", max=20)))
    [member] = found.members
    assert (member.pointer, member.limit, member.relaxed, member.least, member.most) == (
        "/budgets/0/max",
        20,
        25,
        25,
        85,
    )
    assert member.suffices
    assert found.proved
    assert found.lines == ("bytes max 20: the smallest that works is 25; it can be 25 to 85",)


def test_pin_and_budget_exclude_each_other_and_what_is_idle_is_left_out() -> None:
    problem = two_groups(
        Budget("bytes", max=50), Budget("bytes", min=6), pins={0: 2, 1: 3},
        couplings=(MaxDistinct(3, (0, 1)), Implies(0, 4)),
    )  # fmt: skip
    found = conflict(problem)
    assert [m.pointer for m in found.members] == ["/budgets/0/max", "/pins/a"]
    assert found.members[0].relaxed == 55
    assert found.members[1].relaxed is None
    assert [m.suffices for m in found.members] == [True, True]
    assert "pin a=z: drop it" in found.lines


def test_member_that_does_not_suffice_says_so() -> None:
    problem = two_groups(Budget("bytes", max=20), Budget(score="score", max=-1))
    found = conflict(problem)
    assert [m.suffices for m in found.members] == [False]
    assert found.lines[0].endswith("; other constraints conflict as well")
    assert conflict(problem, whole=False).members[0].suffices is None


def test_group_without_a_choice_is_named() -> None:
    problem = two_groups(allowed=np.array([True, True, True, False, False, False]))
    found = conflict(problem)
    assert (found.status, found.members) == ("infeasible", ())
    assert "'b' has no choice that is allowed" in found.headline


def test_feasible_problem_has_no_conflict() -> None:
    found = conflict(two_groups(Budget("bytes", max=50)))
    assert (found.status, found.members, found.lines) == ("feasible", (), ())


def test_what_the_solver_cannot_decide_is_said() -> None:
    problem = two_groups(Budget("bytes", max=50))
    assert conflict(problem, time_limit=1e-9).status == "unknown"
    rows = (Budget("bytes", max=45), Budget("bytes", min=60), Budget("bytes", min=50))
    later = Oracle(two_groups(*rows))
    everything = constraints_of(later.problem)
    assert later.feasible(everything) is False
    later.deadline = 0.0  # nothing more is answered: all that is left stays in the set
    assert _smallest(later, everything, lambda what, done, total: None) == everything
    assert later.undecided > 0


def test_unknown_solver_is_an_error() -> None:
    with pytest.raises(UsageError, match="nobody"):
        conflict(two_groups(Budget("bytes", max=50)), "nobody")


def test_document_is_plain_data() -> None:
    document = json.loads(json.dumps(conflict(two_groups(Budget("bytes", max=20))).to_json()))
    assert document["members"][0]["relaxed"] == 25
    assert allocator.conflict is conflict


def test_many_pins_take_few_questions() -> None:
    rng = np.random.default_rng(0)
    costs = rng.integers(1, 100, (300, 4))
    dearest = costs.argmax(axis=1)
    pins = {g: 4 * g + int(dearest[g]) for g in range(300)}
    limit = int(costs.min(axis=1).sum())
    problem = Problem.from_arrays(rng.random((300, 4)), costs, budgets={"cost": limit}, pins=pins)
    found = conflict(problem, whole=False)
    assert len(found.members) == 2
    assert {m.kind for m in found.members} == {"max", "pin"}
