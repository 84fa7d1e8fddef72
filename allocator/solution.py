"""What a backend returns (`Answer`), and what only the core makes of it (`Solution`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from allocator.certificate import Certificate
from allocator.statement import Number

if TYPE_CHECKING:
    from allocator.problem import Problem

Status = Literal["optimal", "feasible", "infeasible", "unknown"]
Claim = Literal["optimal", "infeasible"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """A backend's word: a choice per group [G] or None, what it claims of it, and a certificate if it has one.

    claimed_bound: lower bound on the objective. limit: what stopped it early ("time", …).
    """

    choice: NDArray[Any] | None = None
    claim: Claim | None = None
    claimed_bound: float | None = None
    certificate: Certificate | None = None
    limit: str | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Allocation:
    """One choice per group: `choice` [G], the index within the group."""

    problem: Problem
    choice: NDArray[np.int32]

    def rows(self) -> NDArray[np.int64]:
        """Row of each taken choice [G]."""
        return self.problem.indptr[:-1] + self.choice


class Choices(Mapping[str, str]):
    """Group name → name of the taken choice; made on demand."""

    def __init__(self, allocation: Allocation) -> None:
        self._allocation = allocation
        self._rows: NDArray[np.int64] | None = None

    def __getitem__(self, group: str) -> str:
        problem = self._allocation.problem
        g = problem.group_names.position[group]
        if self._rows is None:  # once, not once for each of a million groups
            self._rows = self._allocation.rows()
        return problem.choice_names.text(int(self._rows[g]), int(self._allocation.choice[g]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._allocation.problem.group_names)

    def __len__(self) -> int:
        return self._allocation.problem.group_count

    def __repr__(self) -> str:
        return repr(dict(self))


@dataclass(frozen=True, eq=False, kw_only=True)
class Solution:
    """A checked answer. `status` is what the core has proved; `claim` what the backend says beyond that.

    objective, loss, totals: recomputed from the raw columns. proven_bound ≤ optimum is proved by
    `certificate`; claimed_bound is the backend's. gap = (objective − proven_bound)/max(|objective|, 1e-9·S).
    multipliers and slack run parallel to the problem's budgets. reasons: why no allocation was accepted.
    """

    status: Status
    claim: Claim | None = None
    objective: float | None = None
    loss: float | None = None
    proven_bound: float | None = None
    claimed_bound: float | None = None
    gap: float | None = None
    certificate: Mapping[str, Any] | None = None
    allocation: Allocation | None = None
    totals: Mapping[str, Number] = field(default_factory=dict)
    multipliers: tuple[float | None, ...] = ()
    slack: tuple[float | None, ...] = ()
    limit: str | None = None
    reasons: tuple[str, ...] = ()
    solver: Mapping[str, Any] = field(default_factory=dict)
    problem: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def choices(self) -> Mapping[str, str]:
        """Group name → choice name; empty without an allocation."""
        return {} if self.allocation is None else Choices(self.allocation)

    @property
    def actions(self) -> dict[str, Mapping[str, Any]]:
        """Group name → action of the taken choice, for choices that have one."""
        if self.allocation is None or self.allocation.problem.action_code is None:
            return {}
        problem, rows = self.allocation.problem, self.allocation.rows()
        codes = self.allocation.problem.action_code[rows].tolist()
        return {
            name: problem.action_table[code] for name, code in zip(problem.group_names, codes, strict=True) if code >= 0
        }

    @property
    def modules(self) -> dict[str, list[str]]:
        """Group name → module names, for groups whose choice has an action."""
        if self.allocation is None:
            return {}
        groups = self.allocation.problem.groups
        position = self.allocation.problem.group_names.position
        return {name: list(groups[position[name]].modules) for name in self.actions}

    def save(self, path: str | Path) -> None:
        """Write solution.json, or the compact npz form where the path ends in .npz; written aside and renamed."""
        from allocator.formats.solutions import save_solution

        save_solution(self, path)

    def __repr__(self) -> str:
        return (
            f"Solution({self.status}, claim={self.claim}, objective={self.objective}, bound={self.proven_bound}, "
            f"gap={self.gap}, solver={self.solver.get('name')!r})"
        )
