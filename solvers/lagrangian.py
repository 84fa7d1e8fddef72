"""Lagrangian relaxation: prices the budgets, then repairs and fills the allocations that the prices choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.bounds import find_prices
from allocator.certificate import Core
from allocator.checks.lagrangian import lower_bound
from allocator.features import LINEAR
from allocator.linear import linearise
from allocator.local_search import improved, repaired
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import IntArray


@dataclass(frozen=True, kw_only=True)
class Lagrangian:
    """Maximises the Lagrangian bound over the budgets' multipliers; a feasible allocation comes by local moves.

    Its bound is the LP bound, so it seldom proves optimality alone; the multipliers are handed to the core,
    which may. (Everett, 1963; Shih, 1979.)

    starts: allocations of the best prices that are repaired and improved.
    """

    starts: int = 8

    name: ClassVar[str] = "lagrangian"
    features: ClassVar[frozenset[str]] = LINEAR | {"pnorm_loss"}
    exactness: ClassVar[Exactness] = Exactness.BOUNDED
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Price, then repair the allocations seen, those of the best bounds first."""
        linear = linearise(problem)
        prices = find_prices(linear)
        first = problem.indptr[:-1]
        candidates = [p.rows for p in sorted(prices.seen, key=lambda p: -p.bound)[: self.starts]]
        if start is not None:
            candidates.append(first + start)
        best: IntArray | None = None
        limit = None
        for rows in candidates:
            if limits.left <= 0:
                limit = "time"
                break
            kept = repaired(linear, rows)
            found = None if kept is None else improved(linear, kept)
            if found is None or (best is not None and linear.value[found].sum() >= linear.value[best].sum()):
                continue
            if problem.evaluate(found - first).feasible:
                best = found
                if limits.report is not None:
                    limits.report(found - first)
        bound = lower_bound(linear, prices.values)
        return Answer(
            choice=None if best is None else best - first,
            claimed_bound=linear.objective(bound) if np.isfinite(bound) else None,
            certificate=Core(prices.values),
            limit=limit,
            statistics={"passes": len(prices.seen)},
        )
