"""conflict(): which budgets, pins and couplings exclude each other, and how far each would have to give way."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from allocator.coupling_changes import told
from allocator.problem import Problem
from allocator.progress import Progress, silent
from allocator.protocols import Solver
from allocator.relaxing import Constraint, Oracle, constraints_of
from allocator.statement import Number
from allocator.validation import pointer
from allocator.wording import amount


@dataclass(frozen=True)
class Member:
    """A constraint of the conflicting set.

    pointer: where it stands in problem.json. text: in words. limit: of a budget side, else None. relaxed: the
    smallest max, or the largest min, with which the set is feasible; None for a pin or a coupling, which can only
    be dropped, and where it was not found. least, most: what the budgeted quantity can be while the rest of the set
    holds. enough: like `relaxed`, while all the rest of the problem holds. suffices: whether changing or dropping
    this one alone makes the whole problem feasible, None where that was not asked or decided. proved: whether
    `relaxed` and `enough` are proved to be the mildest.
    """

    kind: Literal["max", "min", "pin", "coupling"]
    pointer: str
    text: str
    limit: Number | None = None
    relaxed: Number | None = None
    least: Number | None = None
    most: Number | None = None
    enough: Number | None = None
    suffices: bool | None = None
    proved: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dict(vars(self))


@dataclass(frozen=True)
class Conflict:
    """Constraints that no allocation keeps together, while each proper subset can be kept.

    status: "infeasible", "feasible" (then there are no members), or "unknown" where the solver could not decide.
    proved: whether the core proved it; False: it is the backend's claim. irreducible: whether each member is known
    to be needed. reason: why, where no constraint is to blame, or nothing could be decided.
    """

    status: Literal["infeasible", "feasible", "unknown"]
    members: tuple[Member, ...] = ()
    proved: bool = True
    irreducible: bool = True
    reason: str = ""
    lines: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """What was found, in one line."""
        if self.status != "infeasible" or not self.members:
            return f"{self.status}: {self.reason}"
        word = "proved" if self.proved else "claimed by the backend, not proved by the core"
        if len(self.members) == 1:
            return f"infeasible ({word}): one constraint cannot be kept by any allocation"
        least = "" if self.irreducible else "; perhaps fewer of them do: the solver could not decide each case"
        return f"infeasible ({word}): these {len(self.members)} constraints exclude each other{least}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "status": self.status,
            "proved": self.proved,
            "irreducible": self.irreducible,
            "reason": self.reason,
            "members": [m.to_json() for m in self.members],
        }


def conflict(
    problem: Problem,
    solver: str | Solver = "auto",
    *,
    time_limit: float | None = None,
    seed: int = 0,
    whole: bool = True,
    progress: Progress | None = None,
) -> Conflict:
    """An irreducible conflicting set of budget sides, pins and couplings, and the mildest change of each.

    By halves (U. Junker, QuickXplain, AAAI 2004): feasibility is asked about O(m log n) subsets for m members of n
    constraints. Which of several conflicts is found is not specified; budgets that fail alone come first.

    Args:
        problem: any problem.
        solver: who decides feasibility.
        time_limit: seconds for everything; what is not decided by then is said so.
        seed: of the solver.
        whole: also look for the change that makes the whole problem feasible.
        progress: called with (what, done, total).

    Raises:
        UsageError: an unknown solver.
    """
    stuck = _stuck(problem)
    if stuck is not None:
        return Conflict("infeasible", reason=f"group {stuck!r} has no choice that is allowed; allow one, or drop it")
    tick = progress or silent
    deadline = math.inf if time_limit is None else time.monotonic() + time_limit
    oracle = Oracle(problem, solver, deadline, seed)
    everything = constraints_of(problem)
    whether = oracle.feasible(everything)
    if whether is None:
        return Conflict("unknown", reason="the solver could not decide whether an allocation keeps everything")
    if whether:
        return Conflict("feasible", reason="there is an allocation that keeps everything")
    members = _smallest(oracle, everything, tick)
    irreducible, proved = oracle.undecided == 0, oracle.claimed == 0
    found = []
    for i, constraint in enumerate(members):
        tick("how far it would have to give way", i, len(members))
        others = [c for c in members if c != constraint]
        rest = [c for c in everything if c != constraint] if whole else None
        found.append(_member(oracle, constraint, others, rest))
    lines = tuple(_line(problem, m, len(found) == 1) for m in found)
    return Conflict("infeasible", tuple(found), proved, irreducible, lines=lines)


def _stuck(problem: Problem) -> str | None:
    """A group without an allowed choice."""
    if problem.allowed is None:
        return None
    empty = np.flatnonzero(~np.logical_or.reduceat(problem.allowed, problem.indptr[:-1]))
    return problem.group_names[int(empty[0])] if len(empty) else None


def _smallest(oracle: Oracle, everything: Sequence[Constraint], tick: Progress) -> list[Constraint]:
    for i, constraint in enumerate(everything):
        if constraint.kind in ("max", "min") and oracle.feasible([constraint]) is False:
            return [constraint]
        tick("which constraints exclude each other", i, len(everything))
    return sorted(_explained(oracle, [], list(everything), False), key=everything.index)


def _explained(oracle: Oracle, kept: list[Constraint], open_: list[Constraint], added: bool) -> list[Constraint]:
    """Those of `open_` that are needed to make `kept` infeasible; undecided counts as feasible, so nothing is lost."""
    if added and oracle.feasible(kept) is False:
        return []
    if len(open_) == 1:
        return open_
    half = len(open_) // 2
    first, second = open_[:half], open_[half:]
    needed = _explained(oracle, [*kept, *first], second, bool(first))
    return [*_explained(oracle, [*kept, *needed], first, bool(needed)), *needed]


def _member(oracle: Oracle, constraint: Constraint, others: list[Constraint], rest: list[Constraint] | None) -> Member:
    problem, i = oracle.problem, constraint.index
    suffices = None if rest is None else oracle.feasible(rest)
    if constraint.kind == "pin":
        group = problem.group_names[i]
        text = f"pin {group}={problem.choice_name(problem.pins[i])}"
        return Member("pin", pointer("pins", group), text, suffices=suffices)
    if constraint.kind == "coupling":
        return Member("coupling", pointer("couplings", i), told(problem, problem.couplings[i]), suffices=suffices)
    row = problem.budgets[i]
    limit = row.max if constraint.kind == "max" else row.min
    assert limit is not None
    low, high = oracle.least(others, row), oracle.least(others, row, -1)
    sign = 1 if constraint.kind == "max" else -1
    relaxed = low if sign > 0 else high
    enough = oracle.least(rest, row, sign) if rest is not None and suffices else None
    return Member(
        constraint.kind,
        pointer("budgets", i, constraint.kind),
        f"{row.name} {constraint.kind} {amount(problem, row, limit)}",
        limit,
        _number(relaxed),
        _number(low),
        _number(high),
        _number(enough),
        suffices,
        all(found is None or found[1] for found in (relaxed, enough)),
    )


def _number(found: tuple[Number, bool] | None) -> Number | None:
    return None if found is None else found[0]


def _line(problem: Problem, member: Member, alone: bool) -> str:
    other = "; other constraints conflict as well" if member.suffices is False else ""
    if member.kind in ("pin", "coupling"):
        return f"{member.text}: drop it{other}"
    row = problem.budgets[int(member.pointer.split("/")[2])]

    def size(value: Number | None) -> str:
        return "?" if value is None else amount(problem, row, value)

    if member.relaxed is None:
        return f"{member.text}: relax or drop it (how far was not found){other}"
    word = "smallest" if member.kind == "max" else "largest"
    told_ = f"{member.text}: the {word if member.proved else f'{word} found'} that works is {size(member.relaxed)}"
    if member.enough is not None and member.enough != member.relaxed:
        told_ += f", beside all other constraints {size(member.enough)}"
    return (
        f"{told_}; {'it' if alone else 'under the rest it'} can be {size(member.least)} to {size(member.most)}{other}"
    )
