"""Two precisions: groups in the order of their sensitivity, the first k high, the others low."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.errors import UnsupportedError
from allocator.features import LINEAR
from allocator.linear import Linear, linearise
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import IntArray
from solvers._axis import GIVE, Axis
from solvers._closing import closed
from solvers._stats import has_any, stat


@dataclass(frozen=True, kw_only=True)
class PrefixCut:
    """Sorts the groups by sensitivity; the k most sensitive take the high choice, all others the low one.

    NNCF's mixed precision: a cut through one sorted list, at the last place that fits; no group behind the cut is
    tried instead. All k are looked at, under all rows, and the one of least loss is taken, which is the largest
    that fits unless named labels make "high" worse. Repaired from "all low" where no k fits.

    Stat, optional, for all groups or none: `sensitivity`, larger for groups that need the high choice. Without it,
    the loss of the low choice less that of the high one.

    low, high: labels; empty for each group's cheapest choice, and for its choice of least loss. Groups with a
    single choice keep it.
    polish: go on by local search from there; what comes out is then the work of the search.
    """

    low: str = ""
    high: str = ""
    polish: bool = False

    name: ClassVar[str] = "prefix_cut"
    features: ClassVar[frozenset[str]] = LINEAR | {"loss_budgets", "pnorm_loss"}
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ("sensitivity",)
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Sort, try every k, repair."""
        axis = Axis.of(linearise(problem))
        if axis is None:
            return Answer()
        linear = axis.linear
        low = labelled(linear, self.low) if self.low else axis.cheapest
        high = labelled(linear, self.high) if self.high else axis.best
        if has_any(problem, "sensitivity"):
            order = np.argsort(-stat(problem, self.name, "sensitivity", "how much it needs precision"), kind="stable")
        else:
            order = np.argsort(linear.value[high] - linear.value[low], kind="stable")
        order = order[low[order] != high[order]]
        k = best_cut(linear, low, high, order)
        rows = low.copy()
        rows[order[:k]] = high[order[:k]]
        return closed(axis, rows, limits, polish=self.polish, statistics={"high": k, "of": len(order)})


def best_cut(linear: Linear, low: IntArray, high: IntArray, order: IntArray) -> int:
    """How many of the ordered groups to take at the high choice: the k of least value that keeps all rows, else 0."""

    def along(column: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.int64] | NDArray[np.float64]:
        steps = column[high[order]] - column[low[order]]
        return np.cumsum(np.concatenate([column[low].sum(keepdims=True), steps]))

    good = np.ones(len(order) + 1, bool)
    for row in linear.rows:
        use, give = along(row.column), 0 if row.exact else GIVE
        if row.hi is not None:
            good &= use <= row.hi - give * abs(row.hi)
        if row.lo is not None:
            good &= use >= row.lo + give * abs(row.lo)
    return int(np.argmin(np.where(good, along(linear.value), np.inf))) if good.any() else 0


def labelled(linear: Linear, label: str) -> IntArray:
    """The row of each group [G] that has the label, of several the one of least value; a single choice stands.

    Raises:
        UnsupportedError: a group of several choices has none of that label that may be taken.
    """
    problem = linear.problem
    codes = problem.label_codes
    named = codes.code == codes.table.index(label) if label in codes.table else np.zeros(problem.choice_count, bool)
    named = (named | (problem.sizes == 1)[problem.group_of]) & linear.free
    has = np.logical_or.reduceat(named, problem.indptr[:-1])
    if not has.all():
        g = int(np.argmin(has))
        raise UnsupportedError(
            f"solver 'prefix_cut' needs a choice labelled {label!r} in every group that has a choice; group number "
            f"{g} (from 0, {problem.group_names[g]!r}) has none; leave low and high empty, or pin that group"
        )
    order = np.lexsort((linear.value, problem.group_of))
    order = order[named[order]]
    owner = problem.group_of[order]
    return np.asarray(order[np.concatenate([[True], owner[1:] != owner[:-1]])])
