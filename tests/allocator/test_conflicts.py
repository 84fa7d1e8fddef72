"""Conflicts against brute force: what excludes each other does, and nothing in the set is idle."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import allocator
from allocator.conflicts import Conflict, Member, conflict
from allocator.errors import UsageError
from allocator.problem import Problem
from allocator.testing.depth import times
from allocator.testing.random_problems import PARTS, random_rows
from allocator.testing.reference import RELAXED, Reference

SUMS = PARTS - {"max_loss", "pnorm_loss", "pairs", "basis"}


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
    for seed in range(times(400)):
        rows = random_rows(seed, SUMS, most_allocations=100)
        found = conflict(Problem.from_rows(rows))
        check(rows, found)
        infeasible += found.status == "infeasible"
        sizes.add(len(found.members))
    assert infeasible > times(40)
    assert sizes >= {0, 1, 2, 3}
