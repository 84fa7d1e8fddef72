"""The quadratic view of a problem: the separable one, and what each two choices of different groups add."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from allocator.errors import UnsupportedError
from allocator.linear import Linear, linearise
from allocator.problem import Problem
from allocator.statement import FloatArray, IntArray, Pairs

DENSE = 4_000  # choices up to which the whole matrix is held: 128 MB


@dataclass(frozen=True, eq=False)
class Quadratic:
    """min Σ value[taken] + Σ_{g<h} W[taken_g, taken_h] + constant, subject to the rows of `linear`.

    W = pairs + Σ_i e_i v_i v_iᵀ between choices of different groups, 0 within a group; the weights of the loss and
    of its terms are in it. pair [M, 2]: each two rows once, the smaller first, both free, value not 0; pair_value
    [M]. vectors [N, R] and eigenvalues [R] of any sign; rows that are not free are 0.
    """

    linear: Linear
    pair: IntArray
    pair_value: FloatArray
    vectors: FloatArray
    eigenvalues: FloatArray

    @property
    def problem(self) -> Problem:
        """The problem behind it."""
        return self.linear.problem

    @cached_property
    def matrix(self) -> FloatArray:
        """W [N, N], symmetric.

        Raises:
            UnsupportedError: over 4,000 choices.
        """
        n = self.problem.choice_count
        if n > DENSE:
            raise UnsupportedError(
                f"the interactions of {n} choices make a matrix of {n} × {n}, more than {DENSE} × {DENSE}; "
                "forbid choices, or use a solver that takes pairs without it"
            )
        table: FloatArray = (self.vectors * self.eigenvalues) @ self.vectors.T
        group = self.problem.group_of
        table[group[:, None] == group[None, :]] = 0.0
        np.add.at(table, (self.pair[:, 0], self.pair[:, 1]), self.pair_value)
        np.add.at(table, (self.pair[:, 1], self.pair[:, 0]), self.pair_value)
        return table

    @cached_property
    def size(self) -> float:
        """What rounding is relative to: Σ_g max_k |value| + Σ |pairs| + ½ Σ_i |e_i| (Σ_g max_k |v_gi|)²."""
        start = self.problem.indptr[:-1]
        reach = np.maximum.reduceat(np.abs(self.vectors), start, axis=0).sum(axis=0)
        alone = np.maximum.reduceat(np.where(self.linear.free, np.abs(self.linear.value), 0.0), start)
        between = 0.5 * float(np.abs(self.eigenvalues) @ reach**2)
        return float(alone.sum()) + float(np.abs(self.pair_value).sum()) + between

    def between(self, rows: IntArray) -> FloatArray:
        """W[rows, :], [len(rows), N], without the whole matrix where that is large."""
        if self.problem.choice_count <= DENSE:
            return np.asarray(self.matrix[rows])
        table = (self.vectors[rows] * self.eigenvalues) @ self.vectors.T
        for i, r in enumerate(rows.tolist()):
            partner, value = self._partners(r)
            table[i, partner] += value
            g = int(self.problem.group_of[r])
            table[i, self.problem.indptr[g] : self.problem.indptr[g + 1]] = 0.0
        return np.asarray(table)

    def field(self, taken: IntArray) -> FloatArray:
        """What each choice [N] would add beside its own value, with the other groups as taken (rows [G])."""
        along = self.vectors[taken]
        total = along.sum(axis=0)
        group = self.problem.group_of
        field: FloatArray = (self.vectors * self.eigenvalues) @ total
        field -= np.einsum("nr,nr->n", self.vectors * self.eigenvalues, along[group])
        present = np.zeros(self.problem.choice_count, bool)
        present[taken] = True
        for a, b in ((0, 1), (1, 0)):
            hit = present[self.pair[:, a]]
            np.add.at(field, self.pair[hit, b], self.pair_value[hit])
        return field

    def total(self, taken: IntArray) -> float:
        """Σ value + Σ W of an allocation (rows [G]), without the constant; to rounding."""
        return float(self.linear.value[taken].sum() + 0.5 * self.field(taken)[taken].sum())

    def as_pairs(self, most: int) -> tuple[IntArray, FloatArray]:
        """Every entry of W that is not 0 as pairs (rows [M, 2], values [M]).

        Raises:
            UnsupportedError: the vectors make more than `most` of them.
        """
        if not self.vectors.any():
            return self.pair, self.pair_value
        used = int(self.vectors.any(axis=1).sum())
        if used * (used - 1) // 2 > most:
            raise UnsupportedError(
                f"the basis joins {used} choices into about {used * (used - 1) // 2} pairs, more than {most}; "
                "forbid choices, or use a solver that takes a basis as it is"
            )
        a, b = np.nonzero(np.triu(self.matrix))
        return np.stack([a, b], axis=1).astype(np.int64), self.matrix[a, b]

    @cached_property
    def _order(self) -> tuple[IntArray, IntArray, FloatArray]:
        """Pairs from both ends in compressed rows: (indptr [N+1], partner, value)."""
        ends = np.concatenate([self.pair[:, 0], self.pair[:, 1]])
        others = np.concatenate([self.pair[:, 1], self.pair[:, 0]])
        order = np.argsort(ends, kind="stable")
        count = np.bincount(ends, minlength=self.problem.choice_count)
        start = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        return start, others[order], np.tile(self.pair_value, 2)[order]

    def _partners(self, row: int) -> tuple[IntArray, FloatArray]:
        start, partner, value = self._order
        part = slice(int(start[row]), int(start[row + 1]))
        return partner[part], value[part]


def quadratic(problem: Problem) -> Quadratic:
    """Build the quadratic view.

    Raises:
        UnsupportedError: a part that is neither a sum over groups nor between two of them, such as a limit on a loss
            with interactions.
    """
    weight = problem.minimize.get("loss", 0.0)
    active = problem.active_interactions if problem.features & {"pairs", "basis"} else ()
    if active and any(b.loss for b in problem.budgets):
        raise UnsupportedError(
            "a limit on a loss with interactions is not a sum over groups; use ortools_cpsat, or minimise the loss"
        )
    linear = linearise(problem, with_interactions=True)
    n = problem.choice_count
    ends: list[IntArray] = []
    values: list[FloatArray] = []
    vectors: list[FloatArray] = []
    eigenvalues: list[FloatArray] = []
    for term, part in active if weight else ():
        if isinstance(part, Pairs):
            ends.append(np.sort(part.index, axis=1))
            values.append(weight * term * part.value)
        else:
            column = part.vectors.astype(np.float64, copy=False)
            vectors.append(column if linear.free.all() else np.where(linear.free[:, None], column, 0.0))
            eigenvalues.append(weight * term * part.eigenvalues)
    pair, value = np.zeros((0, 2), np.int64), np.zeros(0)
    if ends:
        joined = np.concatenate(ends)
        key, place = np.unique(joined[:, 0] * n + joined[:, 1], return_inverse=True)
        value = np.bincount(place, np.concatenate(values), len(key)).astype(np.float64)
        pair = np.stack([key // n, key % n], axis=1)
        kept = (value != 0) & linear.free[pair].all(axis=1)
        pair, value = pair[kept], value[kept]
    wide = vectors[0] if len(vectors) == 1 else np.concatenate([np.zeros((n, 0)), *vectors], axis=1)
    signs = np.concatenate(eigenvalues) if eigenvalues else np.zeros(0)
    kept = (signs != 0) & wide.any(axis=0)
    wide = wide if kept.all() else wide[:, kept]
    return Quadratic(linear, pair, value, np.ascontiguousarray(wide), signs[kept])
