"""Lagrangian relaxation: prices the budgets, then repairs and fills the allocations that the prices choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.bounds import find_prices
from allocator.certificate import Core
from allocator.checks.lagrangian import lower_bound
from allocator.features import LINEAR
from allocator.linear import Linear, linearise
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import IntArray


@dataclass(frozen=True, kw_only=True)
class Lagrangian:
    """Maximises the Lagrangian bound over the budgets' multipliers; a feasible allocation comes by local moves.

    Its bound is the LP bound, so it seldom proves optimality alone; the multipliers are handed to the core,
    which may. (Everett, 1963; Shih, 1979.)

    rounds: local moves at most, per feasible start.
    """

    rounds: int = 2000

    name: ClassVar[str] = "lagrangian"
    features: ClassVar[frozenset[str]] = LINEAR | {"pnorm_loss"}
    exactness: ClassVar[Exactness] = Exactness.BOUNDED
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Price, then repair the allocations seen, the nearest to feasible first."""
        linear = linearise(problem)
        prices = find_prices(linear)
        mover = _Mover(linear, prices.values)
        starts = [p.rows for p in sorted(prices.seen, key=lambda p: -p.bound)[:4]]
        starts += [p.rows for p in prices.seen if mover.broken(p.rows) == 0.0][-2:]
        if start is not None:
            starts.append(problem.indptr[:-1] + start)
        best: IntArray | None = None
        best_value = np.inf
        limit = None
        for rows in starts:
            if limits.left <= 0:
                limit = "time"
                break
            found = mover.improve(rows.copy(), self.rounds, limits)
            if found is None or not problem.evaluate(found - problem.indptr[:-1]).feasible:
                continue
            value = float(linear.value[found].sum())
            if value < best_value:
                best, best_value = found, value
                if limits.report is not None:
                    limits.report(found - problem.indptr[:-1])
        bound = lower_bound(linear, prices.values)
        return Answer(
            choice=None if best is None else best - problem.indptr[:-1],
            claimed_bound=linear.objective(bound) if np.isfinite(bound) else None,
            certificate=Core(prices.values),
            limit=limit,
            statistics={"passes": len(prices.seen)},
        )


class _Mover:
    """Single moves: first those that mend broken rows at the least price, then those that lower the value."""

    def __init__(self, linear: Linear, values: tuple[float, ...]) -> None:
        self.linear = linear
        self.group_of = linear.problem.group_of
        self.columns = [r.column.astype(np.float64) for r in linear.rows]
        self.priced = linear.value.copy()
        for row, column in zip(linear.rows, self.columns, strict=True):
            self.priced += (values[row.budget] if row.budget < len(values) else 0.0) * column
        self.least = 1e-12 * float(np.abs(self.priced).max()) or 1.0  # so that what costs nothing has a finite ratio

    def uses(self, rows: IntArray) -> list[float]:
        return [float(c[rows].sum()) for c in self.columns]

    def broken(self, rows: IntArray) -> float:
        return float(self._excess(self.uses(rows)))

    def _excess(self, uses: list[Any]) -> Any:
        total: Any = 0.0
        for row, use in zip(self.linear.rows, uses, strict=True):
            if row.hi is not None:
                total = total + np.maximum(use - row.hi, 0) / (abs(row.hi) or 1)
            if row.lo is not None:
                total = total + np.maximum(row.lo - use, 0) / (abs(row.lo) or 1)
        return total

    def improve(self, rows: IntArray, rounds: int, limits: Limits) -> IntArray | None:
        """A feasible allocation that no single move betters, or None."""
        for _ in range(rounds):
            if limits.left <= 0:
                break
            uses = self.uses(rows)
            here = rows[self.group_of]
            after = [u + c - c[here] for u, c in zip(uses, self.columns, strict=True)]
            excess, now = self._excess(after), self._excess(uses)
            if now > 0:
                mend = now - excess
                price = np.maximum(self.priced - self.priced[here], 0.0) + self.least
                score = np.where(self.linear.free & (mend > 1e-15 * now), mend / price, -np.inf)
            else:
                saved = self.linear.value[here] - self.linear.value
                score = np.where(self.linear.free & (excess <= 0) & (saved > 0), saved, -np.inf)
            move = int(score.argmax())
            if score[move] == -np.inf:
                break
            rows[self.group_of[move]] = move
        return rows if self.broken(rows) <= 0 else None
