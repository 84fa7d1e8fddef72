"""Random float problems: small, yet without anything that tidy sizes give away.

Tidy sizes flatter every solver: powers of two share divisors, and smooth losses leave a core of two groups.
Here costs are floats without common divisor, losses fall with the cost and carry signed noise, and groups have
two to eight choices.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from allocator import Problem
from benchmarks.solvers.case import Case, Draw, halfway

SEEDS = 24
SHARE = 0.45


def hard_float(seed: int, groups: int | None = None) -> Problem:
    """300 to 400 groups (or `groups`) of 2 to 8 choices.

    Choice j of a group of size s, s = exp(N): cost s·b_j with b_j uniform on [1, 16], ascending; loss
    s·exp(N)·4^(−b_j/2) + 1 % of the mean loss · N. Budget 45 % of the way from the cheapest to the dearest
    allocation.
    """
    draw = Draw(seed, 0 if groups is None else groups)
    count = int(draw.integers(300, 400)) if groups is None else groups
    choices = draw.integers(2, 8, count)
    indptr = np.concatenate([[0], choices.cumsum()])
    group = np.repeat(np.arange(count), choices)
    width = 1 + 15 * draw.uniform(len(group))
    width = width[np.lexsort((width, group))]
    size = np.exp(draw.normal(count))[group]
    loss = size * np.exp(draw.normal(count))[group] * 4.0 ** (-width / 2)
    loss += 0.01 * loss.mean() * draw.normal(len(group))
    cost = size * width
    return Problem.from_arrays(
        {"modelled": loss}, {"size": cost}, indptr=indptr, budgets={"size": halfway(cost, indptr, SHARE)}
    )


def cases() -> Iterator[Case]:
    """24 seeds, and one small problem for the short run."""
    words = "random floats, 2 to 8 choices, losses that fall with cost under signed noise"
    for seed in range(1, SEEDS + 1):
        yield Case("hard-float", seed, int(Draw(seed, 0).integers(300, 400)), words, hard_float)
    yield Case("hard-float-60", 1, 60, words, partial(hard_float, groups=60), quick=True)
