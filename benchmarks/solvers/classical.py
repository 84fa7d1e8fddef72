"""The classical classes of multiple-choice knapsacks (Pisinger, EJOR 83, 1995), as problems that minimise.

n groups (his classes) of k choices, integer costs (his weights) and profits up to R; loss = −profit, so the
least loss is the largest profit. The budget is half way: ⌊½ Σ_g (min cost + max cost)⌋. With each draw uniform
on the integers:

- UC, uncorrelated: cost and profit from [1, R]. The budget binds in about half of the draws.
- UCt, not his: UC under Σ_g (3·min + max)/4, which binds.
- WC, weakly correlated: cost from [1, R], profit from [cost − 10, cost + 10], at least 1.
- SC, strongly correlated: k draws w from [1, R], each worth w + 10, sorted by w within the group; choice j costs
  and is worth the sums over the first j. Convex, nothing is dominated, slopes nearly equal.
- SS, subset sum: cost from [1, R], profit equal to it; any bound equals the budget.
- ZZ (Sinha and Zoltners, Operations Research 27, 1979): k costs and k profits from [1, R], each sorted within the
  group, so that nothing is dominated.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from allocator import Problem
from benchmarks.solvers.case import Case, Draw

CLASSES = {
    "UC": "uncorrelated",
    "UCt": "uncorrelated under a tighter budget",
    "WC": "weakly correlated",
    "SC": "strongly correlated, cumulated",
    "SS": "subset sum",
    "ZZ": "Sinha and Zoltners, nothing dominated",
}
SPREAD = 10
RANGES = (1_000, 10_000)
SIZES = {10: (100, 1_000, 10_000, 100_000), 100: (100, 1_000, 10_000)}


def classical(seed: int, kind: str, groups: int, choices: int, largest: int) -> Problem:
    """One problem of a class; costs int64 [groups, choices], loss = −profit.

    Args:
        seed: of the draw.
        kind: a key of `CLASSES`.
        groups: n.
        choices: k, of every group.
        largest: R.
    """
    draw = Draw(seed, crc32(kind.encode()), groups, choices, largest)
    cost, profit = _items(draw, kind, (groups, choices), largest)
    low, high = int(cost.min(axis=1).sum()), int(cost.max(axis=1).sum())
    limit = (3 * low + high) // 4 if kind == "UCt" else (low + high) // 2
    return Problem.from_arrays({"loss_of_profit": -profit}, {"cost": cost}, budgets={"cost": limit})


def _items(draw: Draw, kind: str, shape: tuple[int, int], largest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    cost = draw.integers(1, largest, *shape)
    if kind in ("UC", "UCt"):
        return cost, draw.integers(1, largest, *shape)
    if kind == "WC":
        return cost, np.maximum(cost + draw.integers(-SPREAD, SPREAD, *shape), 1)
    if kind == "SC":
        cost = np.sort(cost, axis=1)
        return cost.cumsum(axis=1), (cost + SPREAD).cumsum(axis=1)
    if kind == "SS":
        return cost, cost.copy()
    if kind == "ZZ":
        return np.sort(cost, axis=1), np.sort(draw.integers(1, largest, *shape), axis=1)
    raise ValueError(f"there is no class {kind!r}; use {', '.join(CLASSES)}")


def cases(seeds: int = 1) -> Iterator[Case]:
    """Every class at every size: k = 10 up to 100,000 groups, k = 100 up to 10,000."""
    for kind, words in CLASSES.items():
        for k, sizes in SIZES.items():
            for n in sizes:
                for largest in RANGES:
                    yield from (
                        Case(
                            name=f"{kind}-k{k}-n{n}-R{largest}",
                            seed=seed,
                            groups=n,
                            meaning=f"Pisinger 1995: {words}; {n} groups of {k}, numbers to {largest}",
                            make=partial(classical, kind=kind, groups=n, choices=k, largest=largest),
                            quick=k == 10 and n == 100 and largest == 1_000,
                        )
                        for seed in range(1, seeds + 1)
                    )
