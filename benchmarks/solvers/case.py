"""A case: one seeded problem with a name, and how numbers are drawn for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator import Problem


@dataclass(frozen=True)
class Case:
    """One problem of the comparison.

    groups: how many, known before anything is built. meaning: one line on where it comes from. quick: part of
    the short run.
    """

    name: str
    seed: int
    groups: int
    meaning: str
    make: Callable[[int], Problem]
    quick: bool = False

    @property
    def key(self) -> str:
        """name@seed: what patterns match and results are kept under."""
        return f"{self.name}@{self.seed}"

    def build(self) -> Problem:
        """The problem; the same one each time, in any process."""
        return self.make(self.seed)


class Draw:
    """Random numbers: uniform doubles of PCG64, whose stream is fixed, and what is made of them.

    Seeded by whole numbers ≥ 0: the case's seed, then what tells its problem from others of that seed.
    """

    def __init__(self, *seed: int) -> None:
        self.generator = np.random.Generator(np.random.PCG64(seed))

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        """In [0, 1)."""
        return self.generator.random(shape)

    def integers(self, low: int, high: int, *shape: int) -> NDArray[np.int64]:
        """low … high, both included."""
        return low + np.floor((high - low + 1) * self.uniform(*shape)).astype(np.int64)

    def normal(self, *shape: int) -> NDArray[np.float64]:
        """Mean 0, variance 1: the sum of twelve uniforms less 6, which no version of a library draws otherwise."""
        total = self.uniform(*shape)
        for _ in range(11):
            total += self.uniform(*shape)
        total -= 6.0
        return total


def halfway(costs: NDArray[Any], indptr: NDArray[np.int64], share: float = 0.5) -> float:
    """A limit between the cheapest and the dearest allocation: Σ_g (min + share·(max − min))."""
    low = float(np.minimum.reduceat(costs, indptr[:-1]).sum())
    high = float(np.maximum.reduceat(costs, indptr[:-1]).sum())
    return low + share * (high - low)
