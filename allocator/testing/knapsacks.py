"""Random knapsacks that are drawn to hurt, and two dumb ways to solve them: everything, and one slot per unit.

knapsack = random_knapsack(np.random.default_rng(7))
best = by_enumeration(knapsack)         # None where nothing keeps the capacity
best = by_capacity(knapsack)            # the same, for small whole costs
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.engine.found import Found
from allocator.engine.knapsack import Knapsack

Rng = np.random.Generator
Column = NDArray[Any]

COSTS: dict[str, Callable[[Rng, int], Column]] = {
    "few": lambda r, n: r.integers(0, 4, n),
    "small": lambda r, n: r.integers(0, 60, n),
    "signed": lambda r, n: r.integers(-40, 40, n),
    "equal": lambda r, n: np.full(n, r.integers(-3, 4)),
    "zero": lambda r, n: np.zeros(n, np.int64),
    "steps": lambda r, n: 7 * 2 ** int(r.integers(0, 40)) * r.integers(-5, 6, n),
    "spread": lambda r, n: (10.0 ** r.uniform(0, 9, n)).astype(np.int64),
    "far": lambda r, n: 2**53 + r.integers(0, 9, n),
    "huge": lambda r, n: r.integers(-(2**61) // n, 2**61 // n, n),
    "top": lambda r, n: 2**62 // n - r.integers(0, 5, n),
    "offset": lambda r, n: 10**15 // n * n + r.integers(0, 50, n),
}
VALUES: dict[str, Callable[[Rng, Column], Column]] = {
    "few": lambda r, c: r.integers(0, 4, len(c)).astype(float),
    "whole": lambda r, c: 3.0 * r.integers(-50, 50, len(c)),
    "normal": lambda r, c: r.normal(size=len(c)),
    "equal": lambda r, c: np.full(len(c), 2.5),
    "wide": lambda r, c: r.lognormal(0, 9, len(c)),
    "strong": lambda r, c: -3.0 * c + r.integers(0, 2, len(c)),  # strongly correlated with the costs
    "line": lambda r, c: -0.1 * c,
    "decay": lambda r, c: r.random(len(c)) * 4.0 ** -r.integers(0, 8, len(c)),
    "offset": lambda r, c: 1e9 + r.random(len(c)) * 1e-3,
    "tiny": lambda r, c: r.random(len(c)) * 1e-12,
    "large": lambda r, c: r.normal(size=len(c)) * 1e12,
    "vanishing": lambda r, c: r.random(len(c)) * 1e-300,
    "denormal": lambda r, c: r.random(len(c)) * 1e-310,
    "astronomic": lambda r, c: r.random(len(c)) * 1e290,
}


def random_knapsack(
    rng: Rng,
    *,
    most_groups: int = 6,
    most_choices: int = 5,
    costs: str | None = None,
    values: str | None = None,
    masked: bool | None = None,
) -> Knapsack:
    """Ragged groups with ties, duplicates, dominated choices, forbidden ones; a capacity anywhere, often at an end.

    Args:
        rng: decides everything.
        most_groups: groups at most; often one.
        most_choices: choices per group at most; often all groups have as many.
        costs: a kind of `COSTS`; None draws one.
        values: a kind of `VALUES`; None draws one.
        masked: whether some choices are not free; None draws it.
    """
    groups = int(rng.integers(1, most_groups + 1)) if rng.random() < 0.5 else most_groups
    sizes = rng.integers(1, most_choices + 1, groups) if rng.random() < 0.7 else np.full(groups, most_choices)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    n = int(indptr[-1])
    cost = COSTS[costs or rng.choice(list(COSTS))](rng, n).astype(np.int64)
    value = VALUES[values or rng.choice(list(VALUES))](rng, cost)
    if rng.random() < 0.2:  # whole choices twice
        twin = rng.integers(0, n, n)
        cost, value = cost[twin], value[twin]
    free = rng.random(n) < 0.7
    free[indptr[:-1] + rng.integers(0, sizes)] = True
    masked = rng.random() < 0.3 if masked is None else masked
    allowed = free if masked else np.ones(n, bool)
    return Knapsack(value, cost, indptr, free if masked else None, random_capacity(rng, cost, indptr, allowed))


def random_capacity(rng: Rng, cost: Column, indptr: Column, allowed: Column) -> int:
    """At an end of what the allowed choices can use, one off, an allocation's own use, or anywhere between."""
    far = np.iinfo(np.int64)
    least = sum(np.minimum.reduceat(np.where(allowed, cost, far.max), indptr[:-1]).tolist())
    most = sum(np.maximum.reduceat(np.where(allowed, cost, far.min), indptr[:-1]).tolist())
    taken = [rng.choice(np.flatnonzero(allowed[s:e])) + s for s, e in itertools.pairwise(indptr.tolist())]
    between = least + int((most - least) * rng.random())
    ends = [least, most, sum(cost[taken].tolist()), between, between]
    return int(ends[rng.integers(len(ends))]) + int(rng.choice([0, 0, -1, 1]))


def by_enumeration(knapsack: Knapsack) -> float | None:
    """The least Σ value within the capacity, by a look at every allocation."""
    free = np.ones(len(knapsack.value), bool) if knapsack.free is None else knapsack.free
    spans = list(itertools.pairwise(knapsack.indptr.tolist()))
    rows = np.array(list(itertools.product(*([r for r in range(s, e) if free[r]] for s, e in spans))))
    kept = rows[knapsack.cost[rows].sum(axis=1) <= knapsack.capacity]  # the sums of all |costs| fit int64
    if not len(kept):
        return None
    near = kept[np.argsort(knapsack.value[kept].sum(axis=1))[:20]]
    return min(math.fsum(v) for v in knapsack.value[near].tolist())


def by_capacity(knapsack: Knapsack) -> float | None:
    """The same by the textbook dynamic program: the least Σ value for each use of the capacity."""
    free = np.ones(len(knapsack.value), bool) if knapsack.free is None else knapsack.free
    spans = list(itertools.pairwise(knapsack.indptr.tolist()))
    least = [min(knapsack.cost[r] for r in range(s, e) if free[r]) for s, e in spans]
    room = knapsack.capacity - int(sum(least))
    if room < 0:
        return None
    most = [max(knapsack.cost[r] for r in range(s, e) if free[r]) for s, e in spans]
    room = min(room, int(sum(most) - sum(least)))
    best = np.zeros(room + 1)
    for (s, e), low in zip(spans, least, strict=True):
        after = np.full(room + 1, np.inf)
        for row in range(s, e):
            more = int(knapsack.cost[row] - low)
            if free[row] and more <= room:
                np.minimum(after[more:], best[: room + 1 - more] + knapsack.value[row], out=after[more:])
        best = after
    return float(best[room])


def size_of(knapsack: Knapsack) -> float:
    """Σ over the groups of the largest |value|: what tolerances are relative to."""
    return math.fsum(np.maximum.reduceat(np.abs(knapsack.value), knapsack.indptr[:-1]).tolist())


def faults(knapsack: Knapsack, found: Found, best: float | None) -> list[str]:
    """Everything that is wrong with an engine's answer beside the least Σ value (None: nothing is feasible)."""
    if found.rows is None:
        return [] if best is None and found.proved else ["found nothing"]
    if best is None:
        return ["found something where nothing is feasible"]
    wrong = []
    groups = np.searchsorted(knapsack.indptr, found.rows, side="right") - 1
    if not np.array_equal(groups, np.arange(len(knapsack.indptr) - 1)):
        wrong.append(f"rows {found.rows} are not one per group")
    if knapsack.free is not None and not knapsack.free[found.rows].all():
        wrong.append("takes what is not free")
    if (used := sum(knapsack.cost[found.rows].tolist())) > knapsack.capacity:
        wrong.append(f"uses {used} of {knapsack.capacity}")
    close = 1e-12 * size_of(knapsack)
    value = math.fsum(knapsack.value[found.rows].tolist())
    if value < best - close:
        wrong.append(f"Σ value {value!r} below the optimum {best!r}")
    if found.short < 0 or value - found.short > best + close:
        wrong.append(f"Σ value {value!r} − short {found.short!r} is above the optimum {best!r}")
    if found.proved and found.short == 0 and value > best + close:
        wrong.append(f"Σ value {value!r} as optimal, {best!r} is feasible")
    if not found.multiplier >= 0:
        wrong.append(f"multiplier {found.multiplier!r}")
    return wrong
