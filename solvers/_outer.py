"""Outer approximation: integer programs in which tangents stand for squares, until bound and allocation meet."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from allocator.protocols import Limits
from allocator.quadratic import Quadratic
from allocator.statement import FloatArray, IntArray
from solvers._convex import membership, sides_of
from solvers._convexify import Convex
from solvers._recovery import Recovery
from solvers._relaxations import Relaxations

FIRST = 5  # tangents along each axis before any allocation is known
TOLERANCE = 1e-9
UNSURE = 1e-7  # of the objective's size: what HiGHS's tolerances may add to its bound
SMALL = 1e-12  # of the longest axis: axes that add nothing


@dataclass
class _Squares:
    """½‖factor·x‖² [N] by one variable for each axis of the factor, ≥ the tangents seen.

    axes [R, F]: of the free choices, turned so that they are orthogonal: then a few tangents on each go far.
    """

    axes: FloatArray
    places: list[FloatArray] = field(default_factory=list)

    @staticmethod
    def of(model: Quadratic, form: Convex) -> _Squares:
        free = np.flatnonzero(model.linear.free)
        raw = form.factor[:, free]
        factor = np.asarray(raw.todense() if hasattr(raw, "todense") else raw, np.float64)
        _, size, turned = np.linalg.svd(factor, full_matrices=False)
        squares = _Squares(
            size[size > SMALL * size.max(initial=0.0), None]
            * turned[: int((size > SMALL * size.max(initial=0.0)).sum())]
        )
        group = model.problem.group_of[free]
        start = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
        if len(squares.axes):
            lo = np.minimum.reduceat(squares.axes, start, axis=1).sum(axis=1)
            hi = np.maximum.reduceat(squares.axes, start, axis=1).sum(axis=1)
            squares.places += [lo + t * (hi - lo) for t in np.linspace(0.0, 1.0, FIRST)]
        return squares

    def add(self, x: FloatArray) -> None:
        """Tangents where the axes stand at x, parts of the free choices [F]."""
        if len(self.axes):
            self.places.append(self.axes @ x)

    def rows(self) -> tuple[FloatArray, FloatArray]:
        """c·(axis·x) − t ≤ ½c²: (slopes over the choices [T·R, F], right sides [T·R])."""
        at = np.concatenate(self.places) if self.places else np.zeros(0)
        return at[:, None] * np.tile(self.axes, (len(self.places), 1)), 0.5 * at**2


def outer(found: Relaxations, recovery: Recovery, most: int) -> None:
    """Integer programs, at most so many: each gives a bound, an allocation, and tangents for the next.

    Exact in the end for a form that agrees with the objective on allocations: a master that comes back to an
    allocation has its true objective there (Duran and Grossmann, 1986; Kelley, 1960). Stops at the gap or the clock.
    """
    form, model, limits = found.form, recovery.model, recovery.limits
    assert form is not None
    free = np.flatnonzero(model.linear.free)
    squares = _Squares.of(model, form)
    below = None if found.limit is None or recovery.row is None else _Squares.of(recovery.row.plain, found.limit[0])
    for x in found.points.values():
        squares.add(x[free])
        if below is not None:
            below.add(x[free])
    seen: set[bytes] = set()
    for count in range(1, most + 1):
        value, x = _master(found, squares, below, limits)
        found.statistics["masters"] = count
        if math.isfinite(value):
            found.bounds["outer"] = max(value, found.bounds.get("outer", -math.inf))
        if x is None:
            return
        taken = _rows(model, free, x)
        recovery.begin("outer", [taken])
        best = recovery.search.best
        if best is not None and best.objective - found.bound <= max(UNSURE, limits.gap) * abs(best.objective):
            return
        if taken.tobytes() in seen or limits.left <= 0:
            return
        seen.add(taken.tobytes())
        part = np.isin(free, taken).astype(np.float64)
        squares.add(part)
        if below is not None:
            below.add(part)


def _rows(model: Quadratic, free: IntArray, x: FloatArray) -> IntArray:
    full = np.full(model.problem.choice_count, -1.0)
    full[free] = x
    start = model.problem.indptr
    return np.array([a + int(full[a:b].argmax()) for a, b in zip(start[:-1], start[1:], strict=True)], np.int64)


def _master(
    found: Relaxations, squares: _Squares, below: _Squares | None, limits: Limits
) -> tuple[float, FloatArray | None]:
    """HiGHS's bound on the objective, less what its tolerances may hide, and its allocation over free choices [F]."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, hstack, vstack

    model, form = found.model, found.form
    assert form is not None
    free = np.flatnonzero(model.linear.free)
    start, group = model.problem.indptr[:-1], model.problem.group_of
    least = np.minimum.reduceat(np.where(model.linear.free, form.linear, np.inf), start)
    linear = (form.linear - least[group])[free]
    parts = [squares] if below is None else [squares, below]
    widths = [len(p.axes) for p in parts]
    unit = float(np.abs(linear).mean()) + 0.5 * float((squares.axes**2).sum()) / len(free) or 1.0
    count = len(free) + sum(widths)
    blocks, lo, hi = (
        [hstack([membership(model.linear), csr_array((len(start), sum(widths)))])],
        [np.ones(len(start))],
        [np.ones(len(start))],
    )
    sides = sides_of(model.linear)
    if sides:
        blocks.append(
            csr_array(np.hstack([np.array([s.column[free] for s in sides]), np.zeros((len(sides), sum(widths)))]))
        )
        lo.append(np.full(len(sides), -np.inf))
        hi.append(np.array([s.limit for s in sides]))
    for i, p in enumerate(parts):
        slope, right = p.rows()
        scale = np.maximum(np.abs(slope).max(axis=1, initial=0.0), 1e-300)
        t = np.zeros((len(right), sum(widths)))
        t[np.arange(len(right)), sum(widths[:i]) + np.arange(len(right)) % max(widths[i], 1)] = -unit / scale
        blocks.append(csr_array(np.hstack([slope / scale[:, None], t])))
        lo.append(np.full(len(right), -np.inf))
        hi.append(right / scale)
    if below is not None and found.limit is not None:
        loss, most = found.limit
        row = np.concatenate([loss.linear[free], np.zeros(widths[0]), np.full(widths[1], unit)])
        size = float(np.abs(row).max()) or 1.0
        blocks.append(csr_array(row[None, :] / size))
        lo.append(np.array([-np.inf]))
        hi.append(np.array([(most - loss.constant + loss.slip) / size]))
    objective = np.concatenate([linear / unit, np.ones(widths[0]), np.zeros(count - len(free) - widths[0])])
    options: dict[str, Any] = {
        "mip_rel_gap": limits.gap,
        "mip_feasibility_tolerance": TOLERANCE,
        "random_seed": limits.seed,
    }
    options |= {} if limits.time is None else {"time_limit": max(limits.left, 0.01)}
    options |= {} if limits.threads is None else {"threads": limits.threads}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of each option that it hands on to HiGHS unread
        result = milp(
            objective,
            constraints=LinearConstraint(vstack(blocks).tocsr(), np.concatenate(lo), np.concatenate(hi)),
            integrality=np.append(np.ones(len(free)), np.zeros(sum(widths))),
            bounds=Bounds(np.zeros(count), np.append(np.ones(len(free)), np.full(sum(widths), np.inf))),
            options=options,
        )
    value = -math.inf
    if result.mip_dual_bound is not None:
        height = float(result.mip_dual_bound) * unit + float(least.sum()) + form.constant - form.slip
        value = model.linear.objective(height - UNSURE * (abs(height) + unit))
    return value, None if result.x is None else np.asarray(result.x[: len(free)])
