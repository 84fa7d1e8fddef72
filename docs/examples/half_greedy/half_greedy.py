"""Half of a greedy: every group is upgraded once at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator import Answer, Exactness, Limits, Problem
from allocator.certificate import Multipliers
from allocator.linear import linearise


@dataclass(frozen=True, kw_only=True)
class HalfGreedy:
    """Starts from the cheapest choices and buys upgrades, the most loss saved per cost first, one for each group.

    upgrades: bought at most.
    """

    upgrades: int = 1_000_000

    name: ClassVar[str] = "half_greedy"
    features: ClassVar[frozenset[str]] = frozenset({"scoped_budgets"})  # beyond one max row over a sum
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.upgrades < 0:
            raise ValueError(f"upgrades={self.upgrades}: give 0 or more")

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Group g owns the rows indptr[g]:indptr[g+1] of every column; an answer counts from the first of them."""
        linear = linearise(problem)  # one value for each choice, one column for each budget row, choices not masked out
        first, group_of, value = problem.indptr[:-1], problem.group_of, linear.value
        cost, room, prices = np.zeros(problem.choice_count), np.inf, [0.0] * len(problem.budgets)
        if linear.rows and linear.rows[0].hi is not None:
            cost, room = linear.rows[0].column, linear.rows[0].hi
        cheapest = np.lexsort((value, cost, ~linear.free, group_of))[first]
        if not linear.free[cheapest].all():
            return Answer()  # nothing found, nothing claimed
        taken = cheapest.copy()
        room = room - cost[taken].sum().item()
        saved, extra = value[taken][group_of] - value, cost - cost[taken][group_of]
        useful = np.flatnonzero(linear.free & (saved > 0) & (extra > 0))
        ratio = saved[useful] / extra[useful]
        bought, limit = 0, None
        for i in np.argsort(-ratio, kind="stable").tolist():
            if limits.left <= 0 or bought == self.upgrades:
                limit = "time" if limits.left <= 0 else None
                break
            row, group = useful[i], group_of[useful[i]]
            if extra[row] > room:
                prices[linear.rows[0].budget] = prices[linear.rows[0].budget] or ratio[i].item()
            elif taken[group] == cheapest[group]:
                taken[group], room, bought = row, room - extra[row].item(), bought + 1
        choice = taken - first
        if not problem.evaluate(choice).feasible:  # sums of floats round: what the core will not take is not returned
            return Answer()
        if limits.report is not None:
            limits.report(choice)
        return Answer(choice=choice, certificate=Multipliers(tuple(prices)), limit=limit, statistics={"bought": bought})
