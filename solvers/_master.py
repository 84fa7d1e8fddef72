"""The integer program of an outer approximation: one variable above the tangents of each axis; HiGHS by scipy."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from allocator.bounds import argmin
from allocator.protocols import Limits
from allocator.quadratic import Quadratic
from allocator.statement import FloatArray, IntArray
from solvers._convex import membership, sides_of
from solvers._convexify import Convex
from solvers._relaxations import Relaxations

FIRST = 5  # tangents along each axis before anything is known
TOLERANCE = 1e-9
UNSURE = 1e-7  # of the size of the objective: what HiGHS's tolerances may add to its bound
SHARE = 0.9  # of the time that is left: HiGHS looks at its clock seldom
SHORT = 1e-12  # of the longest axis: shorter ones add nothing


class _Squares:
    """½‖factor·x‖² over the free choices as Σ t_i with t_i ≥ the tangents of ½(axis_i·x)² seen so far.

    axes [R, F]: the factor turned so that they are orthogonal; a few tangents on each then go far.
    """

    def __init__(self, model: Quadratic, form: Convex) -> None:
        free = np.flatnonzero(model.linear.free)
        raw = form.factor[:, free]
        factor = np.asarray(raw.todense() if hasattr(raw, "todense") else raw, np.float64)
        _, size, turned = np.linalg.svd(factor, full_matrices=False)
        self.unit = 0.5 * float((size**2).sum()) / len(free) + float(np.abs(form.linear[free]).mean()) or 1.0
        kept = size > SHORT * size.max(initial=0.0)
        self.axes: FloatArray = size[kept, None] * turned[kept]
        self.places: list[FloatArray] = []
        if len(self.axes):
            start = np.flatnonzero(np.diff(model.problem.group_of[free], prepend=-1))
            lo = np.minimum.reduceat(self.axes, start, axis=1).sum(axis=1)
            hi = np.maximum.reduceat(self.axes, start, axis=1).sum(axis=1)
            self.places = [lo + t * (hi - lo) for t in np.linspace(0.0, 1.0, FIRST)]

    def tangents(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """c·(axis·x) − unit·t ≤ ½c²: slopes [T·R, F], slopes of t [T·R, R], limits [T·R]; rows of size 1."""
        count, unit = len(self.axes), self.unit
        at = np.concatenate(self.places) if count else np.zeros(0)
        which = np.arange(len(at)) % max(count, 1)
        slopes = at[:, None] * self.axes[which]
        size = np.maximum(np.abs(slopes).max(axis=1, initial=0.0), unit)
        above = np.zeros((len(at), count))
        above[np.arange(len(at)), which] = -unit / size
        return slopes / size[:, None], above, 0.5 * at**2 / size


class Master:
    """min linear·x + Σ t over allocations x that keep the rows and whose tangents keep the limit on the loss."""

    def __init__(self, found: Relaxations) -> None:
        assert found.form is not None
        self.model, self.form, self.limit = found.model, found.form, found.limit
        self.free = np.flatnonzero(self.model.linear.free)
        self.excluded: list[FloatArray] = []
        self.squares = [_Squares(self.model, self.form)]
        if self.limit is not None:
            self.squares.append(_Squares(self.model, self.limit[0]))
        start, group = self.model.problem.indptr[:-1], self.model.problem.group_of
        self.least = np.minimum.reduceat(np.where(self.model.linear.free, self.form.linear, np.inf), start)
        self.linear = (self.form.linear - self.least[group])[self.free]
        self.unit = float(np.abs(self.linear).mean()) + 0.5 * float((self.squares[0].axes ** 2).sum()) / len(self.free)
        self.unit = self.unit or 1.0
        self.squares[0].unit = self.unit

    def cut(self, x: FloatArray) -> None:
        """Add the tangents at parts of choices [N]."""
        for squares in self.squares:
            if len(squares.axes):
                squares.places.append(squares.axes @ x[self.free])

    def exclude(self, taken: IntArray) -> None:
        """Not this allocation (rows [G]) again."""
        self.excluded.append(np.isin(self.free, taken).astype(np.float64))

    def solve(self, limits: Limits) -> tuple[float, IntArray | None]:
        """HiGHS's bound on the objective less what its tolerances may hide, and its allocation (rows [G]) or None."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        matrix, lo, hi = self._rows()
        widths = [len(s.axes) for s in self.squares]
        goal = np.concatenate([self.linear / self.unit, np.ones(widths[0]), np.zeros(sum(widths[1:]))])
        options: dict[str, Any] = {
            "mip_rel_gap": limits.gap,
            "mip_feasibility_tolerance": TOLERANCE,
            "primal_feasibility_tolerance": TOLERANCE,
            "random_seed": limits.seed,
        }
        options |= {} if limits.time is None else {"time_limit": max(SHARE * limits.left, 0.01)}
        options |= {} if limits.threads is None else {"threads": limits.threads}
        whole = np.append(np.ones(len(self.free)), np.zeros(sum(widths)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns of each option that it hands on to HiGHS unread
            result = milp(
                goal,
                constraints=LinearConstraint(matrix, lo, hi),
                integrality=whole,
                bounds=Bounds(np.zeros(len(goal)), np.where(whole == 1, 1.0, np.inf)),
                options=options,
            )
        bound = -math.inf
        if result.mip_dual_bound is not None:
            total = float(result.mip_dual_bound) * self.unit + float(self.least.sum()) + self.form.constant
            bound = self.model.linear.objective(total - self.form.slip - UNSURE * (abs(total) + self.unit))
        if result.x is None:
            return bound, None
        full = np.zeros(self.model.problem.choice_count)
        full[self.free] = result.x[: len(self.free)]
        return bound, argmin(self.model.linear, -full)

    def _rows(self) -> tuple[Any, FloatArray, FloatArray]:
        from scipy.sparse import block_array, csr_array

        groups, sides = self.model.problem.group_count, sides_of(self.model.linear)
        columns = np.array([s.column[self.free] for s in sides]).reshape(len(sides), len(self.free))
        blocks: list[list[Any]] = [[membership(self.model.linear)], [csr_array(columns)]]
        blocks.append([csr_array(np.array(self.excluded).reshape(-1, len(self.free)))])
        lo = [np.ones(groups), np.full(len(sides) + len(self.excluded), -np.inf)]
        hi = [np.ones(groups), np.array([s.limit for s in sides]), np.full(len(self.excluded), groups - 1.0)]
        blocks = [[block[0], *[None] * len(self.squares)] for block in blocks]
        for i, squares in enumerate(self.squares):
            slopes, above, limit = squares.tangents()
            aside: list[Any] = [None] * len(self.squares)
            aside[i] = csr_array(above)
            blocks.append([csr_array(slopes), *aside])
            lo.append(np.full(len(limit), -np.inf))
            hi.append(limit)
        if self.limit is not None:
            form, most = self.limit
            unit = self.squares[1].unit
            size = float(np.abs(form.linear[self.free]).max()) + unit
            sums = csr_array(np.full((1, len(self.squares[1].axes)), unit / size))
            blocks.append([csr_array(form.linear[None, self.free] / size), None, sums])
            lo.append(np.array([-np.inf]))
            hi.append(np.array([(most - form.constant + form.slip) / size]))
        return block_array(blocks).tocsr(), np.concatenate(lo), np.concatenate(hi)
