"""Small random problems in the row form that use every part of the format; a seed and a list of parts decide.

    rows = random_rows(7)                          # anything may occur
    rows = random_rows(7, LINEAR)                  # separable: sums under budgets only
    rows = random_rows(7, LINEAR | {"pins"})

Numbers are drawn to hurt: ties, whole-instance scales from 1e-12 to 1e12, integers beyond 2^53, budgets that
equal the total of one allocation to the last bit, signs where the format allows them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Any

from allocator import features
from allocator.testing.reference import Reference

MASKS = frozenset({"pins", "forbidden", "max_masks"})
DETAILS = frozenset(
    {"labels", "stderr", "offsets", "scales", "signed_costs", "negative_weights", "several_scores", "stats"}
)
PARTS = features.ALL | MASKS | DETAILS
LINEAR = features.LINEAR | MASKS | DETAILS - {"negative_weights"}
"""Parts whose problems have no feature beyond `allocator.features.LINEAR`."""

LABELS = ("a", "b", "c", "d", "e")
TAGS = ("x", "y", "z")
STATS = ("alpha", "beta")


def random_rows(
    seed: int | Random,
    parts: Collection[str] = PARTS,
    *,
    most_groups: int = 6,
    most_choices: int = 4,
    most_allocations: int = 300,
    stats: Sequence[str] = (),
) -> dict[str, Any]:
    """One problem in the row form.

    Args:
        seed: of the draw, or the generator itself.
        parts: what may occur: names of `allocator.features`, of `MASKS` and of `DETAILS`.
        most_groups: groups at most.
        most_choices: choices per group at most.
        most_allocations: product of the sizes at most, so that all of them can be looked at.
        stats: names of the per-layer numbers (above 0) that every group gets; whatever else is drawn stays the same.
            With none, some problems get some of `STATS`, where that part may occur.
    """
    draw = _Draw(seed if isinstance(seed, Random) else Random(seed), parts)
    rows = draw.problem(most_groups, most_choices, most_allocations)
    draw.stats(stats)
    return rows


class _Draw:
    def __init__(self, rng: Random, parts: Collection[str]) -> None:
        self.rng = rng
        self.parts = parts

    def may(self, part: str, chance: float) -> bool:
        return self.rng.random() < chance and part in self.parts

    def problem(self, most_groups: int, most_choices: int, most_allocations: int) -> dict[str, Any]:
        rng = self.rng
        sizes: list[int] = []
        for _ in range(rng.choice([rng.randint(1, most_groups), most_groups])):
            size = rng.choice([rng.randint(1, most_choices), most_choices])
            sizes.append(size if size * math.prod(sizes) <= most_allocations else 1)
        rng.shuffle(sizes)
        self.scores = ["s", "t", "u"][: rng.choice([1, 1, 2, 3]) if "several_scores" in self.parts else 1]
        self.resources = ["bytes", "ms", "peak"][: rng.randint(1, 3)]
        self.scale = 10.0 ** rng.randint(-12, 12) if self.may("scales", 0.4) else 1.0
        out: dict[str, Any] = {"format": "allocation-problem", "version": 1}
        out["resources"] = {r: self._resource(r) for r in self.resources}
        score = {s: self._score_numbers() for s in self.scores}
        cost = {r: self._cost_numbers() for r in self.resources}
        own_labels, errors = self.may("labels", 0.3), self.may("stderr", 0.4)
        plain = rng.random() < 0.5  # every group has the same choices, as in practice
        out["groups"] = [self._group(g, size, score, cost, own_labels, errors, plain) for g, size in enumerate(sizes)]
        self.groups = out["groups"]
        out["loss"] = self._loss(errors)
        self._nonnegative(out)
        if self.may("pins", 0.2):
            group = rng.choice(self.groups)
            free = [c["name"] for c in group["choices"] if c.get("allowed", True)]
            out["pins"] = {group["name"]: rng.choice(free)} if free else {}
        out["interactions"] = self._interactions() if out["loss"]["aggregate"] == "sum" else []
        out["minimize"] = self._minimize(out)
        out["couplings"] = self._couplings()
        self.reference = Reference(out)
        drawn = [tuple(rng.randrange(size) for size in sizes) for _ in range(30)]
        kept = [places for places in drawn if not self.reference.violations(places)]
        self.samples = (kept + drawn)[:6]
        out["budgets"] = self._budgets(out)
        return out

    def stats(self, needed: Sequence[str]) -> None:
        """The last draw, so that it moves no other."""
        some = self.may("stats", 0.3)
        names = needed or [name for name in STATS if some and self.rng.random() < 0.7]
        for group in self.groups if names else ():
            group["stats"] = {name: 10.0 ** self.rng.uniform(-3, 3) for name in names}

    # -- numbers --------------------------------------------------------------------------------------------------

    def _score_numbers(self) -> Callable[[int], float]:
        """A number for a choice at a place; later places are better, roughly."""
        rng, scale = self.rng, self.scale
        sign = rng.random() < 0.3
        kind = rng.choice(["uniform", "integer", "equal", "decimal", "decay", "wide"])
        equal = float(rng.randint(0, 3))

        def draw(place: int) -> float:
            if kind == "uniform":
                value = rng.random()
            elif kind == "integer":
                value = float(rng.randint(0, 4))
            elif kind == "equal":
                value = equal
            elif kind == "decimal":
                value = rng.randint(0, 30) / 10
            elif kind == "decay":
                value = rng.random() * 4.0**-place
            else:
                value = rng.random() * 10.0 ** rng.randint(-9, 3)
            return (value - (0.5 if kind == "uniform" else 2.0) if sign else value) * scale

        return draw

    def _cost_numbers(self) -> Callable[[int], float]:
        rng = self.rng
        kind = rng.choice(["integer", "small", "spelled", "decimal", "uniform", "huge", "mixed", "sizes"])
        signed = self.may("signed_costs", 0.25)
        weights = rng.randint(1, 5000)

        def draw(place: int) -> float:
            value: float
            if kind == "integer":
                value = rng.randint(0, 1000)
            elif kind == "small":
                value = rng.randint(0, 5)
            elif kind == "spelled":
                value = float(rng.randint(0, 50)) if rng.random() < 0.7 else rng.randint(0, 50)
            elif kind == "decimal":
                value = rng.randint(0, 40) / 10
            elif kind == "uniform":
                value = rng.random() * 100
            elif kind == "huge":
                value = 2 ** rng.randint(53, 57) + rng.randint(0, 9)
            elif kind == "mixed":
                value = rng.randint(0, 20) / 2 if rng.random() < 0.3 else rng.randint(0, 9)
            else:
                value = weights * (place + 1) // 2 + rng.randint(0, 3)
            return -value if signed and rng.random() < 0.5 else value

        return draw

    # -- the parts ------------------------------------------------------------------------------------------------

    def _resource(self, name: str) -> dict[str, Any]:
        rng = self.rng
        spec: dict[str, Any] = {"unit": {"bytes": "byte", "ms": "ms", "peak": "byte"}[name]}
        if rng.random() < (0.6 if name == "peak" else 0.1) and {"max_resource", "max_masks"} & set(self.parts):
            spec["aggregate"] = "max"
        if self.may("offsets", 0.4):
            spec["offset"] = rng.choice([rng.randint(0, 40), 5.0, 0.25, 1e9 + 0.1, 2**53 + 1, -7])
        return spec

    def _group(
        self,
        g: int,
        size: int,
        score: dict[str, Callable[[int], float]],
        cost: dict[str, Callable[[int], float]],
        own_labels: bool,
        errors: bool,
        plain: bool,
    ) -> dict[str, Any]:
        rng = self.rng
        names = list(LABELS[:size]) if plain else rng.sample(LABELS, size)
        choices: list[dict[str, Any]] = []
        for k, name in enumerate(names):
            choice: dict[str, Any] = {
                "name": name,
                "cost": {r: draw(k) for r, draw in cost.items()},
                "score": {s: draw(k) for s, draw in score.items()},
            }
            if own_labels and rng.random() < 0.6:
                choice["label"] = rng.choice(LABELS[:3])
            if errors:
                choice["stderr"] = {s: rng.random() * self.scale for s in self.scores if rng.random() < 0.7}
            if "score_budgets" in self.parts and rng.random() < 0.3:
                choice["remainder"] = {s: rng.random() * self.scale for s in self.scores if rng.random() < 0.7}
            if self.may("forbidden", 0.08):
                choice["allowed"] = False
            choices.append(choice)
        group: dict[str, Any] = {"name": f"layer{g}", "choices": choices}
        if tags := [t for t in TAGS if rng.random() < 0.4]:
            group["tags"] = tags
        return group

    def _loss(self, errors: bool) -> dict[str, Any]:
        rng = self.rng
        named = [s for s in self.scores if rng.random() < 0.8] or self.scores[:1]
        weights = [1.0, 1.0, 0.5, 3.0, 0.1, 0.0 if len(named) > 1 else 2.0]
        loss: dict[str, Any] = {"terms": {s: rng.choice(weights) for s in named}, "aggregate": "sum"}
        if self.may("max_loss", 0.15):
            loss["aggregate"] = "max"
        elif self.may("pnorm_loss", 0.18):
            loss |= {"aggregate": "pnorm", "p": rng.choice([1, 1.5, 2, 3, 8, 40])}
        if errors and rng.random() < 0.7:
            loss["stderr_weight"] = rng.choice([0.5, 1.0, 2.0])
        return loss

    def _nonnegative(self, out: dict[str, Any]) -> None:
        """A p-norm takes unaries of 0 or more only."""
        if out["loss"]["aggregate"] == "pnorm":
            for group in self.groups:
                for choice in group["choices"]:
                    choice["score"] = {s: abs(v) for s, v in choice["score"].items()}

    def _interactions(self) -> list[dict[str, Any]]:
        rng = self.rng
        found: list[dict[str, Any]] = []
        if self.may("pairs", 0.25) and len(self.groups) > 1:
            pairs = []
            for _ in range(rng.randint(1, 6)):
                a, b = rng.sample(self.groups, 2)
                value = rng.random() * 2 - 1 if rng.random() < 0.7 else rng.choice([-1, 0, 1])
                pairs.append({"a": self._place(a), "b": self._place(b), "value": value * self.scale})
            found.append({"score": rng.choice(self.scores), "pairs": pairs})
        if self.may("basis", 0.25):
            rank = rng.randint(1, 3)
            eigenvalues = [(rng.random() * 2 - 0.6) * self.scale for _ in range(rank)]
            vectors: dict[str, dict[str, list[float]]] = {}
            for group in self.groups:
                for choice in group["choices"]:
                    if rng.random() < 0.8:
                        vector = [rng.random() * 2 - 1 for _ in range(rank)]
                        vectors.setdefault(group["name"], {})[choice["name"]] = vector
            basis = {"eigenvalues": eigenvalues, "vectors": vectors}
            found.append({"score": rng.choice(self.scores), "basis": basis})
        return found

    def _place(self, group: dict[str, Any]) -> list[str]:
        return [group["name"], self.rng.choice(group["choices"])["name"]]

    def _minimize(self, out: dict[str, Any]) -> str | dict[str, float]:
        rng = self.rng
        if not self.may("resource_objective", 0.3):
            return "loss"
        sums = [r for r in self.resources if out["resources"][r].get("aggregate") != "max"]
        known = self.resources if "max_resource" in self.parts else sums
        if not known:
            return "loss"
        if rng.random() < 0.5:
            return rng.choice(known)
        mixture = {rng.choice(known): rng.choice([1.0, 0.1, 1e-6])}
        if rng.random() < 0.8:
            mixture["loss"] = rng.choice([1.0, 2.0])
        if self.may("negative_weights", 0.2):
            name = rng.choice(list(mixture))
            mixture[name] = -mixture[name]
        return mixture

    def _couplings(self) -> list[dict[str, Any]]:
        rng = self.rng
        found: list[dict[str, Any]] = []
        names = [group["name"] for group in self.groups]
        everything = [[group["name"], c["name"]] for group in self.groups for c in group["choices"]]
        for _ in range(2):  # twice, so that they overlap at times
            if self.may("same_choice", 0.15):
                members = rng.sample(names, min(rng.randint(2, 3), len(names)))
                found += [{"kind": "same_choice", "groups": members}]
            if self.may("cardinality", 0.13):
                listed = rng.sample(everything, rng.randint(1, min(5, len(everything))))
                kind = rng.choice(["at_most", "at_least", "exactly"])
                found += [{"kind": kind, "choices": listed, "count": rng.randint(0, 3)}]
            if self.may("implies", 0.15):
                found += [{"kind": "implies", "if": rng.choice(everything), "then": rng.choice(everything)}]
        if self.may("max_distinct", 0.25):
            row: dict[str, Any] = {"kind": "max_distinct", "count": rng.randint(1, 3)}
            scope = rng.choice(["all", "groups", "tags"])
            tags = self._tags()
            if scope == "groups":
                row["groups"] = rng.sample(names, rng.randint(1, len(names)))
            elif scope == "tags" and tags:
                row["tags"] = [rng.choice(tags)]
            if rng.random() < 0.3:
                row["ignore"] = rng.sample(LABELS, 1)
            found += [row]
        return found

    def _tags(self) -> list[str]:
        return sorted({tag for group in self.groups for tag in group.get("tags", [])})

    # -- budgets --------------------------------------------------------------------------------------------------

    def _budgets(self, out: dict[str, Any]) -> list[dict[str, Any]]:
        rng = self.rng
        found: list[dict[str, Any]] = []
        most = rng.choice([0, 1, 1, 1, 2, 3]) if "several_budgets" in self.parts else rng.choice([0, 1, 1, 1, 1])
        tags = self._tags()
        for _ in range(most):
            kind = rng.choice(["resource", "resource", "resource", "score", "loss"])
            row: dict[str, Any]
            if kind == "loss" and "loss_budgets" in self.parts:
                row = {"loss": True}
            elif kind == "score" and "score_budgets" in self.parts:
                row = {"score": rng.choice(self.scores)}
                if rng.random() < 0.4:
                    row["include_remainder"] = True
            else:
                row = {"resource": rng.choice(self.resources)}
            if "loss" not in row and tags and self.may("scoped_budgets", 0.3):
                row["tags"] = rng.sample(tags, rng.randint(1, len(tags)))
            largest = out["resources"].get(row.get("resource"), {}).get("aggregate") == "max"
            low = self.may("lower_budgets", 0.25) and (not largest or "max_resource" in self.parts)
            if largest and not low and "max_masks" not in self.parts:
                continue
            if not low or ("several_budgets" in self.parts and rng.random() < 0.3):
                row["max"] = self._limit(row, 1)
            if low:
                row["min"] = self._limit(row, -1)
            found.append(row)
        return found

    def _limit(self, row: dict[str, Any], sign: int) -> float:
        """Exactly what one sample uses (half the time the same one for all rows), or around it, or out of reach."""
        rng = self.rng
        uses = [self.reference.used(places, row) for places in self.samples]
        tight = rng.choice([uses[0], rng.choice(uses)])
        seen = sorted(uses, reverse=sign < 0)
        kind = rng.choice(["tight"] * 5 + ["loose"] * 4 + ["between"] * 2 + ["just short", "far"])
        if kind == "tight":
            return tight
        first, last = seen[0], seen[-1]
        if kind == "between":
            return (first + last) / 2
        whole = isinstance(first, int)
        if kind == "loose":
            return last + sign * rng.randint(0, 3) * (abs(last) // 8 if whole else self.scale)
        if kind == "just short":
            return tight - sign * (1 if whole else abs(tight) * 3e-12)
        return first - sign * (abs(first) // 3 + 1 if whole else abs(first) / 3 + self.scale / 9)
