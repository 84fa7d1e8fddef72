"""Views of one group and one choice of a problem, made on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from allocator.statement import Number

if TYPE_CHECKING:
    from allocator.problem import Problem


@dataclass(frozen=True)
class Choice:
    """View of one choice."""

    problem: Problem
    row: int

    @property
    def name(self) -> str:
        """Unique within the group."""
        return self.problem.choice_name(self.row)

    @property
    def label(self) -> str:
        """What same_choice and max_distinct compare; the name unless the file says otherwise."""
        codes = self.problem.label_codes
        return codes.table[int(codes.code[self.row])]

    @property
    def allowed(self) -> bool:
        """Whether it may be taken (pins aside)."""
        return self.problem.allowed is None or bool(self.problem.allowed[self.row])

    @property
    def cost(self) -> dict[str, Number]:
        """Use of each resource."""
        return {r: column[self.row].item() for r, column in self.problem.costs.items()}

    @property
    def score(self) -> dict[str, float]:
        """Each named score."""
        return {s: float(column[self.row]) for s, column in self.problem.scores.items()}

    @property
    def action(self) -> Mapping[str, Any] | None:
        """What the applier does for this choice, or None."""
        code = -1 if self.problem.action_code is None else int(self.problem.action_code[self.row])
        return self.problem.action_table[code] if code >= 0 else None


@dataclass(frozen=True)
class Group:
    """View of one group."""

    problem: Problem
    index: int

    @property
    def name(self) -> str:
        """Unique name."""
        return self.problem.group_names[self.index]

    @property
    def choices(self) -> list[Choice]:
        """Views of its choices."""
        return [Choice(self.problem, r) for r in range(*self.problem.indptr[self.index : self.index + 2].tolist())]

    @property
    def modules(self) -> tuple[str, ...]:
        """Names as in `named_modules()`; the group's own name where none are given."""
        named = self.problem.modules.of(self.index) if self.problem.modules is not None else ()
        return named or (self.name,)

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags that budgets and couplings scope by."""
        return self.problem.tags.of(self.index) if self.problem.tags is not None else ()

    @property
    def weights(self) -> int | None:
        """Stored scalars, tied ones counted once; None where unknown."""
        count = -1 if self.problem.weights is None else int(self.problem.weights[self.index])
        return count if count >= 0 else None


class Groups(Sequence[Group]):
    """All groups of a problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def __len__(self) -> int:
        return self.problem.group_count

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return [Group(self.problem, i) for i in range(*key.indices(len(self)))]
        if not -len(self) <= key < len(self):
            raise IndexError(key)
        return Group(self.problem, key % len(self))
