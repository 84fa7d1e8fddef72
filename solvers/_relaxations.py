"""The relaxations of an error-subspace program: points to round, and the bounds that they prove."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from allocator.errors import SolverError
from allocator.protocols import Limits
from allocator.quadratic import Quadratic
from allocator.statement import FloatArray
from solvers._box import tight_box
from solvers._concave import PATIENCE, descended, tilted
from solvers._convexify import MOST_SHIFTED, Convex, shifted, split
from solvers._lift import lift
from solvers._lift_program import products_of
from solvers._loss_row import LossRow
from solvers._programs import Program, tangent_bound

Limit = tuple[Convex, float]


class Relaxations:
    """Solves one after another and keeps what comes out.

    points: name → parts of choices [N]. bounds: name → bound on the objective. price: of the limit on the loss.
    form: the last convex form that agrees with the objective on allocations, or lies below it; limit: with it, that
    of the loss. empty: the engine says that nothing keeps the rows.
    """

    def __init__(self, model: Quadratic, row: LossRow | None, limits: Limits) -> None:
        self.model, self.row, self.limits = model, row, limits
        self.points: dict[str, FloatArray] = {}
        self.bounds: dict[str, float] = {}
        self.statistics: dict[str, Any] = {}
        self.price = 0.0
        self.empty = False
        self.form: Convex | None = None
        self.limit: Limit | None = None
        self._program: Program | None = None

    @property
    def bound(self) -> float:
        """The best of the bounds, −∞ for none."""
        return max(self.bounds.values(), default=-math.inf)

    @property
    def count(self) -> int:
        """Choices that are free."""
        return int(self.model.linear.free.sum())

    @property
    def _limited(self) -> bool:
        return self.row is not None and math.isfinite(self.row.hi)

    def secant(self) -> FloatArray | None:
        """The point of the program with secants, the first that is needed; None where an engine finds none.

        Raises:
            SolverError: no engine came to an end.
        """
        name = "secant" if self._bent else "convex"
        self._box = tight_box(self.model, self.limits)
        self._first = split(self.model, self._box)
        self._program = self._relax(name, self._first, self._secants)
        return self.points.get(name)

    def descend(self) -> FloatArray | None:
        """The point of the convex–concave procedure from there; None where nothing is concave, or time is short."""
        with self._spared("convex-concave"):
            self._descend()
        return self.points.get("convex-concave")

    def shift(self) -> FloatArray | None:
        """The point of the shifted form; None where it is not needed, too large, or time is short."""
        if self._bent and self.model.problem.choice_count <= MOST_SHIFTED and self._patient:
            with self._spared("shift"):
                self._relax("shift", shifted(self.model), shifted)
        return self.points.get("shift")

    @property
    def _patient(self) -> bool:
        """Whether there is time for another program like the first."""
        return self._program is not None and self.limits.left > PATIENCE * self._program.seconds

    @contextlib.contextmanager
    def _spared(self, name: str) -> Iterator[None]:
        """An engine that fails here is told of in the statistics, and costs no more than its own point."""
        try:
            yield
        except SolverError as error:
            self.statistics[f"{name} failed"] = str(error)

    def hopeless(self) -> bool:
        """Whether the secants alone show that no allocation that keeps the other rows has a loss within the limit."""
        if self.row is None or not self._limited:
            return False
        plain = self.row.plain
        form = self._secants(plain)
        point = Program(plain, form).solve(form.linear, self.limits)
        return point.x is not None and tangent_bound(plain, form, point.x)[1] > self.row.hi + self.row.slip

    def lift(self) -> FloatArray | None:
        """The semidefinite relaxation: its point, or None; its bound is kept."""
        below = None if self.row is None else (self.row.plain, self.row.hi)
        x = None
        with self._spared("lift"):
            x, total, told = products_of(lift(self.model, below), self.model.problem.choice_count, self.limits)
            self._keep("lift", self.model.linear.objective(total))
            self.statistics["lift"] = told
        if x is not None:
            self.points["lift"] = x
        return x

    @property
    def _bent(self) -> bool:
        models = [self.model] if self.row is None else [self.model, self.row.plain]
        return any(len(m.pair) or bool((m.eigenvalues < 0).any()) for m in models)

    def _secants(self, model: Quadratic) -> Convex:
        return split(model, tight_box(model, self.limits))

    def _keep(self, name: str, bound: float) -> None:
        if math.isfinite(bound):
            self.bounds[name] = bound

    def _relax(self, name: str, form: Convex, formed: Any) -> Program | None:
        """One program: the point to round keeps the limit with remainders, the bound is of the problem as stated."""
        limit = plain = None
        if self.row is not None and self._limited:
            plain = (formed(self.row.plain), self.row.hi)
            limit = (formed(self.row.model), self.row.hi) if self.row.counts_remainders else plain
        program = Program(self.model, form, limit)
        point = program.solve(form.linear, self.limits)
        self.statistics |= {} if self.points else {"engine": point.engine, "relaxation": point.status}
        if point.x is None:
            self.empty = point.empty
            return None
        self.points[name], self.form, self.limit = point.x, form, plain
        self.price = point.price or self.price
        self._keep(name, tangent_bound(self.model, form, point.x, plain, point.price)[1])
        return program

    def _descend(self) -> None:
        model, form, box, program = self.model, self._first, self._box, self._program
        assert program is not None
        if not self._patient:
            return
        if self.row is not None and self.price > 0:
            model = tilted(self.model, self.row, self.price)
            box = tight_box(model, self.limits)
            form = split(model, box)
            program = Program(model, form)
        if not (model.eigenvalues < 0).any():
            return
        (first,) = self.points.values()
        x, steps = descended(program, model, form, box, first, self.limits)
        self.points["convex-concave"], self.statistics["convex_concave_steps"] = x, steps
