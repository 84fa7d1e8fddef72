"""The room that an allocation leaves in every row, kept while single groups change."""

from __future__ import annotations

import math

from allocator.linear import Linear
from allocator.statement import IntArray
from solvers._axis import GIVE


class Room:
    """Room up to the max and down to the min of each row; integers where the row is exact.

    A float row gives up 1e-13 of its limit for the rounding of the running differences.
    """

    def __init__(self, linear: Linear, rows: IntArray) -> None:
        self.columns = [row.column for row in linear.rows]
        self.above: list[float] = []
        self.below: list[float] = []
        for row in linear.rows:
            use = row.column[rows].sum().item()
            give = 0 if row.exact else GIVE
            self.above.append(math.inf if row.hi is None else row.hi - give * abs(row.hi) - use)
            self.below.append(math.inf if row.lo is None else use - row.lo - give * abs(row.lo))

    def fits(self, old: int, new: int) -> bool:
        """Whether a group may go from one row of the columns to another."""
        for column, above, below in zip(self.columns, self.above, self.below, strict=True):
            more = column.item(new) - column.item(old)
            if more > above or -more > below:
                return False
        return True

    def take(self, old: int, new: int) -> None:
        """A group goes from one row of the columns to another."""
        for i, column in enumerate(self.columns):
            more = column.item(new) - column.item(old)
            self.above[i] -= more
            self.below[i] += more
