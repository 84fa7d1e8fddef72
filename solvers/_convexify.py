"""A quadratic over 0/1 choices as a convex one that agrees with it on every allocation, or lies below it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from allocator.quadratic import Quadratic
from allocator.statement import FloatArray, IntArray
from solvers._box import Box, wide_box

EPSILON = float(np.finfo(float).eps)
MOST_SHIFTED = 1_500  # choices whose matrix is decomposed: seconds
ROUNDS = (3, 40)  # decompositions, at least and at most
WORK = 10**9  # n³ of all of them together
FLOOR = 1e-6  # of the mean of a shift's diagonal, so that it can be inverted


@dataclass(frozen=True, eq=False)
class Convex:
    """linear·x + ½‖factor·x‖² + constant ≤ the objective on every allocation x, up to slip.

    factor: [R, N], dense or sparse. name: how it was made.
    """

    name: str
    linear: FloatArray
    factor: Any
    constant: float
    slip: float

    def gradient(self, x: FloatArray) -> tuple[FloatArray, float]:
        """(g, c) with g·y + c ≤ the objective at every allocation y, whatever x: the tangent at x."""
        bent = np.asarray(self.factor @ x)
        return self.linear + np.asarray(self.factor.T @ bent), self.constant - 0.5 * float(bent @ bent) - self.slip


def is_convex(model: Quadratic) -> bool:
    """Whether it is convex as it stands: a basis without negative eigenvalues, and no pairs."""
    return not len(model.pair) and bool((model.eigenvalues >= 0).all())


def plain(model: Quadratic) -> Convex:
    """Convex as it stands: ½ Σ_i e_i (v_i·x)², own squares taken off the values (x² = x)."""
    own = 0.5 * (model.vectors**2) @ model.eigenvalues
    factor = np.ascontiguousarray((model.vectors * np.sqrt(model.eigenvalues)).T)
    slip = EPSILON * (model.vectors.shape[0] + model.vectors.shape[1]) * (model.size + _largest(model, own))
    return Convex("plain", model.linear.value - own, factor, 0.0, slip)


def shifted(model: Quadratic) -> Convex:
    """W + S with S of a block for each group, convex where every group sums to 1; ½ diag(S) is taken off the values.

    x_k² = x_k and x_k x_l = 0 within a group make that exact on allocations, whatever S (diagonal shifts: Hammer and
    Rubin, 1970; QCR: Billionnet and Elloumi, 2007). Only directions y with Σ_{k in g} y_k = 0 count: there, with x₀
    the centre, ½xᵀHx = ½x₀ᵀHx₀ + (Hx₀)·(x − x₀) + ½(x − x₀)ᵀH(x − x₀), and the last term has a factor.
    """
    w, face = model.matrix, _face(model)
    inner = face.T @ w @ face
    shift = _blocks(inner, np.repeat(np.arange(model.problem.group_count), [len(m) - 1 for m in _members(model)]))
    curved = inner + shift
    value, vector = np.linalg.eigh(curved) if len(inner) else (np.zeros(0), np.zeros((0, 0)))
    kept = value > 0
    root = vector[:, kept] * np.sqrt(value[kept])
    rounding = EPSILON * len(w) * (float(np.linalg.norm(w)) + float(np.linalg.norm(shift)))
    miss = float(np.linalg.norm(curved - root @ root.T)) + rounding
    centre = _centre(model)
    pull = w @ centre
    own = 0.5 * np.einsum("nr,nr->n", face @ shift, face)
    slip = 0.5 * model.problem.group_count * miss + EPSILON * len(w) * (
        model.size + _largest(model, pull) + _largest(model, own)
    )
    return Convex(
        "shifted",
        model.linear.value - own + pull,
        np.ascontiguousarray(root.T @ face.T),
        -0.5 * float(centre @ pull),
        slip,
    )


def _blocks(inner: FloatArray, group: IntArray) -> FloatArray:
    """S, zero between groups, with inner + S ⪰ 0 to rounding and not much more of it than that needs.

    The blocks of the negative part are added again and again: what they leave negative shrinks each time. Then the
    least multiple of S that is enough.
    """
    n = len(inner)
    scale = float(np.abs(inner).max(initial=0.0))
    shift = np.zeros_like(inner)
    if scale == 0.0:
        return shift
    same = group[:, None] == group[None, :]
    for _ in range(max(ROUNDS[0], min(ROUNDS[1], WORK // n**3))):
        value, vector = np.linalg.eigh(inner + shift)
        if value[0] >= -EPSILON * n * scale:
            break
        below = vector[:, value < 0]
        shift += np.where(same, (below * -value[value < 0]) @ below.T, 0.0)
    shift += (FLOOR * float(np.trace(shift)) / n + EPSILON * scale) * np.eye(n)
    root = np.linalg.cholesky(shift)
    bent = np.linalg.solve(root, np.linalg.solve(root, inner).T)
    return np.asarray(shift * max(0.0, -float(np.linalg.eigvalsh((bent + bent.T) / 2)[0])))


def split(model: Quadratic, box: Box | None = None) -> Convex:
    """For any number of choices: each pair as a square, each negative eigenvalue by its secant; a weak bound.

    w x_a x_b = ½|w|(x_a ± x_b)² − ½|w|(x_a + x_b) on 0/1; −½|e|c² ≥ −½|e|((lo + hi)·c − lo·hi) for lo ≤ c ≤ hi.

    Args:
        model: the objective.
        box: the ranges of c on allocations that keep the rows; otherwise those of all allocations.
    """
    from scipy.sparse import csr_array, vstack

    n = model.problem.choice_count
    own = 0.5 * (model.vectors**2) @ model.eigenvalues
    linear = model.linear.value - own
    up = model.eigenvalues >= 0
    box = wide_box(model) if box is None else box
    linear = linear + model.vectors[:, ~up] @ (0.5 * model.eigenvalues[~up] * (box.lo + box.hi))
    constant = -0.5 * float((model.eigenvalues[~up] * box.lo) @ box.hi)
    size = np.abs(model.pair_value)
    for end in (0, 1):
        linear = linear - 0.5 * np.bincount(model.pair[:, end], size, n)
    count = len(size)
    entry = np.concatenate([np.sqrt(size), np.sign(model.pair_value) * np.sqrt(size)])
    index = np.concatenate([model.pair[:, 0], model.pair[:, 1]])
    squares = csr_array((entry, (np.tile(np.arange(count), 2), index)), shape=(count, n))
    curved = csr_array((model.vectors[:, up] * np.sqrt(model.eigenvalues[up])).T)
    slip = EPSILON * (n + count) * (model.size + float(size.sum()) + _largest(model, own))
    return Convex("split into squares", linear, vstack([squares, curved]).tocsr(), constant, slip)


def _largest(model: Quadratic, column: FloatArray) -> float:
    return float(np.maximum.reduceat(np.abs(column), model.problem.indptr[:-1]).sum())


def _members(model: Quadratic) -> list[IntArray]:
    """The free rows of each group."""
    free, indptr = model.linear.free, model.problem.indptr.tolist()
    return [a + np.flatnonzero(free[a:b]) for a, b in itertools.pairwise(indptr)]


def _centre(model: Quadratic) -> FloatArray:
    centre = np.zeros(model.problem.choice_count)
    for rows in _members(model):
        centre[rows] = 1.0 / len(rows)
    return centre


def _face(model: Quadratic) -> FloatArray:
    """An orthonormal basis [N, N − G] of what keeps every group's sum: Helmert's, group by group."""
    members = _members(model)
    face = np.zeros((model.problem.choice_count, sum(len(m) - 1 for m in members)))
    column = 0
    for rows in members:
        for k in range(1, len(rows)):
            face[rows[:k], column] = 1.0
            face[rows[k], column] = -float(k)
            face[rows, column] /= np.sqrt(k * (k + 1.0))
            column += 1
    return face
