"""Allocations side by side, with their sums kept while single groups change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.statement import BoolArray, FloatArray, IntArray
from solvers._ground import LOSS, REST, Ground, Partners


@dataclass(eq=False)
class Sums:
    """What is kept of each member: sums of the columns, of the vectors, of the pairs, label counts, maxima.

    exact [P, E], loose [P, L], spans [P, R] = Σ_g v_g, pairs [P], labels [P, labels] per coupling, maxima [P] each.
    """

    exact: IntArray
    loose: FloatArray
    spans: FloatArray
    pairs: FloatArray
    labels: tuple[IntArray, ...]
    maxima: tuple[FloatArray, ...]

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """All of them, members along the first axis."""
        return (self.exact, self.loose, self.spans, self.pairs, *self.labels, *self.maxima)

    def take(self, members: IntArray) -> Sums:
        """A copy of some members' (one may occur again and again)."""
        labels, maxima = tuple(a[members] for a in self.labels), tuple(a[members] for a in self.maxima)
        return Sums(self.exact[members], self.loose[members], self.spans[members], self.pairs[members], labels, maxima)

    def put_back(self, kept: Sums, members: BoolArray) -> None:
        """What the members of a mask were before."""
        for now, then in zip(self.arrays(), kept.arrays(), strict=True):
            now[members] = then[members]


class Population:
    """P allocations of one problem: `rows` [P, G] of the columns, and their `sums`.

    A change of one group costs O(columns + rank + its pairs); a maximum is looked for again only where the group that
    held it changes. Powers of a p-norm are added up afresh each time: their sizes differ so much that what is left
    when a large one goes would be rounding. Feasibility is that of the columns: `Problem.evaluate` has the last word.
    """

    def __init__(self, ground: Ground, rows: IntArray, sums: Sums | None = None) -> None:
        self.ground = ground
        self.rows = rows
        self.sums = _summed(ground, rows) if sums is None else sums

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, members: IntArray) -> Population:
        """Copies of some members."""
        return Population(self.ground, self.rows[members], self.sums.take(members))

    def choices(self) -> IntArray:
        """Index of each choice within its group [P, G]."""
        return np.asarray(self.rows - self.ground.problem.indptr[:-1])

    def change(self, members: IntArray, groups: IntArray, new: IntArray) -> None:
        """One group of each of some (different) members goes to another row of the columns."""
        ground, sums = self.ground, self.sums
        old = self.rows[members, groups]
        sums.exact[members] += ground.exact[new] - ground.exact[old]
        sums.loose[members] += ground.loose[new] - ground.loose[old]
        if ground.vectors.shape[1]:
            sums.spans[members] += ground.vectors[new] - ground.vectors[old]
        if ground.partners is not None:
            sums.pairs[members] += self._with_others(ground.partners, members, new)
            sums.pairs[members] -= self._with_others(ground.partners, members, old)
        for label, counts in zip(ground.labels, sums.labels, strict=True):
            for rows, step in ((old, -1), (new, 1)):
                code = label.code[rows]
                counts[members[code >= 0], code[code >= 0]] += step
        self.rows[members, groups] = new
        if ground.power is not None:
            sums.loose[members, LOSS] = ground.loose[self.rows[members], LOSS].sum(axis=1)
        for (column, least, _), most in zip(ground.maxima, sums.maxima, strict=True):
            held = column[old] >= most[members]
            most[members] = np.maximum(most[members], column[new])
            if held.any():
                again = members[held]
                most[again] = np.maximum(column[self.rows[again]].max(axis=1), least)

    def loss(self) -> FloatArray:
        """Loss of each member [P], from the running sums."""
        return self._loss(self.sums)

    def objective(self) -> FloatArray:
        """Objective of each member [P], from the running sums."""
        return self._objective(self.sums)

    def tie(self) -> FloatArray:
        """Σ unary where that tells equal objectives apart, else 0 [P]."""
        return self._tie(self.sums)

    def excess(self) -> FloatArray:
        """By how much each member breaks rows and couplings [P], each against its size; 0 where all hold."""
        return self._excess(self.sums)

    def candidates(
        self, members: IntArray, groups: IntArray, *, with_objective: bool = False
    ) -> tuple[IntArray, FloatArray, FloatArray]:
        """For one group of each of some members (one may occur again): the free choices, and what each would make.

        Returns:
            rows [n, K], padded with the last; excess [n, K], infinite in the padding; objective and
            Σ unary where that breaks ties [2, n, K], if asked for.
        """
        ground, sums = self.ground, self.sums
        counts = ground.counts[groups]
        places = np.arange(int(counts.max()))
        rows = ground.axis.order[ground.axis.starts[groups][:, None] + np.minimum(places, counts[:, None] - 1)]
        flat, owner = rows.reshape(-1), np.repeat(members, len(places))
        old = self.rows[owner, ground.problem.group_of[flat]]
        trial = Sums(
            sums.exact[owner] + ground.exact[flat] - ground.exact[old],
            sums.loose[owner] + ground.loose[flat] - ground.loose[old],
            sums.spans[:0],
            sums.pairs[:0],
            tuple(held[owner] for held in sums.labels),
            self._maxima(members, groups, rows) if with_objective else (),
        )
        if ground.power is not None and with_objective:
            others = ground.loose[self.rows[members], LOSS]
            others[np.arange(len(members)), groups] = 0.0
            trial.loose[:, LOSS] = (others.sum(axis=1)[:, None] + ground.loose[rows, LOSS]).reshape(-1)
        every = np.arange(len(flat))
        for label, held in zip(ground.labels, trial.labels, strict=True):
            for row, step in ((old, -1), (flat, 1)):
                code = label.code[row]
                held[every[code >= 0], code[code >= 0]] += step
        if with_objective or self._limited:
            trial.spans = sums.spans[owner] + ground.vectors[flat] - ground.vectors[old]
            trial.pairs = sums.pairs[owner]
            if ground.partners is not None:
                trial.pairs = trial.pairs + self._with_others(ground.partners, owner, flat)
                trial.pairs -= self._with_others(ground.partners, owner, old)
        excess = np.where(places < counts[:, None], self._excess(trial).reshape(rows.shape), np.inf)
        if not with_objective:
            return rows, excess, np.zeros((2, 0))
        return rows, excess, np.stack([self._objective(trial), self._tie(trial)]).reshape(2, *rows.shape)

    def _maxima(self, members: IntArray, groups: IntArray, rows: IntArray) -> tuple[FloatArray, ...]:
        """What the maxima become with each of the rows [n, K] in its group; flat."""
        found = []
        old = self.rows[members, groups]
        for (column, least, _), most in zip(self.ground.maxima, self.sums.maxima, strict=True):
            others = most[members]
            held = np.flatnonzero(column[old] >= others)
            if len(held):
                values = column[self.rows[members[held]]].astype(np.float64)
                values[np.arange(len(held)), groups[held]] = -np.inf
                others[held] = np.maximum(values.max(axis=1), least)
            found.append(np.maximum(others[:, None], column[rows]).reshape(-1))
        return tuple(found)

    @property
    def _limited(self) -> bool:
        return bool(np.isfinite(self.ground.ceiling) or np.isfinite(self.ground.floor))

    def _loss(self, sums: Sums) -> FloatArray:
        ground = self.ground
        if ground.problem.loss.aggregate == "max":
            return sums.maxima[0]
        if ground.power is not None:
            scale, p = ground.power
            return np.asarray(scale * np.maximum(sums.loose[:, LOSS], 0.0) ** (1 / p))
        return np.asarray(sums.loose[:, LOSS] + sums.pairs + 0.5 * (sums.spans**2 @ ground.eigenvalues))

    def _objective(self, sums: Sums) -> FloatArray:
        ground = self.ground
        total = sums.loose[:, REST] + ground.constant
        if ground.loss_weight:
            total = total + ground.loss_weight * self._loss(sums)
        for (_, _, weight), most in zip(ground.maxima, sums.maxima, strict=True):
            if weight:
                total = total + weight * most
        return np.asarray(total)

    def _tie(self, sums: Sums) -> FloatArray:
        return sums.loose[:, LOSS].copy() if self.ground.lexicographic else np.zeros(len(sums.loose))

    def _excess(self, sums: Sums) -> FloatArray:
        ground = self.ground
        exact, wide = sums.exact, len(ground.exact_hi)
        over = np.where(exact > ground.exact_hi, exact.astype(np.float64) - ground.exact_hi, 0.0)
        under = np.where(exact < ground.exact_lo, ground.exact_lo - exact.astype(np.float64), 0.0)
        broken = np.where((exact > ground.exact_hi) | (exact < ground.exact_lo), np.maximum(over + under, 1.0), 0.0)
        total = (broken / ground.size[:wide]).sum(axis=1)
        if len(ground.loose_hi) > 2:
            loose = sums.loose[:, 2:]
            out = np.maximum(loose - ground.loose_hi[2:], 0.0) + np.maximum(ground.loose_lo[2:] - loose, 0.0)
            total = total + (out / ground.size[wide + 2 :]).sum(axis=1)
        for label, counts in zip(ground.labels, sums.labels, strict=True):
            if label.kinds > label.count:  # groups that the most frequent labels leave over
                spare = np.partition(counts, label.kinds - label.count - 1, axis=1)[:, : label.kinds - label.count]
                total = total + spare.sum(axis=1) / label.groups
        if self._limited:
            loss = self._loss(sums)
            out = np.maximum(loss - ground.ceiling, 0.0) + np.maximum(ground.floor - loss, 0.0)
            total = total + out / (1.0 + np.abs(loss))
        return np.asarray(total)

    def _with_others(self, partners: Partners, members: IntArray, rows: IntArray) -> FloatArray:
        """Σ of the pairs of a row with what the other groups of its member take [n]."""
        first, many = partners.start[rows], partners.start[rows + 1] - partners.start[rows]
        if not many.any():
            return np.zeros(len(rows))
        owner = np.repeat(np.arange(len(rows)), many)
        at = np.arange(len(owner)) - np.repeat(np.cumsum(many) - many, many) + first[owner]
        other = partners.other[at]
        taken = self.rows[members[owner], self.ground.problem.group_of[other]] == other
        values: FloatArray = np.where(taken, partners.value[at], 0.0)
        return np.asarray(np.bincount(owner, values, len(rows)), np.float64)


def _summed(ground: Ground, rows: IntArray) -> Sums:
    """The sums from nothing."""
    problem, count = ground.problem, len(rows)
    exact = np.array([ground.exact[r].sum(axis=0) for r in rows]).reshape(count, ground.exact.shape[1])
    loose = np.array([ground.loose[r].sum(axis=0) for r in rows]).reshape(count, ground.loose.shape[1])
    spans = np.array([ground.vectors[r].sum(axis=0) for r in rows]).reshape(count, ground.vectors.shape[1])
    labels = []
    for label in ground.labels:
        codes = [label.code[r] for r in rows]
        counts = [np.bincount(c[c >= 0], minlength=label.kinds) for c in codes]
        labels.append(np.array(counts, np.int64).reshape(count, label.kinds))
    maxima = tuple(np.maximum(column[rows].max(axis=1), least) for column, least, _ in ground.maxima)
    pairs = np.zeros(count)
    sums = Sums(exact.astype(np.int64), loose, spans, pairs, tuple(labels), maxima)
    if ground.partners is not None:
        built = Population(ground, rows, sums)
        for member in range(count):
            here = np.full(problem.group_count, member)
            pairs[member] = 0.5 * float(built._with_others(ground.partners, here, rows[member]).sum())
    return sums
