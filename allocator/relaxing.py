"""Is there any allocation under some of a problem's constraints, and how far does a budgeted quantity reach then?"""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from allocator.errors import AllocatorError, UsageError
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.protocols import Solver
from allocator.reduced_costs import first_least
from allocator.solution import Solution
from allocator.statement import Budget, Loss, Number, Resource

USE, NOTHING = "(what is limited)", "(nothing)"  # columns of our own; a resource of this name would be replaced

Side = Literal["max", "min"]


@dataclass(frozen=True, order=True)
class Constraint:
    """One thing that may be dropped: a side of a budget row, a pin (`index`: its group), or a coupling."""

    kind: Literal["max", "min", "pin", "coupling"]
    index: int


def constraints_of(problem: Problem) -> list[Constraint]:
    """All of a problem's, budgets first; forbidden choices are part of the problem and cannot be dropped."""
    sides: tuple[Side, ...] = ("max", "min")
    found = [Constraint(s, i) for i, b in enumerate(problem.budgets) for s in sides if getattr(b, s) is not None]
    found += [Constraint("coupling", i) for i in range(len(problem.couplings))]
    return found + [Constraint("pin", g) for g in problem.pins]


@dataclass(eq=False)
class Oracle:
    """Asks a solver; what it cannot decide in time counts as undecided.

    claimed: answers that rest on a backend's word. undecided: questions without an answer.
    """

    problem: Problem
    solver: str | Solver = "auto"
    deadline: float = math.inf
    seed: int = 0
    claimed: int = 0
    undecided: int = 0
    _known: dict[frozenset[Constraint], bool | None] = field(default_factory=dict)

    def feasible(self, kept: Collection[Constraint]) -> bool | None:
        """Whether some allocation keeps these constraints; None: not decided."""
        key = frozenset(kept)
        if key not in self._known:
            self._known[key] = self._decide(self._aimless(self.restricted(kept)))
        return self._known[key]

    def restricted(self, kept: Collection[Constraint]) -> Problem:
        """The problem under these constraints alone."""
        problem, wanted = self.problem, set(kept)
        rows = []
        for i, row in enumerate(problem.budgets):
            high = row.max if Constraint("max", i) in wanted else None
            low = row.min if Constraint("min", i) in wanted else None
            if high is not None or low is not None:
                rows.append(replace(row, max=high, min=low))
        return problem.replace(
            budgets=tuple(rows),
            couplings=tuple(c for i, c in enumerate(problem.couplings) if Constraint("coupling", i) in wanted),
            pins={g: row for g, row in problem.pins.items() if Constraint("pin", g) in wanted},
        )

    def least(self, kept: Collection[Constraint], row: Budget, sign: int = 1) -> tuple[Number, bool] | None:
        """The smallest (sign −1: largest) left side of a row under constraints, and whether that is proved.

        A number that an allocation reaches, within 1e-12 of the size of the costs. None: no allocation was found.
        """
        problem = self.restricted(kept)
        if self._largest_of(row):
            return self._by_levels(problem, row, sign)
        bent = row.loss and bool(problem.active_interactions or problem.loss.aggregate == "pnorm")
        column = self._column(row)
        if not problem.budgets and not problem.couplings and not bent:
            far = np.iinfo(np.int64).max if column.dtype == np.int64 else np.inf
            taken = first_least(problem, np.where(problem.free, sign * column, far))
            return self._used(row, taken - problem.indptr[:-1]), True
        if bent:
            asked = problem.replace(minimize={"loss": float(sign)})
        elif row.resource is not None and row.tags is None:
            asked = self._without_loss(problem).replace(minimize={row.resource: float(sign)})
        else:
            asked = self._without_loss(problem).replace(
                costs={**problem.costs, USE: column},
                resources={**problem.resources, USE: Resource()},
                minimize={USE: float(sign)},
            )
        solution = self._ask(asked)
        if solution is None or solution.allocation is None:
            return None
        return self._used(row, solution.allocation.choice), solution.status == "optimal"

    def _used(self, row: Budget, choice: NDArray[Any]) -> Number:
        one = self.problem.replace(budgets=(row,))
        return one.evaluate(choice).used[0]

    def _largest_of(self, row: Budget) -> bool:
        """Whether the row limits a maximum."""
        if row.loss:
            return self.problem.loss.aggregate == "max"
        return row.resource is not None and self.problem.resources[row.resource].aggregate == "max"

    def _column(self, row: Budget) -> NDArray[Any]:
        """What the row adds up, out of scope 0."""
        problem = self.problem
        column: NDArray[Any]
        if row.loss:
            column = problem.unary
        elif row.score is not None:
            column = problem.scores[row.score]
            if row.include_remainder and row.score in problem.remainder:
                column = column + problem.remainder[row.score]
        else:
            column = problem.cost(row.resource or "")
        if row.tags is None:
            return column
        return np.where(problem.in_scope(row.tags)[problem.group_of], column, np.zeros((), column.dtype))

    def _by_levels(self, problem: Problem, row: Budget, sign: int) -> tuple[Number, bool] | None:
        """The least or largest maximum: the levels are the choices' own numbers, and are bisected."""
        column = self._column(row)
        spec = None if row.loss else problem.resources[row.resource or ""]
        inside = problem.in_scope(row.tags)[problem.group_of] & problem.free
        floor = -math.inf if spec is None else spec.offset if row.tags is None else 0
        levels: list[Number] = np.unique(column[inside]).tolist()
        if spec is not None:
            levels = sorted({floor, *(v for v in levels if v > floor)})
        proved = True

        def holds(level: Number) -> bool:
            nonlocal proved
            high, low = (level, None) if sign > 0 else (None, level)
            asked = problem.replace(budgets=(*problem.budgets, replace(row, max=high, min=low)))
            found = self._decide(self._aimless(asked))
            proved = proved and found is not None
            return bool(found)

        if sign > 0:
            place = bisect.bisect_left(levels, True, key=holds)
        else:
            place = bisect.bisect_left(levels, True, key=lambda level: not holds(level)) - 1
        return (levels[place], proved) if 0 <= place < len(levels) else None

    def _aimless(self, problem: Problem) -> Problem:
        """The problem with an objective that is 0 throughout."""
        problem = self._without_loss(problem)
        summed = [r for r, spec in problem.resources.items() if spec.aggregate == "sum"]
        if summed:
            return problem.replace(minimize={summed[0]: 0.0})
        nothing = np.zeros(problem.choice_count, np.int64)
        return problem.replace(
            costs={**problem.costs, NOTHING: nothing},
            resources={**problem.resources, NOTHING: Resource()},
            minimize={NOTHING: 0.0},
        )

    def _without_loss(self, problem: Problem) -> Problem:
        """Where no row limits the loss it does not matter, and nor do interactions."""
        if any(b.loss for b in problem.budgets):
            return problem
        return problem.replace(
            loss=Loss(problem.loss.terms), interactions=(), minimize={next(iter(problem.costs)): 0.0}
        )

    def _decide(self, problem: Problem) -> bool | None:
        solution = self._ask(problem)
        if solution is not None and solution.allocation is not None:
            return True
        if solution is not None and "infeasible" in (solution.status, solution.claim):
            self.claimed += solution.status != "infeasible"
            return False
        self.undecided += 1
        return None

    def _ask(self, problem: Problem) -> Solution | None:
        """A solver's checked answer; a second backend is asked where `auto` settles for one that knows nothing."""
        answer = None
        for backend in (self.solver, "exact") if self.solver == "auto" else (self.solver,):
            left = self.deadline - time.monotonic()
            if left <= 0:
                return answer
            try:
                answer = solve(problem, backend, time_limit=None if left == math.inf else left, seed=self.seed)
            except UsageError:
                raise
            except AllocatorError:
                continue
            if answer.status != "unknown" or answer.claim is not None:
                return answer
        return answer
