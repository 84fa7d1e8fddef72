"""The convex–concave procedure: what is concave is replaced by its tangent, again and again."""

from __future__ import annotations

import dataclasses

import numpy as np

from allocator.protocols import Limits
from allocator.quadratic import Quadratic
from allocator.statement import FloatArray
from solvers._box import Box
from solvers._convexify import Convex
from solvers._loss_row import LossRow
from solvers._programs import Program

STEPS = 30
PATIENCE = 3.0  # times what the last program took has to be left for another
SETTLED = 1e-6  # of the size of the objective


def descended(
    program: Program, model: Quadratic, form: Convex, box: Box, x: FloatArray, limits: Limits
) -> tuple[FloatArray, int]:
    """A point [N] that no further step improves, from x on, and how many steps it took.

    A negative eigenvalue adds −½|e|c², c = v·x. Its tangent at the last c lies above it, so that each step lowers
    the objective over choices in part (Yuille and Rangarajan, 2003); the secant over the box, which `form` holds,
    lies below it and gives the bound instead.

    Args:
        program: of `form`.
        model: the objective.
        form: with a secant for each negative eigenvalue, over `box`.
        box: its ranges.
        x: where to begin.
        limits: the clock.
    """
    down = model.eigenvalues < 0
    axes, curve = model.vectors[:, down], model.eigenvalues[down]
    base = form.linear - axes @ (0.5 * curve * (box.lo + box.hi))

    def worth(x: FloatArray) -> float:
        bent = np.asarray(form.factor @ x)
        return float(base @ x) + 0.5 * float(bent @ bent) + 0.5 * float(curve @ (axes.T @ x) ** 2)

    now = worth(x)
    for step in range(STEPS):
        if limits.left <= PATIENCE * program.seconds:
            return x, step
        point = program.solve(base + axes @ (curve * (axes.T @ x)), limits)
        if point.x is None:
            return x, step
        value = worth(point.x)
        if value >= now - SETTLED * model.size:
            return (point.x if value < now else x), step + 1
        x, now = point.x, value
    return x, STEPS


def tilted(model: Quadratic, row: LossRow, price: float) -> Quadratic:
    """The objective plus price · loss: what the limit on the loss is worth, instead of the limit.

    The objective's own interactions are those of the loss times the weight that the loss has in it.
    """
    weight = model.problem.minimize.get("loss", 0.0) + price
    value = model.linear.value + price * row.model.linear.value
    return dataclasses.replace(
        row.model,
        linear=dataclasses.replace(model.linear, value=value),
        pair_value=weight * row.model.pair_value,
        eigenvalues=weight * row.model.eigenvalues,
    )
