"""loopback_program.py PROBLEM SOLUTION [SECONDS]: the best of all allocations, by the published format alone.

Knows nothing of the package: written against docs/format.md, with the standard library.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time

LOOSE = 1 + 1e-12


class Task:
    """One problem.json in the row form."""

    def __init__(self, rows):
        self.rows = rows
        self.groups = rows["groups"]
        self.where = {group["name"]: g for g, group in enumerate(self.groups)}
        loss = rows.get("loss", {})
        terms = loss.get("terms") or dict.fromkeys(self.groups[0]["choices"][0]["score"], 1.0)
        errors = loss.get("stderr_weight", 0.0)
        self.aggregate, self.p, self.terms = loss.get("aggregate", "sum"), loss.get("p", 1), terms
        goal = rows.get("minimize", "loss")
        self.goal = {goal: 1.0} if isinstance(goal, str) else goal
        self.integer = {r: self.is_integer(r) for r in self.groups[0]["choices"][0]["cost"]}
        self.unary = [
            [
                math.fsum(w * (c["score"][s] + errors * c.get("stderr", {}).get(s, 0.0)) for s, w in terms.items())
                for c in group["choices"]
            ]
            for group in self.groups
        ]

    def resource(self, name):
        return self.rows.get("resources", {}).get(name, {})

    def is_integer(self, name):
        values = [c["cost"][name] for group in self.groups for c in group["choices"]]
        values.append(self.resource(name).get("offset", 0))
        return all(v == int(v) for v in values) and sum(abs(int(v)) for v in values) < 2**63

    def used(self, taken, row):
        """Left side of a budget row; of {"resource": r}: the total of r."""
        if row.get("loss"):
            return self.loss(taken)
        inside = [c for group, c in zip(self.groups, taken, strict=True) if in_scope(group, row.get("tags"))]
        if "score" in row:
            s, more = row["score"], row.get("include_remainder", False)
            return math.fsum(c["score"][s] + (c.get("remainder", {}).get(s, 0.0) if more else 0.0) for c in inside)
        name = row["resource"]
        values = [c["cost"][name] for c in inside]
        values.append(self.resource(name).get("offset", 0) if "tags" not in row else 0)
        if self.integer[name]:
            values = [int(v) for v in values]
        if self.resource(name).get("aggregate") == "max":
            return max(values)
        return sum(values) if self.integer[name] else math.fsum(values)

    def loss(self, taken):
        values = [
            self.unary[g][group["choices"].index(c)]
            for g, (group, c) in enumerate(zip(self.groups, taken, strict=True))
        ]
        if self.aggregate == "max":
            return max(values)
        if self.aggregate == "pnorm":
            top = max(values)
            return top * math.fsum((v / top) ** self.p for v in values) ** (1 / self.p) if top else 0.0
        for part in self.rows.get("interactions", []):
            weight = self.terms.get(part["score"], 0.0)
            pairs = part.get("pairs", [])
            values += [weight * q["value"] for q in pairs if self.has(taken, q["a"]) and self.has(taken, q["b"])]
            basis = part.get("basis", {"eigenvalues": [], "vectors": {}})
            vectors = [v[n] for g, v in basis["vectors"].items() if (n := taken[self.where[g]]["name"]) in v]
            for i, e in enumerate(basis["eigenvalues"]):
                along = [v[i] for v in vectors]
                values.append(weight * e / 2 * (math.fsum(along) ** 2 - math.fsum(x * x for x in along)))
        return math.fsum(values)

    def has(self, taken, place):
        return taken[self.where[place[0]]]["name"] == place[1]

    def keeps(self, taken):
        """Whether an allocation (a choice per group) is feasible."""
        pins = self.rows.get("pins", {})
        return (
            all(c.get("allowed", True) for c in taken)
            and all(self.has(taken, pin) for pin in pins.items())
            and all(self.within(taken, row) for row in self.rows.get("budgets", []))
            and all(self.coupled(taken, c) for c in self.rows.get("couplings", []))
        )

    def within(self, taken, row):
        use, whole = self.used(taken, row), self.integer.get(row.get("resource"), False)
        high, low = row.get("max"), row.get("min")
        if high is not None:
            high = math.floor(high) if whole else high * LOOSE if high > 0 else high / LOOSE
        if low is not None:
            low = math.ceil(low) if whole else low / LOOSE if low > 0 else low * LOOSE
        return (high is None or use <= high) and (low is None or use >= low)

    def coupled(self, taken, coupling):
        kind = coupling["kind"]
        if kind == "implies":
            return self.has(taken, coupling["then"]) or not self.has(taken, coupling["if"])
        if kind in ("at_most", "at_least", "exactly"):
            count = sum(self.has(taken, place) for place in coupling["choices"]) - coupling["count"]
            return {"at_most": count <= 0, "at_least": count >= 0, "exactly": count == 0}[kind]
        named, tags = coupling.get("groups"), coupling.get("tags")
        labels = {
            c.get("label", c["name"])
            for group, c in zip(self.groups, taken, strict=True)
            if (group["name"] in named if named else in_scope(group, tags))
        }
        if kind == "same_choice":
            return len(labels) == 1
        return len(labels - set(coupling.get("ignore", []))) <= coupling["count"]

    def worth(self, taken):
        """Objective, and what tells equal maxima apart."""
        value = math.fsum(
            w * (self.loss(taken) if name == "loss" else self.used(taken, {"resource": name}))
            for name, w in self.goal.items()
        )
        if self.aggregate != "max" or list(self.goal) != ["loss"]:
            return value, 0.0
        return value, math.fsum(
            self.unary[g][group["choices"].index(c)]
            for g, (group, c) in enumerate(zip(self.groups, taken, strict=True))
        )


def in_scope(group, tags):
    return tags is None or not set(tags).isdisjoint(group.get("tags", []))


def main(problem, solution, seconds="inf"):
    end = time.monotonic() + float(seconds)
    with open(problem, encoding="utf-8") as file:
        task = Task(json.load(file))
    best, worth, finished = None, None, True
    for taken in itertools.product(*(group["choices"] for group in task.groups)):
        if time.monotonic() > end:
            finished = False
            break
        if task.keeps(taken) and (best is None or task.worth(taken) < worth):
            best, worth = taken, task.worth(taken)
    out = {"format": "allocation-solution", "version": 1, "status": "unknown" if best is None else "feasible"}
    if finished:
        out["claim"] = "infeasible" if best is None else "optimal"
    else:
        out["limit"] = "time"
    if best is not None:
        out["objective"] = worth[0]
        out["choices"] = {group["name"]: choice["name"] for group, choice in zip(task.groups, best, strict=True)}
    with open(solution, "w", encoding="utf-8") as file:
        json.dump(out, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
