"""Random float problems: small, yet without anything that tidy sizes give away.

Tidy sizes flatter every solver: powers of two share divisors, and losses that fall steeply leave a core of a few
groups. Here costs are floats without common divisor, groups have two to eight choices, and losses fall with the
cost under signed noise, steeply in some seeds and almost linearly in others. The less noise on a linear fall,
the more groups are undecided at the best price: those seeds are the hard ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from allocator import Problem
from benchmarks.solvers.case import Case, Draw, halfway

SEEDS = 24
SHARE = 0.45
FALLS: tuple[tuple[float, Callable[[NDArray[np.float64]], NDArray[np.float64]]], ...] = (
    (1.0, lambda b: 4.0 ** (-b / 2)),
    (0.1, lambda b: 1.0 / b),
    (0.0, lambda b: (17.0 - b) / 16.0),
)


def hard_float(seed: int, groups: int | None = None) -> Problem:
    """300 to 400 groups (or `groups`) of 2 to 8 choices.

    Choice j of a group of size s = exp(N/5): cost s·b_j with b_j uniform on [1, 16), ascending; loss
    s·t·f(b_j) + ν·(mean loss)·N, by seed mod 3: f = 4^(−b/2) and t = exp(N); f = 1/b and t = exp(N/10);
    f = (17 − b)/16 and t = 1. ν is 10^u with u uniform on [−3, −1). Budget 45 % of the way from the cheapest to
    the dearest allocation.
    """
    draw = Draw(seed, 0 if groups is None else groups)
    count = int(draw.integers(300, 400)) if groups is None else groups
    choices = draw.integers(2, 8, count)
    indptr = np.concatenate([[0], choices.cumsum()])
    group = np.repeat(np.arange(count), choices)
    width = 1 + 15 * draw.uniform(len(group))
    width = width[np.lexsort((width, group))]
    size = np.exp(0.2 * draw.normal(count))
    spread, fall = FALLS[seed % 3]
    loss = (size * np.exp(spread * draw.normal(count)))[group] * fall(width)
    loss += 10.0 ** (-3 + 2 * float(draw.uniform())) * loss.mean() * draw.normal(len(group))
    cost = size[group] * width
    return Problem.from_arrays(
        {"modelled": loss}, {"size": cost}, indptr=indptr, budgets={"size": halfway(cost, indptr, SHARE)}
    )


def cases() -> Iterator[Case]:
    """24 seeds, and one small problem for the short run."""
    words = "random floats, 2 to 8 choices, losses that fall with cost under signed noise"
    for seed in range(1, SEEDS + 1):
        yield Case("hard-float", seed, int(Draw(seed, 0).integers(300, 400)), words, hard_float)
    yield Case("hard-float-60", 1, 60, words, partial(hard_float, groups=60), quick=True)
