"""The meaning of a problem in the row form, one allocation at a time: slow, plain Python, nothing shared with the core.

What `Problem.evaluate`, the checks and every exact backend are compared with. An allocation is a tuple of
places, one per group. Only row dictionaries as they come out of `json.loads` are taken, and they are not
validated: a nonsensical problem gives nonsense.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Places = tuple[int, ...]
Rows = Mapping[str, Any]
RELAXED = 1 + 1e-12


@dataclass(frozen=True)
class Best:
    """The optimum found by looking at everything: smallest objective, then (for a `max` loss) smallest Σ unary."""

    places: Places
    objective: float
    tie: float


class Reference:
    """One problem in the row form.

    Attributes:
        rows: the problem as plain data.
        groups: its groups.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.groups: list[dict[str, Any]] = rows["groups"]
        self._position = {group["name"]: g for g, group in enumerate(self.groups)}
        self._place = [{choice["name"]: k for k, choice in enumerate(group["choices"])} for group in self.groups]
        spec = rows.get("loss", {})
        self.aggregate: str = spec.get("aggregate", "sum")
        self.terms: dict[str, float] = spec.get("terms") or dict.fromkeys(self.groups[0]["choices"][0]["score"], 1.0)
        minimize = rows.get("minimize", "loss")
        self.minimize: dict[str, float] = {minimize: 1.0} if isinstance(minimize, str) else minimize
        self.unary: list[list[float]] = [[self._unary(choice) for choice in group["choices"]] for group in self.groups]

    def _unary(self, choice: Mapping[str, Any]) -> float:
        """Loss of a choice by itself: Σ_terms weight·(score + stderr_weight·stderr)."""
        k = self.rows.get("loss", {}).get("stderr_weight", 0.0)
        errors = choice.get("stderr", {})
        return math.fsum(w * (choice["score"][s] + k * errors.get(s, 0.0)) for s, w in self.terms.items())

    # -- one allocation -------------------------------------------------------------------------------------------

    def loss(self, places: Places) -> float:
        """Aggregate of the unaries, plus the interactions of scores that are terms."""
        unaries = [self.unary[g][k] for g, k in enumerate(places)]
        if self.aggregate == "max":
            return max(unaries)
        if self.aggregate == "pnorm":
            p, largest = self.rows["loss"]["p"], max(unaries)
            return largest * math.fsum((u / largest) ** p for u in unaries) ** (1 / p) if largest else 0.0
        return math.fsum([*unaries, *self._between(places)])

    def _between(self, places: Places) -> Iterator[float]:
        """Pairs that are taken, and ½ Σ_i e_i [(Σ_g v_gi)² − Σ_g v_gi²]."""
        for part in self.rows.get("interactions", []):
            weight = self.terms.get(part["score"], 0.0)
            for pair in part.get("pairs", []):
                if self._takes(places, pair["a"]) and self._takes(places, pair["b"]):
                    yield weight * pair["value"]
            if "basis" not in part:
                continue
            vectors = part["basis"].get("vectors", {})
            taken = []
            for name, by_choice in vectors.items():
                group = self.groups[self._position[name]]
                choice = group["choices"][places[self._position[name]]]["name"]
                if choice in by_choice:
                    taken.append(by_choice[choice])
            for i, e in enumerate(part["basis"]["eigenvalues"]):
                along = [vector[i] for vector in taken]
                yield weight * 0.5 * e * (math.fsum(along) ** 2 - math.fsum(x * x for x in along))

    def _takes(self, places: Places, place: tuple[str, str]) -> bool:
        g = self._position[place[0]]
        return places[g] == self._place[g][place[1]]

    @cached_property
    def resources(self) -> tuple[str, ...]:
        """Names of the resources."""
        return tuple(self.groups[0]["choices"][0]["cost"])

    @cached_property
    def exact(self) -> dict[str, bool]:
        """Resource → whether all its numbers are integers, of an absolute sum below 2^63."""
        found = {}
        for r in self.resources:
            numbers = [choice["cost"][r] for group in self.groups for choice in group["choices"]]
            numbers.append(self._offset(r))
            whole = all(isinstance(x, int) or x == math.floor(x) for x in numbers)
            found[r] = whole and sum(abs(int(x)) for x in numbers) < 2**63
        return found

    def _offset(self, resource: str) -> float:
        offset: float = self.rows.get("resources", {}).get(resource, {}).get("offset", 0)
        return offset

    def total(self, places: Places, resource: str, tags: list[str] | None = None) -> float:
        """Use of a resource by all groups and the offset; with tags by those that have any, without the offset."""
        counted = [
            group["choices"][k]["cost"][resource]
            for group, k in zip(self.groups, places, strict=True)
            if tags is None or set(tags) & set(group.get("tags", []))
        ]
        offset = self._offset(resource) if tags is None else 0
        largest = self.rows.get("resources", {}).get(resource, {}).get("aggregate") == "max"
        if self.exact[resource]:
            whole = [int(x) for x in counted]
            return max([int(offset), *whole]) if largest else int(offset) + sum(whole)
        return float(max([offset, *counted])) if largest else math.fsum([offset, *counted])

    def totals(self, places: Places) -> dict[str, float]:
        """Total of every resource."""
        return {r: self.total(places, r) for r in self.resources}

    def used(self, places: Places, budget: Mapping[str, Any]) -> float:
        """Left side of a budget row."""
        if budget.get("loss"):
            return self.loss(places)
        if "resource" in budget:
            return self.total(places, budget["resource"], budget.get("tags"))
        name, parts = budget["score"], []
        for group, k in zip(self.groups, places, strict=True):
            if "tags" in budget and not set(budget["tags"]) & set(group.get("tags", [])):
                continue
            choice = group["choices"][k]
            extra = choice.get("remainder", {}).get(name, 0.0) if budget.get("include_remainder") else 0.0
            parts.append(choice["score"][name] + extra)
        return math.fsum(parts)

    def violations(self, places: Places) -> list[str]:
        """What the allocation breaks: one entry per forbidden choice, pin, side of a budget, and coupling."""
        found = []
        for group, k in zip(self.groups, places, strict=True):
            choice = group["choices"][k]
            if not choice.get("allowed", True):
                found.append(f"{group['name']} takes {choice['name']}, which is forbidden")
        for name, wanted in self.rows.get("pins", {}).items():
            if not self._takes(places, (name, wanted)):
                found.append(f"{name} is not at its pin {wanted}")
        for i, budget in enumerate(self.rows.get("budgets", [])):
            use = self.used(places, budget)
            whole = "resource" in budget and self.exact[budget["resource"]]
            if "max" in budget and use > _highest(budget["max"], whole):
                found.append(f"budget {i} is over its max")
            if "min" in budget and use < _lowest(budget["min"], whole):
                found.append(f"budget {i} is under its min")
        for i, coupling in enumerate(self.rows.get("couplings", [])):
            if not self._kept(places, coupling):
                found.append(f"coupling {i} is broken")
        return found

    def _kept(self, places: Places, coupling: Mapping[str, Any]) -> bool:
        kind = coupling["kind"]
        if kind == "implies":
            return not self._takes(places, coupling["if"]) or self._takes(places, coupling["then"])
        if kind in ("at_most", "at_least", "exactly"):
            taken, count = sum(self._takes(places, place) for place in coupling["choices"]), coupling["count"]
            return bool({"at_most": taken <= count, "at_least": taken >= count, "exactly": taken == count}[kind])
        if kind == "same_choice":
            return len({self._label(places, self._position[name]) for name in coupling["groups"]}) == 1
        scope = [self._position[name] for name in coupling.get("groups", [])] or [
            g
            for g, group in enumerate(self.groups)
            if "tags" not in coupling or set(coupling["tags"]) & set(group.get("tags", []))
        ]
        labels = {self._label(places, g) for g in scope} - set(coupling.get("ignore", []))
        return len(labels) <= int(coupling["count"])

    def _label(self, places: Places, group: int) -> str:
        choice = self.groups[group]["choices"][places[group]]
        label: str = choice.get("label", choice["name"])
        return label

    def objective(self, places: Places) -> float:
        """What is minimised."""
        return math.fsum(
            weight * (self.loss(places) if name == "loss" else self.total(places, name))
            for name, weight in self.minimize.items()
        )

    def tie(self, places: Places) -> float:
        """Tells equal maxima apart: Σ unary where the least maximum of the loss is sought, else 0."""
        if self.aggregate != "max" or list(self.minimize) != ["loss"]:
            return 0.0
        return math.fsum(self.unary[g][k] for g, k in enumerate(places))

    def names(self, places: Places) -> dict[str, str]:
        """Group → choice."""
        return {group["name"]: group["choices"][k]["name"] for group, k in zip(self.groups, places, strict=True)}

    # -- all of them ----------------------------------------------------------------------------------------------

    def allocations(self) -> Iterator[Places]:
        """Every allocation, feasible or not."""
        return itertools.product(*(range(len(group["choices"])) for group in self.groups))

    @property
    def count(self) -> int:
        """Number of allocations."""
        return math.prod(len(group["choices"]) for group in self.groups)

    @cached_property
    def feasible(self) -> list[Places]:
        """Every allocation that breaks nothing."""
        return [places for places in self.allocations() if not self.violations(places)]

    @cached_property
    def best(self) -> Best | None:
        """The optimum, or None where nothing is feasible."""
        found: Best | None = None
        for places in self.feasible:
            objective, tie = self.objective(places), self.tie(places)
            if found is None or (objective, tie) < (found.objective, found.tie):
                found = Best(places, objective, tie)
        return found

    @cached_property
    def scale(self) -> float:
        """S, which tolerances are relative to: Σ |weight|·S_part, each group's largest entry among what it may take."""
        return sum(abs(w) * (self._loss_scale() if r == "loss" else self._size(r)) for r, w in self.minimize.items())

    def _loss_scale(self) -> float:
        size = 0.0
        bent = [list(unaries) for unaries in self.unary]
        for part in self.rows.get("interactions", []):
            weight = self.terms.get(part["score"], 0.0)
            size += sum(abs(weight * pair["value"]) for pair in part.get("pairs", []))
            for name, by_choice in part.get("basis", {}).get("vectors", {}).items():
                for choice, vector in by_choice.items():
                    g = self._position[name]
                    own = sum(e * x * x for e, x in zip(part["basis"]["eigenvalues"], vector, strict=True))
                    bent[g][self._place[g][choice]] -= 0.5 * weight * own
        return size + sum(max((abs(bent[g][k]) for k in self.free[g]), default=0.0) for g in range(len(self.groups)))

    def _size(self, resource: str) -> float:
        largest = (
            max((abs(group["choices"][k]["cost"][resource]) for k in self.free[g]), default=0)
            for g, group in enumerate(self.groups)
        )
        return float(abs(self._offset(resource)) + sum(largest))

    @cached_property
    def free(self) -> list[list[int]]:
        """Places that may be taken in each group: allowed, and not against a pin."""
        pins = self.rows.get("pins", {})
        return [
            [
                k
                for k, choice in enumerate(group["choices"])
                if choice.get("allowed", True) and pins.get(group["name"], choice["name"]) == choice["name"]
            ]
            for group in self.groups
        ]

    @cached_property
    def noise(self) -> float:
        """What rounding alone may move an objective by: it counts where interactions cancel and S is close to 0."""
        if "loss" not in self.minimize or self.aggregate != "sum":
            return 0.0
        size = sum(max(map(abs, unaries)) for unaries in self.unary)
        for part in self.rows.get("interactions", []):
            weight = self.terms.get(part["score"], 0.0)
            size += sum(abs(weight * pair["value"]) for pair in part.get("pairs", []))
            vectors = part.get("basis", {}).get("vectors", {})
            for i, e in enumerate(part.get("basis", {}).get("eigenvalues", [])):
                reach = sum(max((abs(v[i]) for v in by_choice.values()), default=0.0) for by_choice in vectors.values())
                size += abs(weight * e) * reach * reach
        return 2.0**-50 * size * abs(self.minimize["loss"])


def _highest(limit: float, whole: bool) -> float:
    if whole:
        return math.floor(limit)
    return limit * RELAXED if limit > 0 else limit / RELAXED


def _lowest(limit: float, whole: bool) -> float:
    if whole:
        return math.ceil(limit)
    return limit / RELAXED if limit > 0 else limit * RELAXED
