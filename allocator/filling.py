"""Points between hull points: a solver at chosen budgets, each answer checked by the core."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.budgets import resolve
from allocator.curve import Frontier, empty_frontier, thinned, without_rows
from allocator.errors import UsageError
from allocator.evaluation import scale_of, upper
from allocator.pipeline import Interrupted, solve
from allocator.problem import Problem
from allocator.progress import Progress
from allocator.solution import Solution
from allocator.statement import Number

POINTS = 20
NOISE = 4 * float(np.finfo(float).eps)  # of S: a smaller gain is rounding
CLOSE = 1e-9  # budgets of a float resource closer than this, relatively, are one


@dataclass(frozen=True, eq=False)
class Found:
    """One answer of a solver: cost of the resource, objective, allocation [G], what is proved of it."""

    cost: Number
    objective: float
    choice: NDArray[np.int32]
    optimal: bool
    gap: float
    multiplier: float


class _Stopped(Exception):  # noqa: N818 - not an error: time is up, or Ctrl-C
    pass


def fill(
    problem: Problem,
    resource: str,
    start: Frontier | None,
    points: int | Sequence[Number | str] | None,
    gap: float | None,
    time_limit: float | None,
    settings: Mapping[str, Any],
    progress: Progress | None = None,
) -> Frontier:
    """The frontier with the gaps between the points of `start` (a hull, or None where there is none) filled.

    Args as in `allocator.frontier`; settings go to `solve`. Raises `UsageError` for arguments that contradict.
    """
    if points is not None and gap is not None:
        raise UsageError("frontier: points and gap each say where to look; give one of them")
    if isinstance(points, int) and points < 1:
        raise UsageError(f"frontier: points={points}; give 1 or more budgets")
    if gap is not None and not (math.isfinite(gap) and gap >= 0):
        raise UsageError(f"frontier: gap={gap}; give a share of 0 or more")
    if time_limit is not None and not (math.isfinite(time_limit) and time_limit > 0):
        raise UsageError(f"frontier: time_limit={time_limit}; give seconds above 0, or none")
    count, budgets = POINTS, None
    if isinstance(points, int):
        count = points
    elif points is not None:
        budgets = [resolve(problem, resource, str(p)) for p in points]
    run = _Filling(problem, resource, start, settings, time_limit, progress)
    try:
        if run.ends():
            if gap is not None:
                run.refine(gap)
            else:
                run.grid(budgets if budgets is not None else run.spread(count))
    except _Stopped as stop:
        run.limit = str(stop)
    return run.merged()


@dataclass
class _Filling:
    problem: Problem
    resource: str
    hull: Frontier | None
    settings: Mapping[str, Any]
    time_limit: float | None
    progress: Progress | None
    found: list[Found] = field(default_factory=list)
    limit: str | None = None
    reasons: tuple[str, ...] = ()
    asked: int = 0
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.tolerance = NOISE * scale_of(self.problem)
        self.integral = self.problem.exact(self.resource)
        self.free = without_rows(self.problem, self.resource)

    # -- one question ---------------------------------------------------------------------------------------------

    def ask(self, problem: Problem, start: NDArray[np.int32] | None = None, total: int = 1) -> Solution:
        """One solve in what is left of the time; raises _Stopped once that is over."""
        left = None if self.time_limit is None else self.started + self.time_limit - time.monotonic()
        if left is not None and left <= 0:
            raise _Stopped("time")
        if self.progress is not None:
            self.progress("solving", self.asked, max(total, self.asked + 1))
        self.asked += 1
        try:
            return solve(problem, time_limit=left, start=None if start is None else start.tolist(), **self.settings)
        except Interrupted:
            raise _Stopped("interrupt") from None

    def keep(self, solution: Solution) -> Found | None:
        """The answer as a point, added to what was found; None without an allocation."""
        if solution.allocation is None:
            if solution.reasons and solution.status != "infeasible":
                self.reasons = tuple(dict.fromkeys((*self.reasons, *solution.reasons)))[:20]
            return None
        rows = [b.resource == self.resource and b.tags is None for b in solution.allocation.problem.budgets]
        price = solution.multipliers[rows.index(True)] if any(rows) else 0.0
        point = Found(
            cost=solution.totals[self.resource],
            objective=float(solution.objective or 0.0),
            choice=solution.allocation.choice,
            optimal=solution.status == "optimal",
            gap=math.nan if solution.gap is None else solution.gap,
            multiplier=math.nan if price is None else abs(price),
        )
        self.found.append(point)
        return point

    def within(self, budget: Number, total: int = 1, start: NDArray[np.int32] | None = None) -> Found | None:
        """The best allocation under a budget, if it is better than every known one of no larger cost."""
        known, near = self.known(budget)
        point = self.keep(self.ask(self.problem.with_budget(self.resource, max=budget), near, total))
        if point is not None and point.objective >= known - self.tolerance:
            self.found.remove(point)
            return None
        return point

    def known(self, budget: Number) -> tuple[float, NDArray[np.int32] | None]:
        """Least objective known within the budget, and its allocation."""
        most = upper(budget, self.integral)
        best: tuple[float, NDArray[np.int32] | None] = (math.inf, None)
        if self.hull is not None and len(self.hull) and self.hull.costs[0] <= most:
            i = self.hull.index(budget)
            best = (float(self.hull.objectives[i]), self.hull.allocation(i))
        for point in self.found:
            if point.cost <= most and point.objective < best[0]:
                best = (point.objective, point.choice)
        return best

    # -- where to ask ---------------------------------------------------------------------------------------------

    def ends(self) -> bool:
        """Both ends of the frontier, from the hull or from a solver; False where there is nothing between them."""
        if self.hull is not None:
            self.reasons = self.hull.reasons
            return len(self.hull) > 0
        last = self.ask(self.free)
        if self.keep(last) is None:
            self.reasons = self.reasons or last.reasons
            return False
        cheapest = self.ask(self.free.replace(minimize={self.resource: 1.0}))
        if cheapest.allocation is not None:
            least = cheapest.totals[self.resource]
            best = self.keep(self.ask(self.problem.with_budget(self.resource, max=least), cheapest.allocation.choice))
            return best is not None
        self.reasons = (*self.reasons, *cheapest.reasons)
        return True

    def corners(self) -> list[tuple[Number, float]]:
        """Known points as (cost, objective), by cost, none dominated."""
        points = [(p.cost, p.objective) for p in self.found]
        if self.hull is not None:
            points += list(zip(self.hull.costs.tolist(), self.hull.objectives.tolist(), strict=True))
        kept: list[tuple[Number, float]] = []
        for cost, objective in sorted(points):
            if not kept or objective < kept[-1][1]:
                kept.append((cost, objective))
        return kept

    def spread(self, count: int) -> list[Number]:
        """Budgets evenly spaced from the least to the largest cost."""
        corners = self.corners()
        low, high = corners[0][0], corners[-1][0]
        if self.integral:
            return [int(low) + (int(high) - int(low)) * j // max(count - 1, 1) for j in range(count)]
        return [float(b) for b in np.linspace(low, high, count)]

    def grid(self, budgets: Iterable[Number]) -> None:
        """Ask at each of the budgets, least first."""
        wanted = sorted(set(budgets))
        taken = {cost for cost, _ in self.corners()}  # optimal at their own cost already
        wanted = [b for b in wanted if b not in taken]
        for budget in wanted:
            self.within(budget, len(wanted))

    def refine(self, gap: float) -> None:
        """Ask in the middle of the widest gap until none is wider than `gap` in both cost and objective."""
        corners = self.corners()
        gaps: list[tuple[float, Number, float, Number, float]] = []

        def push(low: Number, worth: float, high: Number, best: float) -> None:
            """Between these costs nothing is known; worth ≥ objective there ≥ best."""
            wide = (high - low) / max(abs(high), abs(low), 5e-324)
            drop = (worth - best) / max(abs(worth), abs(best), 5e-324)
            nothing = high - low <= 1 if self.integral else wide <= CLOSE
            if wide > gap and drop > gap and not nothing:
                heapq.heappush(gaps, (-min(wide, drop), low, worth, high, best))

        for (low, worth), (high, best) in pairwise(corners):
            push(low, worth, high, best)
        while gaps:
            _, low, worth, high, best = heapq.heappop(gaps)
            middle = (int(low) + int(high)) // 2 if self.integral else low + (high - low) / 2
            point = self.within(middle, self.asked + len(gaps) + 1)
            if point is not None and low < point.cost:
                push(low, worth, point.cost, point.objective)
            reached = worth if point is None else point.objective
            push(middle, reached, high, best)

    # -- all together ---------------------------------------------------------------------------------------------

    def merged(self) -> Frontier:
        """Hull points and found ones by cost, dominated ones dropped."""
        hull = self.hull
        if hull is None or not len(hull):
            if not self.found:
                return empty_frontier(self.problem, self.resource, self.reasons, self.limit)
            hull = None
        found = sorted(self.found, key=lambda p: (p.cost, p.objective))
        if hull is not None:  # optimal at their own costs already, whatever rounding says
            at = np.searchsorted(hull.costs, [p.cost for p in found])
            same = hull.costs[np.minimum(at, len(hull) - 1)] == np.array([p.cost for p in found])
            found = [p for p, s in zip(found, same.tolist(), strict=True) if not s]
        return _join(self.problem, self.resource, hull, found, self.limit, self.reasons)


def _join(
    problem: Problem,
    resource: str,
    hull: Frontier | None,
    found: Sequence[Found],
    limit: str | None,
    reasons: tuple[str, ...],
) -> Frontier:
    """One sequence of changes through hull points and found ones, in order of cost."""
    base = found[0].choice if hull is None else hull.base
    at = [0] * len(found) if hull is None else np.searchsorted(hull.costs, [p.cost for p in found]).tolist()
    now = base
    changes: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
    columns: list[dict[str, Any]] = []
    done = reached = 0  # changes made; hull points passed

    def move(to: NDArray[np.int32]) -> None:
        nonlocal now, done
        differ = np.flatnonzero(now != to).astype(np.int32)
        changes.append((differ, to[differ]))
        done, now = done + len(differ), to

    def pass_hull(until: int) -> None:
        """The hull's own moves up to, not including, its point `until`."""
        nonlocal now, done, reached
        if hull is None or until <= reached:
            return
        move(hull.allocation(reached))
        first, last = hull.changes(reached), hull.changes(until - 1)
        steps = np.arange(reached, until) if hull.steps is None else hull.steps[reached:until]
        part = slice(reached, until)
        columns.append(
            {"steps": steps - first + done, "costs": hull.costs[part], "objectives": hull.objectives[part],
             "multipliers": hull.multipliers[part], "hull": np.ones(until - reached, bool),
             "optimal": np.ones(until - reached, bool), "gaps": np.zeros(until - reached)}
        )  # fmt: skip
        changes.append((hull.group[first:last], hull.choice[first:last]))
        done, now, reached = done + last - first, hull.allocation(until - 1), until

    for point, until in zip(found, at, strict=True):
        pass_hull(int(until))
        move(point.choice)
        columns.append(
            {"steps": [done], "costs": [point.cost], "objectives": [point.objective],
             "multipliers": [point.multiplier], "hull": [False], "optimal": [point.optimal], "gaps": [point.gap]}
        )  # fmt: skip
    pass_hull(0 if hull is None else len(hull))
    kinds = {"steps": np.int64, "costs": np.int64 if problem.exact(resource) else np.float64, "objectives": np.float64,
             "multipliers": np.float64, "hull": bool, "optimal": bool, "gaps": np.float64}  # fmt: skip
    fields = {k: np.concatenate([c[k] for c in columns]).astype(kind) for k, kind in kinds.items()}
    none = [np.zeros(0, np.int32)]
    fields["group"] = np.concatenate([c[0] for c in changes] or none).astype(np.int32)
    fields["choice"] = np.concatenate([c[1] for c in changes] or none).astype(np.int32)
    return Frontier(problem=problem, resource=resource, base=base, limit=limit, reasons=reasons, **thinned(fields))
