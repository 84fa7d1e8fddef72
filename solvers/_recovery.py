"""From choices in part to an allocation: rounding, repair and local search from every point, the best counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from allocator.evaluation import Outcome
from allocator.local_search import cheapest
from allocator.protocols import Limits
from allocator.quadratic import Quadratic
from allocator.statement import FloatArray, IntArray
from solvers._concave import tilted
from solvers._improving import Improving
from solvers._levels import lowered, takes
from solvers._loss_row import LossRow
from solvers._loss_search import LossSearch

SHARE = 10  # of the kicks, for each of the engine's searches under a limit on the loss
TILTS = (0.5, 1.0, 2.0, 8.0)  # of the price of the limit on the loss


class Recovery:
    """The best allocation that any of the starts leads to. source: the name of that start.

    Without a limit on the loss the search is that of the engine; with one it has the loss as a row, and the engine
    gives it starts. kicks: perturbations of the engine's search, under a limit on the loss a tenth for each of several.
    """

    def __init__(self, model: Quadratic, row: LossRow | None, limits: Limits, kicks: int) -> None:
        self.model, self.row, self.limits, self.kicks = model, row, limits, kicks
        self.source = "none"
        self._free = Improving(model, limits if row is None else dataclasses.replace(limits, report=None))
        self._limited = None if row is None else LossSearch(model, row, limits)
        self._slack = False

    @property
    def best(self) -> Outcome | None:
        """Evaluated on the problem as stated; None until something is feasible."""
        return self._free.best if self._limited is None else self._limited.best

    def begin(self, name: str, starts: Iterable[IntArray]) -> None:
        """Begin at each of them (rows [G]) while there is time."""
        before = self.best
        for taken in starts:
            if self.best is not None and self.limits.left <= 0:
                break
            (self._limited or self._free).begin(taken)
        if self.best is not before:
            self.source = name

    def round(self, name: str, x: FloatArray | None) -> None:
        """Begin at the largest part of each group of a point [N], and at draws from its parts."""
        if x is not None:
            self.begin(name, self._free.rounded(x))

    @property
    def _part(self) -> int:
        return -(-self.kicks // SHARE)

    def least_loss(self) -> None:
        """Where the loss is limited, begin where it is least: the shortest way to an allocation that keeps it."""
        if self.row is not None:
            self._look("least loss", Improving(self.row.model, dataclasses.replace(self.limits, report=None)))

    def under_loss(self, price: float) -> None:
        """Begin where the objective is least with the limit on the loss at a price, and without it.

        Where the least objective without the limit keeps it, the limit is slack and nothing within it is better.
        """
        if self.row is None:
            return
        quiet = dataclasses.replace(self.limits, report=None)
        self._look("loss without a limit", self._free)
        free = self._free.best
        self._slack = free is not None and self.best is not None and self.best.objective <= free.objective
        for tilt in TILTS if price > 0 and not self._slack else ():
            self._look("loss at a price", Improving(tilted(self.model, self.row, tilt * price), quiet))

    def _look(self, name: str, other: Improving) -> None:
        """Begin at what the engine finds for another objective, or without the limit on the loss."""
        first = cheapest(other.model.linear)
        if first is None or (self.limits.left <= 0 and self.best is not None):
            return
        other.begin_all([first] if self.best is None else [first, self.best.rows])
        other.kick(self._part)
        if other.best is not None:
            self.begin(name, [other.best.rows])

    def kick(self, bound: float) -> None:
        """Perturb the best; under a limit on the loss, bring the objective down towards a bound."""
        before = self.best
        if self._limited is None:
            self._free.kick(self.kicks)
        elif self.best is not None and not self._slack and self.kicks:
            if takes(self._limited):
                lowered(self._limited, bound, self._part)
            else:
                self._limited.kick(self.kicks)
        if self.best is not before:
            self.source = "kicks"
