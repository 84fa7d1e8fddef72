"""The program over step sizes: how coarse each group may become, before any choice is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from allocator.bounds import argmin
from allocator.protocols import Limits
from allocator.quadratic import Quadratic
from allocator.statement import FloatArray, IntArray
from solvers._axis import Axis
from solvers._convex import GOOD, run
from solvers._loss_row import LossRow
from solvers._stats import stat

SOLVER = "cvxpy_subspace"


@dataclass(frozen=True, eq=False)
class Steps:
    """starts: allocations (rows [G]) of nearest cost, one or none. statistics: how the engine ended."""

    starts: list[IntArray] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Curves:
    """What the loss is of steps σ [G] in (0, 1], 1 where a group costs least: Σ own·σ² + ½‖joint·σ‖².

    cost over the least: −rate·ln σ. span [G]: the most it may be.
    """

    own: FloatArray
    joint: FloatArray
    rate: FloatArray
    span: FloatArray


def curves(loss: Quadratic, cost: FloatArray) -> Curves:
    """From the stats rd_scale a and rd_decay b: a choice of cost c has the step exp(−b·c/2) and the loss a·exp(−b·c).

    The error of a group points one way and grows with its step, so that its vector is step·direction, the direction
    fitted to its choices by least squares. What it adds to the square of the sum is taken off its own loss, down to
    0. Negative eigenvalues and pairs are left out.

    Raises:
        UnsupportedError: a stat that is missing or out of range.
    """
    problem, free = loss.problem, loss.linear.free
    a = stat(problem, SOLVER, "rd_scale", "loss of the rate–distortion curve at cost 0", least=-5e-324)
    b = stat(problem, SOLVER, "rd_decay", "decay of its loss per unit of cost", least=0.0)
    start, group = problem.indptr[:-1], problem.group_of
    least = np.minimum.reduceat(np.where(free, cost, np.inf), start)
    span = np.maximum.reduceat(np.where(free, cost, -np.inf), start) - least
    step = np.where(free, np.exp(-0.5 * b[group] * np.maximum(cost - least[group], 0.0)), 0.0)
    up = loss.eigenvalues > 0
    vectors = loss.vectors[:, up] * np.sqrt(loss.eigenvalues[up])
    direction = np.add.reduceat(step[:, None] * vectors, start, axis=0)
    direction /= np.add.reduceat(step**2, start)[:, None]
    own = np.maximum(a * np.exp(-b * least) - 0.5 * (direction**2).sum(axis=1), 0.0)
    return Curves(own, np.ascontiguousarray(direction.T), 2.0 / b, span)


def stepped(model: Quadratic, row: LossRow | None, limits: Limits) -> Steps:
    """The allocation nearest to the best steps: least loss within the budget, or least cost within the loss.

    min Σ own·σ² + ½‖joint·σ‖² subject to −Σ rate·ln σ ≤ room, or the one bounded and the other minimised: convex
    either way. With joint = 0 it is reverse water-filling (see the backend water_filling).

    Raises:
        UnsupportedError: a stat that is missing or out of range.
        SolverError: no engine of cvxpy solved it.
    """
    axis = Axis.of(model.linear)
    if axis is None:
        return Steps()
    compact = row is not None and math.isfinite(row.hi)
    cost = model.linear.value if compact else axis.cost.astype(np.float64)
    loss = model if row is None else row.model
    shape = curves(loss, cost)
    room = row.hi if compact and row is not None else float(axis.room) - float(_least(loss, cost).sum())
    sigma, told = _solved(shape, room, compact, limits)
    if sigma is None:
        return Steps(statistics=told)
    target = _least(loss, cost) - shape.rate * np.log(sigma)
    far = np.where(loss.linear.free, np.abs(cost - target[loss.problem.group_of]), np.inf)
    return Steps([argmin(loss.linear, far)], told)


def _solved(shape: Curves, room: float, compact: bool, limits: Limits) -> tuple[FloatArray | None, dict[str, Any]]:
    import cvxpy

    cp: Any = cvxpy  # typed in parts only
    size = float(shape.own.sum()) + 0.5 * float((shape.joint**2).sum()) or 1.0
    full = float((shape.span).sum()) or 1.0
    low = np.exp(-shape.span / shape.rate)
    sigma = cp.Variable(len(low))
    loss = cp.sum_squares(cp.multiply(np.sqrt(shape.own / size), sigma))
    if len(shape.joint):
        loss = loss + 0.5 * cp.sum_squares((shape.joint / math.sqrt(size)) @ sigma)
    cost = -((shape.rate / full) @ cp.log(sigma))
    rows = [sigma >= low, sigma <= 1.0]
    goal, limited, unit = (cost, loss, size) if compact else (loss, cost, full)
    engine, status = run(cp.Problem(cp.Minimize(goal), [*rows, limited <= room / unit]), limits)
    told = {"engine": engine, "relaxation": status, "form": "steps"}
    if status not in GOOD or sigma.value is None:
        return None, told
    return np.clip(np.asarray(sigma.value, np.float64), low, 1.0), told


def _least(model: Quadratic, cost: FloatArray) -> FloatArray:
    return np.minimum.reduceat(np.where(model.linear.free, cost, np.inf), model.problem.indptr[:-1])
