"""A measured loss of the whole model in place of the problem's own objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.errors import SolverError
from allocator.protocols import Limits
from allocator.statement import FloatArray, IntArray

Measure = Callable[[NDArray[np.int32], float | None], float]


class OutOfTimeError(Exception):
    """The clock ran out between two measurements."""


class Fitness:
    """A function (choice int32 [G], sample) → float, less is better, that is written down by its name."""

    def __init__(self, function: Measure) -> None:
        self.function = function

    def __call__(self, choice: NDArray[np.int32], sample: float | None) -> float:
        """What the function says."""
        return self.function(choice, sample)

    def __repr__(self) -> str:
        return str(getattr(self.function, "__qualname__", "callable"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fitness) and self.function == other.function

    def __hash__(self) -> int:
        return hash(self.function)


def as_fitness(given: Any) -> Fitness | None:
    """The option `fitness` as it is kept.

    Raises:
        ValueError: it cannot be called, such as text from the command line.
    """
    if given is None or isinstance(given, Fitness):
        return given
    if not callable(given):
        raise ValueError(
            f"fitness={given!r}: give a function (choice int32 [G], sample) -> float; that needs Python, there is no "
            "text for it on the command line"
        )
    return Fitness(given)


class Meter:
    """Measures allocations one after another, and counts."""

    def __init__(self, fitness: Fitness, limits: Limits, evaluations: int) -> None:
        self.fitness = fitness
        self.limits = limits
        self.evaluations = evaluations

    def measure(self, choices: IntArray, sample: float | None) -> FloatArray:
        """The fitness of each allocation [P, G] on a share of the data, None for all.

        What is not finite, such as the loss of a broken model, counts as infinite.

        Raises:
            OutOfTimeError: the time limit came before all were measured.
            SolverError: the function returned something that is not a number.
        """
        out = np.empty(len(choices))
        for i, choice in enumerate(choices):
            if self.limits.left <= 0:
                raise OutOfTimeError
            told = choice if self.limits.expand is None else self.limits.expand(choice)
            value = self.fitness(np.array(told, np.int32), sample)
            self.evaluations += 1
            try:
                out[i] = float(value)
            except (TypeError, ValueError):
                raise SolverError(
                    f"the fitness {self.fitness!r} returned {value!r}, which is not a number; return a float"
                ) from None
            if not math.isfinite(out[i]):
                out[i] = math.inf
        return out
