"""Pairwise interactions along a sparse graph of groups: elimination inside a Lagrangian over the budgets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.bounds import argmin, find_prices
from allocator.certificate import Core, Multipliers
from allocator.chains import chains, distinct
from allocator.checks.lagrangian import single_row_infeasible
from allocator.engine.quadratic_model import Compact, compact
from allocator.errors import UsageError
from allocator.evaluation import scale_of
from allocator.features import LINEAR
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.quadratic import Quadratic, quadratic
from allocator.solution import Answer
from allocator.statement import FloatArray, IntArray
from solvers._answers import bounded
from solvers._chain import Answered, Stages, solve_stages
from solvers._elimination import Elimination, tables
from solvers._improving import KICKS, Improving
from solvers._multipliers import Search, Seen

CLOSE = 1e-12  # of S
MOST_PAIRS = 200_000  # that a basis may become
STARTS = 6
HELD = 1_000  # choices up to which the local search holds W, and so looks at changes of two groups


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Chains, trees and other sparse graphs of interactions: exact without budgets, a bound and local search with them.

    Min-sum elimination in min-fill order minimises the priced loss over the whole graph exactly; the prices are
    driven to the highest Lagrangian bound, and the allocations met on the way are repaired and improved. Chains
    under one budget are solved exactly by lists of states from both of their ends, as far as those have room. A
    basis is taken where the pairs that it makes leave the graph sparse.

    width: neighbours that a table may stand on at most; a denser graph is refused. cells: of all tables.
    kicks: perturbations of the local search, fewer beyond 1,000 choices, where it looks at one group at a time.
    """

    width: int = 6
    cells: int = 2_000_000
    kicks: int = KICKS

    name: ClassVar[str] = "graph"
    features: ClassVar[frozenset[str]] = LINEAR | {"pairs", "basis"}
    exactness: ClassVar[Exactness] = Exactness.BOUNDED
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name, least in (("width", 0), ("cells", 1), ("kicks", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"graph: {name}={getattr(self, name)}; give {least} or more")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """The best allocation found with a bound; "optimal" where the two meet or the lists of a chain end.

        Raises:
            UnsupportedError: the graph of interactions is too dense, naming the width or cells that it needs.
        """
        model = quadratic(problem)
        stuck = not np.logical_or.reduceat(model.linear.free, problem.indptr[:-1]).all()
        if stuck or single_row_infeasible(model.linear) is not None:
            return Answer(claim="infeasible")
        graph = _Graph(model, self)
        close = CLOSE * scale_of(problem)
        chained = graph.chained(limits, close / 4)
        if chained is not None and chained.limit in (None, "time"):
            return _chosen(graph, chained, limits, start, close)
        statistics: dict[str, Any] = {**graph.statistics, "width": graph.elimination.width}
        search = Improving(model, limits, _sparse(compact(model)))
        if start is not None:
            search.begin(problem.indptr[:-1] + start)
        if chained is not None and chained.rows is not None:
            search.begin(chained.rows)
        priced = graph.priced(limits)
        best = priced.best
        seen = sorted(priced.seen, key=lambda s: -s.bound)[:STARTS]
        search.begin_all(s.rows for s in seen)
        slip = close + best.slip
        bound = best.bound
        if chained is not None:
            statistics |= chained.statistics
            bound = max(bound, graph.constant + chained.bound)
        bound = model.linear.objective(bound)
        if search.best is not None and search.best.objective - bound > max(
            slip, limits.gap * abs(search.best.objective)
        ):
            search.kick(self.kicks)
        answer = bounded(search.best, limits, bound, slip, {**statistics, "passes": len(priced.seen)})
        return dataclasses.replace(answer, certificate=graph.certificate(best.prices))


def _chosen(graph: _Graph, chained: Answered, limits: Limits, start: NDArray[np.int64] | None, close: float) -> Answer:
    """What the engine for chains says, or the start where that is no worse."""
    problem, linear = graph.model.problem, graph.model.linear
    statistics = {**graph.statistics, "width": min(len(graph.edges), 1), **chained.statistics}
    bound = linear.objective(graph.constant + chained.bound)
    known = bound if math.isfinite(bound) else None
    outcomes = [problem.evaluate(c) for c in (start, chained.choice(problem)) if c is not None]
    best = min((o for o in outcomes if o.feasible), key=lambda o: o.objective, default=None)
    if best is None and chained.limit is None:
        return Answer(claim="infeasible", statistics=statistics)
    if best is None:
        return Answer(claimed_bound=known, limit=chained.limit, statistics=statistics)
    choice = best.rows - problem.indptr[:-1]
    if limits.report is not None:
        limits.report(choice)
    proved = chained.limit is None and best.objective <= bound + close
    certificate = graph.certificate([chained.price] * len(linear.rows))
    return Answer(
        choice=choice,
        claim="optimal" if proved else None,
        claimed_bound=best.objective if proved or known is None else min(known, best.objective),
        certificate=Core(certificate.values) if proved else certificate,
        limit=chained.limit,
        statistics=statistics,
    )


@dataclass(frozen=True, eq=False)
class _Sparse(Compact):
    """W is not held: a change costs what its pairs are, and nothing is of the size of N²."""

    @cached_property
    def matrix(self) -> None:
        """None."""


def _sparse(form: Compact) -> Compact:
    if form.choices <= HELD:
        return form
    return _Sparse(**{f.name: getattr(form, f.name) for f in dataclasses.fields(form)})


class _Graph:
    """The groups that have pairs, joined; and the others."""

    def __init__(self, model: Quadratic, options: Graph) -> None:
        self.model = model
        self.options = options
        problem, linear = model.problem, model.linear
        pair, value = model.as_pairs(MOST_PAIRS)
        count = np.bincount(problem.group_of[linear.free], minlength=problem.group_count)
        self.unary, self.constant, self.pair, self.pair_value = _folded(
            linear.value, problem.group_of, count, pair, value
        )
        group = problem.group_of[self.pair]
        self.edges = distinct(group[:, 0] * problem.group_count + group[:, 1])
        self.statistics = {"joined": len(self.edges)}

    @cached_property
    def joined(self) -> dict[tuple[int, int], FloatArray]:
        """(g, h), g < h → values [size of g, size of h]."""
        return self._tables[1]

    @cached_property
    def elimination(self) -> Elimination:
        """Of the groups that have pairs."""
        return Elimination(*self._tables, self.options.width, self.options.cells)

    @cached_property
    def _tables(self) -> tuple[dict[int, IntArray], dict[tuple[int, int], FloatArray]]:
        problem = self.model.problem
        return tables(problem.group_of, self.model.linear.free, problem.indptr, self.pair, self.pair_value)

    def certificate(self, prices: Sequence[float]) -> Multipliers:
        """Prices per row of the linear view, as those of the problem's budgets."""
        values = [0.0] * len(self.model.problem.budgets)
        for row, price in zip(self.model.linear.rows, prices, strict=True):
            values[row.budget] = price
        return Multipliers(tuple(values))

    def minimise(self, prices: Sequence[float]) -> tuple[float, IntArray]:
        """The least Σ value + Σ pairs + Σ price·use, and the rows [G] that reach it."""
        linear = self.model.linear
        column = self.unary
        for row, price in zip(linear.rows, prices, strict=True):
            if price:
                column = column + price * row.column
        taken = argmin(linear, column)
        alone = np.ones(len(taken), bool)
        alone[list(self.elimination.rows)] = False
        least, joined = self.elimination.minimise(column)
        for g, row_taken in joined.items():
            taken[g] = row_taken
        return math.fsum([self.constant, least, *column[taken[alone]].tolist()]), taken

    def priced(self, limits: Limits) -> Search:
        """The Lagrangian bound driven up, first prices from the separable part."""
        linear = self.model.linear
        priced = Search(linear.rows, self.minimise, self.model.size, limits)
        under = None
        if len(linear.rows) == 1 and (linear.rows[0].hi is None or linear.rows[0].lo is None):
            row = linear.rows[0]
            sign = 1.0 if row.hi is not None else -1.0
            cheapest = argmin(linear, sign * row.column.astype(np.float64))
            under = Seen((0.0,), cheapest, self.model.total(cheapest), -math.inf)
        first = [0.0] * len(linear.rows)
        if linear.rows:
            by_budget = find_prices(linear).values
            first = [by_budget[r.budget] for r in linear.rows]

        priced.run(first, self._reach(), under)
        return priced

    def _reach(self) -> list[float]:
        """Per row: the steepest trade that a group can offer, by its ends and all of its pairs."""
        problem, linear = self.model.problem, self.model.linear
        start, free = problem.indptr[:-1], linear.free
        span = np.maximum.reduceat(np.where(free, self.unary, -np.inf), start)
        span -= np.minimum.reduceat(np.where(free, self.unary, np.inf), start)
        for (g, h), table in self.joined.items():
            for end in (g, h):
                span[end] += float(table.max() - table.min())
        reach = []
        for row in linear.rows:
            column = row.column.astype(np.float64)
            use = np.maximum.reduceat(np.where(free, column, -np.inf), start)
            use -= np.minimum.reduceat(np.where(free, column, np.inf), start)
            ratio = span[use > 0] / use[use > 0]
            reach.append(2.0 * float(ratio.max(initial=0.0)) or 1.0)
        return reach

    def chained(self, limits: Limits, close: float) -> Answered | None:
        """Chains under at most one side of one row, exactly; None where that is not the case.

        close: gains up to it may be left alone.
        """
        linear, problem = self.model.linear, self.model.problem
        sides = [s for r in linear.rows for s in (r.hi, r.lo) if s is not None]
        if len(sides) > 1 or self.options.width < min(len(self.edges), 1):
            return None
        order = chains(self.edges // problem.group_count, self.edges % problem.group_count, problem.group_count)
        if order is None:
            return None
        stages = Stages.of(linear, *order, self.unary, self.pair, self.pair_value)
        if stages.cells > self.options.cells:
            return None
        offset = linear.objective(self.constant)
        return solve_stages(stages, linear, tolerance=close, offset=offset, limits=limits)


def _folded(
    value: FloatArray, group_of: IntArray, count: IntArray, pair: IntArray, pair_value: FloatArray
) -> tuple[FloatArray, float, IntArray, FloatArray]:
    """Pairs with a group that has one choice left are values of the other: (unary [N], constant, pairs, values)."""
    fixed = (count == 1)[group_of[pair]]
    unary = value.copy()
    for end in (0, 1):
        one = fixed[:, 1 - end] & ~fixed[:, end]
        np.add.at(unary, pair[one, end], pair_value[one])
    both = fixed.all(axis=1)
    kept = ~fixed.any(axis=1)
    return unary, math.fsum(pair_value[both].tolist()), pair[kept], pair_value[kept]
