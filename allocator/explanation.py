"""explain(): why each group's choice was taken, what the next best would cost, and what each budget is worth."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator import wording
from allocator.changes import Changes
from allocator.chosen import Chosen, Given, chosen
from allocator.coupling_changes import state
from allocator.errors import UnsupportedError, UsageError
from allocator.evaluation import Outcome, lexicographic, scale_of
from allocator.problem import Problem
from allocator.reasons import FILL, FORCED, KINDS, Alternative, GroupReason, alternative, kinds, sentence
from allocator.reduce import Reduced, reduce
from allocator.reduced_costs import Priced, first_least, priced
from allocator.statement import FloatArray, IntArray

SHOWN = 20
NOTED = 20  # violations that are listed


def explain(problem: Problem, solution: Given) -> Explanation:
    """Why each choice of a solution was taken.

    Args:
        problem: the problem, or another version of it: then the explanation says so and works everything out anew.
        solution: a `Solution`, the path of a solution file, a mapping group → choice, or indices [G]. Budgets and
            objective that it was asked for replace the problem's own.

    Raises:
        UsageError: there is no allocation in the solution, or it does not fit the problem's groups and choices.
        ProblemError: the solution file breaks the format.
    """
    return Explanation(chosen(problem, solution))


class Explanation:
    """An allocation explained, in columns over the groups [G]; `group(name)` says it of one group.

    Groups that must take one label (`same_choice`) change together: they share one entry's worth of numbers.

    problem: as solved, with the solution's budgets. status: what was proved of the solution, None where unknown.
    warnings: what does not fit. notes: how far prices go, or why there are none.
    """

    def __init__(self, given: Chosen) -> None:
        self.problem: Problem = given.problem
        self.outcome: Outcome = given.outcome
        self.status = given.status
        self._reduced, rows = _reduced(given)
        blocks = self._reduced.problem
        assert blocks is not None
        self._blocks: Problem = blocks
        self._changes = Changes(Outcome(blocks, rows))
        found = priced(self._changes, given.multipliers)
        self._priced: Priced | None = found if isinstance(found, Priced) else None
        self.notes: tuple[str, ...] = (found,) if isinstance(found, str) else found.notes
        if isinstance(found, Priced) and found.found and not found.notes and blocks.budgets:
            self.notes = ("the solution brings no multipliers; these were found here, by the Lagrangian bound",)
        violations = self.outcome.violations
        more = f" and {len(violations) - NOTED} more" if len(violations) > NOTED else ""
        broken = (f"the allocation breaks this problem: {'; '.join(violations[:NOTED])}{more}",) if violations else ()
        self.warnings: tuple[str, ...] = (*given.warnings, *broken)

    # -- columns -------------------------------------------------------------------------------------------------

    @cached_property
    def _block(self) -> IntArray:
        """Entry of each group [G] among the groups that change together."""
        taken = self._reduced.taken
        if taken is None:
            return np.arange(self.problem.group_count)
        first = taken[self._blocks.indptr[:-1]]
        block = np.empty(self.problem.group_count, np.int64)
        for column in first.T:
            there = np.flatnonzero(column >= 0)
            block[self.problem.group_of[column[there]]] = there
        return block

    @cached_property
    def kind(self) -> NDArray[np.int8]:
        """Why, as an index into `KINDS` [G]."""
        return self._kinds[self._block]

    @cached_property
    def _kinds(self) -> NDArray[np.int8]:
        tolerance = 1e-12 * scale_of(self._blocks)
        up = self._runner_up
        better = self._regret < -tolerance
        if lexicographic(self._blocks):
            better |= (up >= 0) & (np.abs(self._regret) <= tolerance) & (self._changes.tie[up] < -tolerance)
        return kinds(self._changes, self._priced, better)

    @property
    def counts(self) -> dict[str, int]:
        """Groups of each kind."""
        return dict(zip(KINDS, np.bincount(self.kind, minlength=len(KINDS)).tolist(), strict=True))

    @property
    def reduced_cost(self) -> FloatArray:
        """Of the taken choices [G], ≥ 0, in units of the objective: 0 for the best by price; nan without prices."""
        if self._priced is None:
            return np.full(self.problem.group_count, np.nan)
        return self._priced.reduced_cost[self._priced.rows][self._block]

    @property
    def regret(self) -> FloatArray:
        """What the objective loses by each group's best other choice that keeps everything [G]; inf: there is none.

        Negative where a single change improves the allocation.
        """
        return self._regret[self._block]

    @cached_property
    def _runner_up(self) -> IntArray:
        """Row of each block's best single change that keeps every budget and coupling; −1: there is none."""
        changes, blocks = self._changes, self._blocks
        other = changes.feasible.copy()
        other[changes.outcome.rows] = False
        best = first_least(blocks, np.where(other, changes.objective, np.inf))
        if not lexicographic(blocks):
            return best
        least = np.where(best >= 0, changes.objective[best], np.nan)
        equal = other & (changes.objective == least[blocks.group_of])
        return first_least(blocks, np.where(equal, changes.tie, np.inf))

    @cached_property
    def _regret(self) -> FloatArray:
        return np.asarray(np.where(self._runner_up < 0, np.inf, self._changes.objective[self._runner_up]))

    def interval(self, budget: int) -> tuple[FloatArray, FloatArray]:
        """Prices (low [G], high [G]) of budget row `budget` at which each choice is its group's best, others fixed.

        nan: at no price, as for a fill choice off the hull, or the row has no price. In units of the objective per
        unit of the row; negative for a row with a min alone.
        """
        if not 0 <= budget < len(self.problem.budgets):
            raise UsageError(f"there is no budget row {budget}; the problem has {len(self.problem.budgets)}")
        if self._priced is None:
            return np.full(self.problem.group_count, np.nan), np.full(self.problem.group_count, np.nan)
        low, high = self._priced.interval(budget)
        return low[self._block], high[self._block]

    @property
    def per(self) -> str:
        """What prices and reduced costs are in, in words: loss, a resource, a mixture."""
        return "" if self._priced is None else self._priced.per

    @property
    def multipliers(self) -> tuple[float | None, ...]:
        """Per budget row; None where it only forbids choices, or without prices."""
        prices = self._priced.prices if self._priced is not None else ()
        return tuple(prices[i] if i < len(prices) else None for i in range(len(self.problem.budgets)))

    # -- one group, and all of it --------------------------------------------------------------------------------

    def group(self, name: str) -> GroupReason:
        """Everything about one group's choice.

        Raises:
            UsageError: there is no such group.
        """
        if name not in self.problem.group_names.position:
            raise UsageError(f"there is no group {name!r} in this problem")
        return self._reason(self.problem.group_names.position[name])

    def most_interesting(self, most: int = SHOWN) -> list[GroupReason]:
        """The groups where the runner-up is worst, at most so many; of groups that change together the first."""
        regret = self._regret
        finite = np.flatnonzero(np.isfinite(regret))
        if len(finite) > most:
            finite = finite[np.argpartition(-regret[finite], most - 1)[:most]] if most > 0 else finite[:0]
        chosen = finite[np.argsort(-regret[finite], kind="stable")]
        if len(chosen) < most:
            rest = np.flatnonzero(~np.isfinite(regret) & (self._kinds != KINDS.index(FORCED)))[: most - len(chosen)]
            chosen = np.concatenate([chosen, rest])
        return [self._reason(int(self._members(b)[0])) for b in chosen.tolist()]

    def _members(self, block: int) -> IntArray:
        """Groups that change together in a block."""
        taken = self._reduced.taken
        if taken is None:
            return np.array([block])
        rows = taken[self._blocks.indptr[block]]
        return np.sort(self.problem.group_of[rows[rows >= 0]])

    def _reason(self, g: int) -> GroupReason:
        block, p = int(self._block[g]), self._priced
        row = int(self._changes.outcome.rows[block])
        kind = KINDS[self._kinds[block]]
        inside = slice(int(self._blocks.indptr[block]), int(self._blocks.indptr[block + 1]))
        by_price = better = None
        intervals: list[tuple[float, float] | None] = [None] * len(self.problem.budgets)
        if p is not None:
            for i in range(len(intervals)):
                low, high = (float(end[block]) for end in p.interval(i))
                intervals[i] = None if np.isnan(low) else (low, high)
            lowered = np.where(p.free[inside], p.lowered[inside], np.inf)
            lowered[row - inside.start] = np.inf
            by_price = self._alternative(inside.start, lowered)
            gains = p.value[inside] < p.value[row]
            better = self._alternative(inside.start, np.where(gains, lowered, np.inf))
        runner_up = None if self._runner_up[block] < 0 else self._of(int(self._runner_up[block]))
        names = self.problem.group_names
        return GroupReason(
            group=names[g],
            choice=self.problem.choice_name(int(self.outcome.rows[g])),
            changes_with=tuple(names[m] for m in self._members(block).tolist() if m != g),
            kind=kind,
            why=sentence(self, g, kind, intervals, by_price, runner_up),
            reduced_cost=None if p is None else float(p.lowered[row] - p.least[block]),
            intervals=tuple(intervals),
            runner_up=runner_up,
            best_other_by_price=by_price,
            next_better=better,
        )

    def _alternative(self, start: int, column: FloatArray) -> Alternative | None:
        place = int(column.argmin())
        return None if np.isinf(column[place]) else self._of(start + place)

    def _of(self, row: int) -> Alternative:
        return alternative(self.problem, self._reduced, self._changes, self._priced, row)

    def budgets(self) -> list[dict[str, Any]]:
        """Per budget row: limits, use, slack, multiplier and what it says, in words."""
        rows = []
        for row, use, room, price in zip(
            self.problem.budgets, self.outcome.used, self.outcome.slack, self.multipliers, strict=True
        ):
            says = wording.price(self.problem, row, price, self.per) if self._priced is not None else "no price"
            rows.append(
                {"row": row.name, "max": row.max, "min": row.min, "used": use, "slack": room, "multiplier": price}
                | {"says": says}
            )
        return rows

    def couplings(self) -> list[dict[str, Any]]:
        """Per coupling: what it is in words, whether it leaves no room, and how many improvements it rules out.

        An improvement is a single change that lowers the objective and keeps every budget and all other couplings.
        """
        found = []
        for coupling in self.problem.couplings:
            text, tight = state(self.problem, self.outcome.rows, coupling)
            found.append({"coupling": text, "tight": tight, "improvements_ruled_out": self._ruled_out(coupling)})
        return found

    def _ruled_out(self, coupling: Any) -> int:
        """On the stated problem, whose groups change one by one here."""
        changes = self._stated_changes
        others = [c for c in self.problem.couplings if c is not coupling]
        wanted = changes.free & changes.within & (changes.objective < 0) & ~changes.keeps(coupling)
        for other in others:
            wanted &= changes.keeps(other)
        return int(wanted.sum())

    @cached_property
    def _stated_changes(self) -> Changes:
        return self._changes if self._blocks is self.problem else Changes(self.outcome)

    def to_json(self, most: int = SHOWN, group: str | None = None) -> dict[str, Any]:
        """Plain data: the head, and the most interesting groups or the one asked for."""
        reasons = [self.group(group)] if group is not None else self.most_interesting(most)
        counts = self.counts
        return {
            "status": self.status,
            "objective": self.outcome.objective,
            "loss": self.outcome.loss,
            "totals": self.outcome.totals,
            "budgets": self.budgets(),
            "couplings": self.couplings(),
            "kinds": counts,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "groups": [reason.to_json() for reason in reasons],
        }

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {kind}" for kind, n in self.counts.items() if n)
        return f"Explanation({self.problem.group_count} groups: {counts or FILL})"


def _reduced(given: Chosen) -> tuple[Reduced, IntArray]:
    """The problem of groups that change together, and the allocation there; as stated where that does not work."""
    problem, rows = given.problem, given.outcome.rows
    plain = Reduced(problem, problem), rows
    try:
        reduced = reduce(problem)
    except UnsupportedError:
        return plain
    if reduced.problem is None:
        return plain
    choice = reduced.contract(rows - problem.indptr[:-1])
    return plain if choice is None else (reduced, reduced.problem.indptr[:-1] + choice)
