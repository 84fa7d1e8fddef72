"""The `tree` certificate: a cover of the search space by restrictions, written as what it takes to grow it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Tree:
    """Price vectors (each parallel to the problem's budgets: ≥ 0 for a max, ≤ 0 for a min) and an order of groups.

    The restrictions are not listed, the checker derives them: it fixes choices by the reduced costs of each
    vector, then takes the groups that stay open in this order and splits by their choices. A node is closed when
    the bound of one of the vectors reaches the target or a row cannot be kept any more; when all are closed,
    nothing below the target exists. That is no more work than reading a list of them would be, and there is
    nothing in it to believe. Groups that are open but not named come last.

    whole: a budget row, of integers, that is not priced but kept: under each vector of `stairs`, the best of the
    groups still open for each number of steps left of that row, by a dynamic programme, bounds a node too.
    """

    vectors: tuple[tuple[float, ...], ...]
    order: tuple[int, ...]
    whole: int | None = None
    stairs: tuple[tuple[float, ...], ...] = ()
    kind: ClassVar[str] = "tree"
