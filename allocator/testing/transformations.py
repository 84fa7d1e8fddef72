"""Problems made of other problems, whose optimum follows: what a backend has to find unchanged under another guise.

Row form in, row form out; nothing given is changed. Where a transformation would not keep the meaning of some part
of the format, it says so; it is not applied to problems that have the part.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from allocator import features
from allocator.testing.reference import Reference, Rows

COUPLED = frozenset({"same_choice", "max_distinct", "cardinality", "implies"})
BETWEEN = frozenset({"pairs", "basis"})
ADDS_UP = features.ALL - {"max_loss", "pnorm_loss", "score_budgets", "loss_budgets"}
"""Features under which a constant added to a group's losses moves every objective alike."""
ONE_WAY = features.ALL - COUPLED - BETWEEN - {"lower_budgets"}
"""Features under which less loss and less cost is never worse (weights of the objective at 0 or above)."""


@dataclass(frozen=True)
class Transformed:
    """Another problem with optimum factor·optimum + shift, or at most that where `at_most` is set."""

    rows: dict[str, Any]
    factor: float = 1.0
    shift: float = 0.0
    at_most: bool = False

    def expected(self, objective: float) -> float:
        """The optimum that follows from the first problem's."""
        return self.factor * objective + self.shift


def permuted(rows: Rows, rng: Random) -> Transformed:
    """Groups, the choices of each group, budgets, couplings and pairs in another order."""
    new = _copy(rows)
    rng.shuffle(new["groups"])
    for group in new["groups"]:
        rng.shuffle(group["choices"])
    for part in [new.get("budgets", []), new.get("couplings", [])]:
        rng.shuffle(part)
    for part in new.get("interactions", []):
        rng.shuffle(part.get("pairs", []))
    return Transformed(new)


def losses_scaled(rows: Rows, power: int) -> Transformed:
    """Every score times 2^power, with whatever limits scores, the loss, or weighs resources against it.

    A power of 2 rounds nothing, so that the same allocations keep the same limits to the last bit.
    """
    new, factor = _copy(rows), 2.0**power
    for choice in _choices(new):
        for part in ("score", "stderr", "remainder"):
            if part in choice:
                choice[part] = {s: value * factor for s, value in choice[part].items()}
    for part in new.get("interactions", []):
        for pair in part.get("pairs", []):
            pair["value"] *= factor
        if "basis" in part:
            part["basis"]["eigenvalues"] = [e * factor for e in part["basis"]["eigenvalues"]]
    for budget in new.get("budgets", []):
        if "resource" not in budget:
            budget |= {side: budget[side] * factor for side in ("max", "min") if side in budget}
    minimize = new.get("minimize", "loss")
    if isinstance(minimize, dict):
        new["minimize"] = {name: w if name == "loss" else w * factor for name, w in minimize.items()}
    return Transformed(new, factor=1.0 if isinstance(minimize, str) and minimize != "loss" else factor)


def costs_scaled(rows: Rows, factor: int) -> Transformed:
    """Costs, offset and limits of resources times an integer.

    Only integer columns that stay below 2^62 and are not part of the objective: others would round.
    """
    new, reference = _copy(rows), Reference(rows)
    for resource in reference.resources:
        numbers = [choice["cost"][resource] for choice in _choices(new)]
        spec = new.get("resources", {}).get(resource, {})
        size = sum(abs(int(x)) for x in [*numbers, spec.get("offset", 0)]) if reference.exact[resource] else math.inf
        if resource in reference.minimize or size * abs(factor) >= 2**62:
            continue
        for choice in _choices(new):
            choice["cost"][resource] = int(choice["cost"][resource]) * factor
        if "offset" in spec:
            spec["offset"] = int(spec["offset"]) * factor
        for budget in new.get("budgets", []):
            if budget.get("resource") == resource:
                budget |= {
                    side: whole(budget[side]) * factor
                    for side, whole in (("max", math.floor), ("min", math.ceil))
                    if side in budget
                }
    return Transformed(new)


def dominated_added(rows: Rows, rng: Random) -> Transformed:
    """A choice that costs and loses no less than another of its group. Features within `ONE_WAY`."""
    new = _copy(rows)
    group = rng.choice(new["groups"])
    pattern = rng.choice(group["choices"])
    worse = copy.deepcopy(pattern)
    worse["name"] = "worse than " + pattern["name"]
    worse.setdefault("label", pattern["name"])
    worse["cost"] = {r: value + rng.choice([0, 1, 3]) for r, value in pattern["cost"].items()}
    worse["score"] = {s: value + rng.choice([0.0, abs(value)]) for s, value in pattern["score"].items()}
    group["choices"].insert(rng.randint(0, len(group["choices"])), worse)
    return Transformed(new)


def constant_added(rows: Rows, rng: Random) -> Transformed:
    """The same number added to a score of all choices of a group. Features within `ADDS_UP`."""
    new, reference = _copy(rows), Reference(rows)
    score, weight = rng.choice(sorted(reference.terms.items()))
    group = rng.choice(new["groups"])
    largest = max(abs(choice["score"][score]) for choice in group["choices"])
    constant = math.ldexp(rng.choice([-1.0, 1.0]), math.frexp(largest)[1])
    for choice in group["choices"]:
        choice["score"][score] += constant
    return Transformed(new, shift=reference.minimize.get("loss", 0.0) * weight * constant)


def budgets_loosened(rows: Rows, rng: Random) -> Transformed:
    """Every limit moved out: the optimum can only fall."""
    new = _copy(rows)
    for budget in new.get("budgets", []):
        for side, sign in (("max", 1), ("min", -1)):
            if side in budget:
                step = abs(budget[side]) // 8 + 1 if isinstance(budget[side], int) else abs(budget[side]) / 8
                budget[side] += sign * rng.choice([0, 1, 2]) * step
    return Transformed(new, at_most=True)


def _choices(rows: Rows) -> Iterator[dict[str, Any]]:
    for group in rows["groups"]:
        yield from group["choices"]


def _copy(rows: Rows) -> dict[str, Any]:
    return copy.deepcopy(dict(rows))
