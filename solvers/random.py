"""Allocations drawn at random: what any method has to beat."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.evaluation import lexicographic
from allocator.features import LINEAR
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import IntArray
from solvers._axis import Axis
from solvers._closing import feasible


@dataclass(frozen=True, kw_only=True)
class Random:
    """The best of a few uniformly random allocations, each repaired to the budget.

    The repair is blind to the loss: it is given random values instead, or it would do half of the choosing. The
    seed is that of the limits.

    samples: allocations drawn.
    """

    samples: int = 16

    name: ClassVar[str] = "random"
    features: ClassVar[frozenset[str]] = LINEAR | {
        "loss_budgets",
        "pnorm_loss",
        "max_loss",
        "max_resource",
        "pairs",
        "basis",
    }
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples={self.samples}: give 1 or more")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Draw, repair, keep the best."""
        plain = problem.replace(minimize={"loss": 1.0})  # only the rows matter, and those of any objective are sums
        cap = np.inf if lexicographic(plain) else None
        linear = linearise(plain, cap=cap, with_interactions=True)
        axis = Axis.of(linear)
        if axis is None:
            return Answer()
        generator = np.random.default_rng(limits.seed)
        best: tuple[float, float] | None = None
        choice: IntArray | None = None
        drawn, limit = 0, None
        while drawn < self.samples:
            if limits.left <= 0:
                limit = "time"
                break
            drawn += 1
            blind = dataclasses.replace(
                axis, linear=dataclasses.replace(linear, value=generator.random(len(linear.value)))
            )
            counts = np.diff(np.append(axis.starts, len(axis.order)))
            rows = feasible(blind, axis.order[axis.starts + generator.integers(counts)])
            if rows is None:
                continue
            outcome = problem.evaluate(rows - problem.indptr[:-1])
            if best is None or (outcome.objective, outcome.tie) < best:
                best, choice = (outcome.objective, outcome.tie), rows - problem.indptr[:-1]
                if limits.report is not None:
                    limits.report(choice)
        return Answer(choice=choice, limit=limit, statistics={"drawn": drawn})
