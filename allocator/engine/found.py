"""What the exact engine found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from allocator.statement import IntArray


@dataclass(frozen=True, eq=False)
class Found:
    """What one call found.

    rows: row of the taken choice of each group [G]; None where no allocation keeps the capacity.
    multiplier: optimal for the relaxation, per unit of the knapsack's own capacity.
    short: value(rows) − short is a lower bound on every allocation's value; 0 where the rows are optimal. Where a
    tolerance beyond rounding was asked for, up to that.
    limit: None, "time" or "states". statistics: divisor, states, groups, passes, …
    """

    rows: IntArray | None
    multiplier: float
    short: float
    limit: str | None
    statistics: dict[str, Any]

    @property
    def proved(self) -> bool:
        """Whether nothing better than the rows is left (or nothing keeps the capacity)."""
        return self.limit is None
