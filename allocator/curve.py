"""A frontier: what each amount of one resource buys, and the allocation behind every point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from allocator.errors import UsageError
from allocator.evaluation import upper
from allocator.statement import BoolArray, FloatArray, IntArray, Number

if TYPE_CHECKING:
    from allocator.problem import Problem
    from allocator.solution import Solution


@dataclass(frozen=True)
class Point:
    """One point. cost: total of the resource, offset included. objective: what the problem minimises.

    multiplier ≥ 0: what one more unit of the resource takes off the objective, on the way to the next hull point (0
    at the last one, None where nothing is known). kind: "hull", least for objective + multiplier·cost and so
    optimal at its own cost, or "exact", from a solver. status: of a hull point `optimal`, by that argument; of an
    exact one what the core proved, with its gap.
    """

    cost: Number
    objective: float
    multiplier: float | None
    kind: Literal["hull", "exact"]
    status: Literal["optimal", "feasible"]
    gap: float | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Frontier:
    """Points of rising cost and falling objective, P of them, over G groups.

    base [G] int32: choice per group that the changes start from. Change j makes group[j] take choice[j] ([M] int32);
    point i is the base after the first steps[i] changes (steps [P] int64; None: after the first i).
    costs [P]: int64 where the resource is exact, else float64. objectives [P], multipliers [P] float64 (units of the
    objective per unit of the resource, such as loss per byte; nan where nothing is known), see `Point`.
    hull, optimal [P] bool: None where all are. gaps [P]: None where all are 0, nan where there is no bound.
    limit: what stopped the search between hull points ("time", "interrupt"); reasons: why a point is not there.
    """

    problem: Problem | None
    resource: str
    base: NDArray[np.int32]
    group: NDArray[np.int32]
    choice: NDArray[np.int32]
    costs: IntArray | FloatArray
    objectives: FloatArray
    multipliers: FloatArray
    steps: IntArray | None = None
    hull: BoolArray | None = None
    optimal: BoolArray | None = None
    gaps: FloatArray | None = None
    limit: str | None = None
    reasons: tuple[str, ...] = ()
    sha256: str | None = None

    def __len__(self) -> int:
        return len(self.costs)

    def __iter__(self) -> Iterator[Point]:
        return (self.point(i) for i in range(len(self)))

    @property
    def exact_resource(self) -> bool:
        """Whether costs are integers, so that budgets are floored and not relaxed."""
        return self.costs.dtype == np.int64

    def point(self, i: int) -> Point:
        """The i-th point, counted from the least cost; from the end where i < 0."""
        i = self._index(i)
        price = float(self.multipliers[i])
        gap = 0.0 if self.gaps is None else float(self.gaps[i])
        return Point(
            cost=self.costs[i].item(),
            objective=float(self.objectives[i]),
            multiplier=None if np.isnan(price) else price,
            kind="hull" if self.hull is None or self.hull[i] else "exact",
            status="optimal" if self.optimal is None or self.optimal[i] else "feasible",
            gap=None if np.isnan(gap) else gap,
        )

    def changes(self, i: int) -> int:
        """Number of changes between the base and the i-th point."""
        i = self._index(i)
        return i if self.steps is None else int(self.steps[i])

    def allocation(self, i: int) -> NDArray[np.int32]:
        """Choice per group [G] at the i-th point."""
        done = self.changes(i)
        latest = np.full(len(self.base), -1, np.int64)
        np.maximum.at(latest, self.group[:done], np.arange(done))
        return np.where(latest >= 0, self.choice[latest] if done else self.base, self.base).astype(np.int32)

    def index(self, budget: Number) -> int:
        """The last point whose cost is within the budget.

        Raises:
            UsageError: even the first point costs more, or there is none.
        """
        if not len(self):
            raise UsageError(f"frontier: has no points: {'; '.join(self.reasons) or 'the problem is infeasible'}")
        i = int(np.searchsorted(self.costs, upper(budget, self.exact_resource), side="right")) - 1
        if i < 0:
            raise UsageError(f"budget {self.resource}={budget}: no allocation costs less than {self.costs[0].item()}")
        return i

    def at(self, budget: Number) -> NDArray[np.int32]:
        """Choice per group [G] of the last point within the budget: optimal for that point's own cost.

        Raises:
            UsageError: even the first point costs more.
        """
        return self.allocation(self.index(budget))

    def solution(self, i: int) -> Solution:
        """The i-th point as a solution under a budget of its own cost, recomputed and proved by the core.

        Raises:
            UsageError: the frontier was loaded without its problem.
        """
        from allocator.pareto import certified

        return certified(self, self._index(i))

    def save(self, path: str | Path) -> None:
        """Write the frontier: npz where the path ends in .npz, else JSON with names; written aside and renamed."""
        from allocator.formats.frontiers import save_frontier

        save_frontier(self, path)

    def _index(self, i: int) -> int:
        if not -len(self) <= i < len(self):
            raise IndexError(f"the frontier has {len(self)} points, not a point {i}")
        return i % len(self)

    def __repr__(self) -> str:
        ends = f", {self.resource} {self.costs[0].item()} to {self.costs[-1].item()}" if len(self) else ""
        return f"Frontier({len(self)} points{ends})"


def thinned(frontier: dict[str, Any]) -> dict[str, Any]:
    """The fields of a frontier without points that cost no less, or are worth no less, than another.

    Costs come in rising order, equal ones allowed, and objectives may stall or rise: of equal costs the last of
    least objective stays, of equal objectives the cheapest. The changes of a point that goes fall to the next one.
    """
    costs, objectives = frontier["costs"], frontier["objectives"]
    if (costs[1:] > costs[:-1]).all() and (objectives[1:] < objectives[:-1]).all():
        return frontier
    least = np.minimum.accumulate(objectives)
    kept = np.flatnonzero(np.concatenate([[True], least[1:] < least[:-1]])[: len(costs)])
    following = np.concatenate([costs[kept][1:] > costs[kept][:-1], [True]])[: len(kept)]
    kept = kept[following]
    out = dict(frontier)
    for name in ("costs", "objectives", "multipliers", "hull", "optimal", "gaps"):
        if out.get(name) is not None:
            out[name] = out[name][kept]
    steps = out.get("steps")
    out["steps"] = kept if steps is None else steps[kept]
    return out


def without_rows(problem: Problem, resource: str) -> Problem:
    """The problem without the rows that are traded: those of the resource that have no tags."""
    kept = tuple(b for b in problem.budgets if b.resource != resource or b.tags is not None)
    return problem if len(kept) == len(problem.budgets) else problem.replace(budgets=kept)


def empty_frontier(problem: Problem, resource: str, reasons: tuple[str, ...], limit: str | None = None) -> Frontier:
    """A frontier without points, and why."""
    none, ints = np.zeros(0), np.zeros(0, np.int32)
    costs: IntArray | FloatArray = np.zeros(0, np.int64) if problem.exact(resource) else none
    return Frontier(
        problem=problem, resource=resource, base=ints, group=ints, choice=ints, costs=costs, objectives=none,
        multipliers=none, limit=limit, reasons=reasons,
    )  # fmt: skip
