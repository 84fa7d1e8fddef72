"""The reason for one group's choice, its alternatives, and the same in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from allocator import wording
from allocator.changes import Changes
from allocator.coupling_changes import name
from allocator.problem import Problem
from allocator.reduce import Reduced
from allocator.reduced_costs import Priced, first_least
from allocator.statement import BoolArray, Number, SameChoice

if TYPE_CHECKING:
    from allocator.explanation import Explanation

PRICE, FILL, COUPLING, IMPROVABLE, FORCED, UNPRICED, BROKEN = KINDS = (
    "price",  # the best of its group at the prices
    "fill",  # not the best at the prices: taken to make the budgets fit
    "coupling",  # not the best at the prices: that one, alone, breaks a coupling
    "improvable",  # another choice is better and keeps everything
    "forced",  # nothing else may be taken
    "unpriced",  # there are no prices
    "broken",  # may not be taken
)

Ends = tuple[float, float]


@dataclass(frozen=True)
class Alternative:
    """Another choice for a group, all others as they are (those of its `same_choice` change with it).

    choices: group → choice, of all that change. objective, loss, use: change of each. priced: change of objective +
    Σ λ·use, so that the reduced cost is this much larger; None without prices. breaks: budget rows and couplings
    that it breaks, in words; none for a feasible one.
    """

    choices: Mapping[str, str]
    objective: float
    loss: float
    use: Mapping[str, Number]
    priced: float | None
    breaks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "choices": dict(self.choices),
            "objective": self.objective,
            "loss": self.loss,
            "use": dict(self.use),
            "priced": self.priced,
            "breaks": list(self.breaks),
        }


@dataclass(frozen=True)
class GroupReason:
    """Why a group takes its choice.

    kind: one of `KINDS`. why: in words. reduced_cost: ≥ 0, 0 for the best by price. intervals: per budget row, the
    prices at which the choice is the best, None where there are none. runner_up: the best single change that keeps
    everything. best_other_by_price: of the other choices the one of least priced value, whatever it breaks.
    next_better: the same among those with a smaller objective.
    """

    group: str
    choice: str
    changes_with: tuple[str, ...]
    kind: str
    why: str
    reduced_cost: float | None
    intervals: tuple[Ends | None, ...]
    runner_up: Alternative | None
    best_other_by_price: Alternative | None
    next_better: Alternative | None

    def to_json(self) -> dict[str, Any]:
        """Plain data; an interval without end has null there."""
        ends = [None if i is None else [None if np.isinf(end) else end for end in i] for i in self.intervals]
        plain: dict[str, Any] = {"group": self.group, "choice": self.choice, "changes_with": list(self.changes_with)}
        plain |= {"kind": self.kind, "why": self.why, "reduced_cost": self.reduced_cost, "intervals": ends}
        others = {k: getattr(self, k) for k in ("runner_up", "best_other_by_price", "next_better")}
        return plain | {key: None if other is None else other.to_json() for key, other in others.items()}


def kinds(changes: Changes, priced: Priced | None, improvable: BoolArray) -> NDArray[np.int8]:
    """Kind of each group's reason, as an index into `KINDS` [G]; `improvable` [G]: a single change is better."""
    problem, rows = changes.outcome.problem, changes.outcome.rows
    start = problem.indptr[:-1]
    if priced is None:
        found = np.full(problem.group_count, KINDS.index(UNPRICED), np.int8)
    else:
        found = np.where(priced.best, KINDS.index(PRICE), KINDS.index(FILL)).astype(np.int8)
        if problem.couplings:
            best = first_least(problem, np.where(priced.free, priced.lowered, np.inf))
            held = (best >= 0) & ~changes.coupled[best]
            found[held & (found == KINDS.index(FILL))] = KINDS.index(COUPLING)
    found[improvable] = KINDS.index(IMPROVABLE)
    found[np.add.reduceat(changes.free, start, dtype=np.int64) == 1] = KINDS.index(FORCED)
    found[~changes.free[rows]] = KINDS.index(BROKEN)
    return found


def alternative(problem: Problem, reduced: Reduced, changes: Changes, priced: Priced | None, row: int) -> Alternative:
    """The change to a row of the reduced problem, in the stated problem's words."""
    outcome = changes.outcome
    taken = int(outcome.rows[outcome.problem.group_of[row]])
    new = np.array([row]) if reduced.taken is None else reduced.taken[row]
    old = np.array([taken]) if reduced.taken is None else reduced.taken[taken]
    moved = [int(r) for r in new[new >= 0].tolist() if r not in old.tolist()]
    names = problem.group_names
    known = len(problem.budgets)  # behind them, rows that stand for couplings
    broken = [i for i in range(len(outcome.problem.budgets)) if not changes.holds(i)[row]]
    couplings = [name(c) for c in outcome.problem.couplings if not changes.keeps(c)[row]]
    couplings += ["a coupling"] * any(i >= known for i in broken)
    return Alternative(
        choices={names[int(problem.group_of[r])]: problem.choice_name(r) for r in moved},
        objective=float(changes.objective[row]),
        loss=float(changes.loss[row]),
        use={r: changes.resource(r)[row].item() for r in problem.costs},
        priced=None if priced is None else float(priced.lowered[row] - priced.lowered[taken]),
        breaks=(*(problem.budgets[i].name for i in broken if i < known), *couplings),
    )


def sentence(
    explained: Explanation,
    g: int,
    kind: str,
    intervals: Sequence[Ends | None],
    other: Alternative | None,
    better: Alternative | None,
) -> str:
    """Why a group takes its choice, in words."""
    problem = explained.problem
    if kind == FORCED:
        return _forced(problem, g)
    if kind == BROKEN:
        return "may not be taken: it is forbidden, or another choice is pinned"
    if kind == IMPROVABLE:
        assert better is not None
        if better.objective >= 0:
            return f"{_named(better)} is as good with a smaller Σ unary, and keeps everything"
        return f"{_named(better)} is better by {-better.objective:.3g} and keeps everything"
    if kind == UNPRICED:
        return "there are no prices to say why"
    per = explained.per
    held = [
        wording.between(problem, row, *ends, per)
        for row, ends, price in zip(problem.budgets, intervals, explained.multipliers, strict=True)
        if ends is not None and price is not None
    ]
    if kind == PRICE:
        return "best by price" + (f": holds {'; and '.join(held)}" if held else "")
    assert other is not None
    best, saved = _named(other), -(other.priced or 0.0)
    if kind == COUPLING:
        return f"{best} would be better by {saved:.3g} of {per} at these prices, but breaks a coupling by itself"
    where = f"best only {'; or '.join(held)}" if held else "best at no price"
    return (
        f"fill choice: taken to make the budgets fit, not by price ({best} is better by {saved:.3g} of {per}; {where})"
    )


def _named(other: Alternative) -> str:
    if len(other.choices) == 1:
        return next(iter(other.choices.values()))
    return ", ".join(f"{group}={choice}" for group, choice in other.choices.items())


def _forced(problem: Problem, g: int) -> str:
    if g in problem.pins:
        return "forced: pinned"
    inside = slice(int(problem.indptr[g]), int(problem.indptr[g + 1]))
    if problem.sizes[g] == 1:
        return "forced: the only choice"
    if int(problem.free[inside].sum()) == 1:
        return "forced: the only choice that is allowed"
    partners = sorted(
        {problem.group_names[m] for c in problem.couplings if isinstance(c, SameChoice) and g in c.groups
         for m in c.groups if m != g}
    )  # fmt: skip
    return f"forced: the only label in common with {', '.join(partners[:6])}"
