"""The lifted program: quadratic forms that are 0, or at least 0, on every allocation, and the bound they prove."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from allocator.quadratic import Quadratic
from allocator.statement import FloatArray, IntArray
from solvers._convex import SLACK, sides_of

EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class Lift:
    """Over u = (1, every free choice but the last of each group), in which x = basis·u, x₀ = 1 and |u|² ≤ 1 + G.

    basis [1 + F, n]: row 0 is the 1, then the free rows in order; the last of a group is 1 − Σ of the others.
    form [n, n]: uᵀ form u = the objective, in units of `unit`, less its constant. zero [Z, n, n]: uᵀAu = 0 on
    allocations. positive [P, n, n]: uᵀAu ≥ 0 on allocations that keep the rows.
    """

    free: IntArray
    basis: FloatArray
    form: FloatArray
    unit: float
    zero: FloatArray
    positive: FloatArray
    groups: int

    def matrix(self, height: float, zero: FloatArray, positive: FloatArray) -> FloatArray:
        """form − height·E₀₀ − Σ zero·A − Σ positive·A."""
        left = self.form - np.tensordot(zero, self.zero, 1) - np.tensordot(positive, self.positive, 1)
        left[0, 0] -= height
        return np.asarray(left)

    def bound(self, height: float, zero: FloatArray, positive: FloatArray) -> float:
        """A number that no allocation's objective (less its constant) falls below, whatever the multipliers.

        With M = form − height·E₀₀ − Σ… and positive ≥ 0: objective ≥ height + uᵀMu ≥ height + min(0, λ_min(M))·(1 + G).
        """
        if not (math.isfinite(height) and np.isfinite(zero).all() and np.isfinite(positive).all()):
            return -math.inf
        positive = np.maximum(positive, 0.0)
        m = self.matrix(height, zero, positive)
        sizes = [abs(height), float(np.linalg.norm(self.form))]
        for part, forms in ((zero, self.zero), (positive, self.positive)):
            sizes.append(float(np.abs(part) @ np.sqrt((forms**2).sum(axis=(1, 2)))))
        rounding = 8 * len(m) * EPSILON * math.fsum(sizes)
        low = min(0.0, float(np.linalg.eigvalsh((m + m.T) / 2)[0])) - rounding
        return self.unit * (height + low * (1 + self.groups))


def lift(model: Quadratic, below: tuple[Quadratic, float] | None = None) -> Lift:
    """Build it: x² = x, products within a group 0, products across groups ≥ 0, slack of each row times each choice ≥ 0.

    below: another quadratic over the same choices, and what it may not exceed.

    The doubly nonnegative relaxation with the budget rows inside, on the face where every group sums to 1 (Shor,
    1987; Burer, 2009; Zhao, Karisch, Rendl and Wolkowicz, 1998).
    """
    problem, mask = model.problem, model.linear.free
    free = np.flatnonzero(mask)
    group = problem.group_of[free]
    last = np.append(group[1:] != group[:-1], True)
    n = 1 + len(free) - int(last.sum())
    basis = np.zeros((1 + len(free), n))
    basis[0, 0] = 1.0
    basis[1:, 0] = last
    inside = 1 + np.flatnonzero(~last)
    basis[inside, 1 + np.arange(n - 1)] = 1.0
    of = group[~last]
    for j in np.flatnonzero(last).tolist():
        basis[1 + j, 1 + np.flatnonzero(of == group[j])] = -1.0
    form = _form(model, free, basis)
    unit = float(np.abs(form).max(initial=0.0)) or 1.0
    zero = []
    for a in range(1, n):
        zero.append(_both(_unit(n, a), _unit(n, a) - _unit(n, 0)))
        zero += [_both(_unit(n, a), _unit(n, b)) for b in range(a + 1, n) if of[a - 1] == of[b - 1]]
    choices = basis[1:]
    positive = [
        _both(choices[a], choices[b]) for a in range(len(free)) for b in range(a + 1, len(free)) if group[a] != group[b]
    ]
    slacks = [s.limit * basis[0] - s.column[free] @ choices for s in sides_of(model.linear)]
    positive += [_both(slack, choice) for slack in slacks for choice in choices]
    positive += [_both(s, t) for i, s in enumerate(slacks) for t in slacks[:i]]
    if below is not None and math.isfinite(below[1]):
        room = -_form(below[0], free, basis)
        room[0, 0] += below[1] + SLACK * (below[0].size + abs(below[1]))
        positive.append(room / (float(np.abs(room).max()) or 1.0))
    none = np.zeros((0, n, n))
    return Lift(
        free=free,
        basis=basis,
        form=form / unit,
        unit=unit,
        zero=np.array(zero) if zero else none,
        positive=np.array(positive) if positive else none,
        groups=problem.group_count,
    )


def _form(model: Quadratic, free: IntArray, basis: FloatArray) -> FloatArray:
    """Σ value + Σ W of an allocation as a form of u."""
    full = np.zeros((1 + len(free), 1 + len(free)))
    full[0, 1:] = full[1:, 0] = 0.5 * model.linear.value[free]
    full[1:, 1:] = 0.5 * model.matrix[np.ix_(free, free)]
    return np.asarray(basis.T @ full @ basis)


def _unit(n: int, k: int) -> FloatArray:
    out = np.zeros(n)
    out[k] = 1.0
    return out


def _both(a: FloatArray, b: FloatArray) -> FloatArray:
    """(a·u)(b·u) as a symmetric form."""
    return 0.5 * (np.outer(a, b) + np.outer(b, a))
