"""Dynamic programming over an integer budget: the grouped knapsack as LLC solves it, exact where the table fits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.bounds import find_prices
from allocator.certificate import Core
from allocator.checks.lagrangian import lower_bound
from allocator.errors import UnsupportedError, UsageError
from allocator.evaluation import Outcome
from allocator.linear import Linear, linearise
from allocator.local_search import improved, repaired
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import IntArray
from solvers._integers import in_units
from solvers._table import Table

STARTS = 4
GUARD = 2.0**-52  # of Σ max |value| and per group: what the sums of a table may round


@dataclass(frozen=True, kw_only=True)
class DynamicProgram:
    """Least loss for every budget from 0 up, group by group: exact for one integer budget whose table fits.

    Costs lose each group's least and then their common divisor; where the budget still has more than `cells` units,
    or the costs are floats, they are rounded to so many: up for the allocation, which is thus always within the
    budget, and down for a bound, which thus holds. Then nothing is claimed beyond that bound. One row, a max or a
    min. (LLC: Compression for Better, arXiv 2412.06868, eq. 9 and algorithm 1.)

    cells: units of the budget at most. Time is choices × cells, memory at most 128 MB or √groups × cells × 16 bytes.
    """

    cells: int = 100_000

    name: ClassVar[str] = "dynamic_program"
    features: ClassVar[frozenset[str]] = frozenset(
        {"scoped_budgets", "score_budgets", "lower_budgets", "loss_budgets", "resource_objective", "pnorm_loss"}
    )
    exactness: ClassVar[Exactness] = Exactness.BOUNDED
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise UsageError(f"dynamic_program: cells={self.cells}; give 1 or more")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """The optimum where the table is exact; otherwise a feasible allocation and a bound.

        Raises:
            UnsupportedError: more than one row.
        """
        linear = linearise(problem)
        if len(linear.rows) > 1:
            raise UnsupportedError(
                f"dynamic_program takes one budget row, not {len(linear.rows)}; use exact, lagrangian or ortools_cpsat"
            )
        if not np.logical_or.reduceat(linear.free, problem.indptr[:-1]).all():
            return Answer(claim="infeasible")
        units = in_units(linear, self.cells)
        if units is None:
            return Answer(claim="infeasible")
        up, down = units
        run = _Run(linear, limits)
        run.begin(None if start is None else problem.indptr[:-1] + start)
        statistics: dict[str, Any] = {"cells": up.budget + 1, "rounded": not up.exact}
        table = Table(linear, up, limits)
        if table.done:
            run.keep(table.rows())
        if up.exact:
            return run.answer(table, statistics) if table.done else run.stopped(statistics)
        run.guess()
        lowest = Table(linear, down, limits) if table.done else table
        if not (table.done and lowest.done):
            return run.stopped(statistics)
        return run.rounded(lowest, statistics)


class _Run:
    """The best allocation so far and the prices of the budget, which prove more than a rounded table."""

    def __init__(self, linear: Linear, limits: Limits) -> None:
        self.linear = linear
        self.limits = limits
        self.best: Outcome | None = None
        self.first = linear.problem.indptr[:-1]
        self.prices = find_prices(linear)

    def keep(self, taken: IntArray | None) -> None:
        """Keep and report an allocation (rows [G]) that is feasible and better."""
        if taken is None:
            return
        outcome = self.linear.problem.evaluate(taken - self.first)
        if outcome.feasible and (self.best is None or outcome.objective < self.best.objective):
            self.best = outcome
            if self.limits.report is not None:
                self.limits.report(taken - self.first)

    def begin(self, taken: IntArray | None) -> None:
        """Repair and improve an allocation, then keep it."""
        found = None if taken is None else repaired(self.linear, taken)
        if found is not None:
            self.keep(improved(self.linear, found))

    def guess(self) -> None:
        """What the rounded table leaves of the budget is filled; the allocations of the best prices compete."""
        if self.best is not None:
            self.keep(improved(self.linear, self.best.rows))
        for seen in sorted(self.prices.seen, key=lambda p: -p.bound)[:STARTS]:
            self.begin(seen.rows)

    def answer(self, table: Table, statistics: dict[str, Any]) -> Answer:
        """The exact table's word."""
        if self.best is None:
            claim: Any = "infeasible" if not math.isfinite(table.value) else None  # None: powers that round
            return Answer(claim=claim, statistics=statistics)
        return Answer(
            choice=self.best.rows - self.first,
            claim="optimal",
            claimed_bound=self.best.objective,
            certificate=Core(self.prices.values),
            statistics=statistics,
        )

    def rounded(self, lowest: Table, statistics: dict[str, Any]) -> Answer:
        """A bound from the table that rounds down, or from the prices where that is higher."""
        if not math.isfinite(lowest.value):
            return Answer(claim="infeasible", statistics=statistics)
        size = float(np.maximum.reduceat(np.where(self.linear.free, np.abs(self.linear.value), 0.0), self.first).sum())
        guard = GUARD * (len(self.first) + 4) * size * (1.0 if self.linear.power == 1.0 else 2 * self.linear.power)
        return self._bounded(lowest.value - guard, None, statistics)

    def stopped(self, statistics: dict[str, Any]) -> Answer:
        """Time was over before the table was full."""
        self.guess()
        return self._bounded(-math.inf, "time", statistics)

    def _bounded(self, total: float, limit: str | None, statistics: dict[str, Any]) -> Answer:
        total = max(total, lower_bound(self.linear, self.prices.values))
        bound = self.linear.objective(total) if math.isfinite(total) else None
        if self.best is not None and bound is not None:
            bound = min(bound, self.best.objective)
        return Answer(
            choice=None if self.best is None else self.best.rows - self.first,
            claimed_bound=bound,
            certificate=Core(self.prices.values),
            limit=limit,
            statistics=statistics,
        )
