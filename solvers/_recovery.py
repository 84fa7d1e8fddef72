"""From choices in part to an allocation: rounding, repair and local search from every point, the best counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from allocator.interaction_search import InteractionSearch
from allocator.local_search import cheapest
from allocator.protocols import Limits
from allocator.quadratic import Quadratic
from allocator.statement import FloatArray, IntArray
from solvers._concave import tilted
from solvers._convex import roundings
from solvers._loss_row import LossRow
from solvers._loss_search import LossSearch

DRAWS = 8
TILTS = (0.5, 1.0, 2.0, 8.0)  # of the price of the limit on the loss


class Recovery:
    """The best allocation that any of the starts leads to. source: the name of that start."""

    def __init__(self, model: Quadratic, row: LossRow | None, limits: Limits) -> None:
        self.model, self.row, self.limits = model, row, limits
        self.search = InteractionSearch(model, limits) if row is None else LossSearch(model, row, limits)
        self.source = "none"

    def begin(self, name: str, starts: Iterable[IntArray]) -> None:
        """Begin at each of them (rows [G]) while there is time."""
        before = self.search.best
        for taken in starts:
            if self.search.best is not None and self.limits.left <= 0:
                break
            self.search.offer(taken)  # as it is: the search's own sums are stricter than a limit met to the last bit
            self.search.begin(taken)
        if self.search.best is not before:
            self.source = name

    def round(self, name: str, x: FloatArray | None) -> None:
        """Begin at the largest part of each group of a point [N], and at draws from its parts."""
        if x is not None:
            self.begin(name, roundings(self.model.linear, x, DRAWS, self.limits.seed))

    def under_loss(self, price: float) -> None:
        """Begin where the loss is least, and where the objective is with the limit on the loss at a price."""
        if self.row is None:
            return
        quiet = dataclasses.replace(self.limits, report=None)
        models = [tilted(self.model, self.row, t * price) for t in TILTS if price > 0]
        for model in [self.row.model, *models]:
            first = cheapest(model.linear)
            if first is None or self.limits.left <= 0:
                return
            inner = InteractionSearch(model, quiet)
            inner.begin(first)
            if self.search.best is not None:
                inner.begin(self.search.best.rows)
            if inner.best is not None:
                self.begin("loss at a price", [inner.best.rows])

    def kick(self, times: int) -> None:
        """Perturb the best so many times."""
        before = self.search.best
        self.search.kick(times, self.limits.seed)
        if self.search.best is not before:
            self.source = "kicks"
