"""Reductions with an inverse: pins, forbidden choices, groups that must take one label.

A reduction is exact for the whole problem: each allocation of the reduced problem stands for one of the
original with the same loss and totals, and every feasible one of the original is there.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from allocator.errors import UnsupportedError
from allocator.evaluation import lower, upper
from allocator.names import Coded, Names, Ragged
from allocator.problem import Problem
from allocator.rounding import last_integer, sums_may_merge
from allocator.statement import (
    Budget,
    Coupling,
    Implies,
    IntArray,
    Interaction,
    Loss,
    MaxDistinct,
    Pairs,
    Resource,
    SameChoice,
)

MOST_MERGED = 100_000


@dataclass(frozen=True, eq=False)
class Reduced:
    """A smaller problem and the way back.

    problem: without pins, forbidden choices and (but for a `max` loss) same_choice; None where some group is
    left without a choice, and then `reason` says which. taken [N of the reduced problem, M]: the original rows
    behind each reduced row, padded with −1.
    """

    original: Problem
    problem: Problem | None
    taken: IntArray | None = None
    reason: str | None = None

    def expand(self, choice: NDArray[Any]) -> NDArray[np.int64]:
        """The original's allocation [G] for one of the reduced problem."""
        if self.taken is None or self.problem is None:
            return np.asarray(choice, np.int64)
        rows = self.taken[self.problem.indptr[:-1] + choice]
        rows = rows[rows >= 0]
        out = np.empty(self.original.group_count, np.int64)
        out[self.original.group_of[rows]] = rows
        return out - self.original.indptr[:-1]

    def contract(self, choice: NDArray[Any]) -> NDArray[np.int64] | None:
        """The reduced allocation that stands for one of the original; None where there is none."""
        if self.taken is None or self.problem is None:
            return np.asarray(choice, np.int64)
        chosen = np.zeros(self.original.choice_count + 1, bool)
        chosen[self.original.indptr[:-1] + choice] = True
        chosen[-1] = True  # the padding
        hit = np.flatnonzero(chosen[self.taken].all(axis=1))
        if len(hit) != self.problem.group_count:
            return None
        return hit - self.problem.indptr[:-1]


def reduce(problem: Problem) -> Reduced:
    """Drop what may not be taken, and merge the groups of each same_choice by label.

    The coupling stays under a `max` loss (Σ unary, which tells equal maxima apart, does not merge), and where
    adding the members' costs in advance could decide whether a row holds.

    Raises:
        UnsupportedError: a merged group would have more than 100,000 choices.
    """
    same = [c for c in problem.couplings if isinstance(c, SameChoice)]
    if not same:
        return _reduce(problem, [])
    reduced = _reduce(problem, same if problem.loss.aggregate != "max" and sums_may_merge(problem) else [])
    if reduced.problem is not None:
        rows = zip(problem.budgets, reduced.problem.budgets, strict=False)
        if any(
            a.resource and b.resource and problem.exact(a.resource) > reduced.problem.exact(b.resource) for a, b in rows
        ):
            return _reduce(problem, [])  # combinations of huge integers no longer add up below 2^63
    return reduced


def _reduce(problem: Problem, same: Sequence[SameChoice]) -> Reduced:
    if problem.allowed is None and not problem.pins and not same:
        return Reduced(problem, problem)
    free = problem.free
    if free.all() and not same:
        return Reduced(problem, problem.replace(pins={}, allowed=None) if problem.pins else problem)
    blocks = _blocks(problem.group_count, same)
    if all(len(b) == 1 for b in blocks):
        kept = np.flatnonzero(free)
        sizes = np.bincount(problem.group_of[kept], minlength=problem.group_count)
        if (sizes == 0).any():
            return Reduced(problem, None, reason=_stuck(problem, (int(np.argmin(sizes)),)))
        taken = kept[:, None]
    else:
        rows: list[tuple[int, ...]] = []
        counts = []
        for block in blocks:
            combinations = _combinations(problem, free, block)
            if not combinations:
                return Reduced(problem, None, reason=_stuck(problem, block))
            rows += combinations
            counts.append(len(combinations))
        sizes = np.array(counts, np.int64)
        taken = np.full((len(rows), max(map(len, rows))), -1, np.int64)
        for i, row in enumerate(rows):
            taken[i, : len(row)] = row
    return Reduced(problem, _Merger(problem, taken, sizes, blocks).build(), taken)


def _stuck(problem: Problem, block: Sequence[int]) -> str:
    names = ", ".join(repr(problem.group_names[g]) for g in block)
    if len(block) == 1:
        return f"group {names} has no choice that may be taken"
    return f"groups {names} must take one label, and have none in common among what they may take"


def _blocks(count: int, same: Sequence[SameChoice]) -> list[tuple[int, ...]]:
    """Groups joined by same_choice, in order of their first member."""
    if not same:
        return [(g,) for g in range(count)]
    parent = list(range(count))

    def root(g: int) -> int:
        while parent[g] != g:
            parent[g] = parent[parent[g]]
            g = parent[g]
        return g

    for c in same:
        for g in c.groups[1:]:
            a, b = sorted((root(c.groups[0]), root(g)))
            parent[b] = a
    blocks: dict[int, list[int]] = {}
    for g in range(count):
        blocks.setdefault(root(g), []).append(g)
    return [tuple(b) for b in blocks.values()]


def _combinations(problem: Problem, free: NDArray[np.bool_], block: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Combinations of the members' free choices that share a label, as tuples of rows."""
    rows_of = [[r for r in range(*problem.indptr[g : g + 2].tolist()) if free[r]] for g in block]
    if len(block) == 1:
        return [(r,) for r in rows_of[0]]
    by_label: list[dict[int, list[int]]] = []
    for rows in rows_of:
        found: dict[int, list[int]] = {}
        for r in rows:
            found.setdefault(int(problem.label_codes.code[r]), []).append(r)
        by_label.append(found)
    common = [k for k in by_label[0] if all(k in other for other in by_label[1:])]
    count = sum(int(np.prod([float(len(other[k])) for other in by_label])) for k in common)
    if count > MOST_MERGED:
        raise UnsupportedError(
            f"same_choice over {len(block)} groups (first {problem.group_names[block[0]]!r}) merges into {count} "
            f"choices, more than {MOST_MERGED}; give the choices of a group different labels"
        )
    return [combo for k in common for combo in itertools.product(*(other[k] for other in by_label))]


@dataclass(eq=False)
class _Merger:
    """Builds the reduced problem. Names are defaults: only indices lead back."""

    problem: Problem
    taken: IntArray
    sizes: IntArray
    blocks: list[tuple[int, ...]]
    extra_scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    extra_costs: dict[str, NDArray[Any]] = field(default_factory=dict)
    extra_resources: dict[str, Resource] = field(default_factory=dict)
    extra_budgets: list[Budget] = field(default_factory=list)

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        return self.taken >= 0

    @cached_property
    def reduced_rows(self) -> dict[int, list[int]]:
        """Reduced rows that hold each original row."""
        found: dict[int, list[int]] = {}
        for i, rows in enumerate(self.taken.tolist()):
            for r in rows:
                found.setdefault(r, []).append(i)
        return found

    def summed(self, column: NDArray[Any]) -> NDArray[Any]:
        """Σ over the members."""
        zero = np.zeros((), column.dtype)
        mask = self.present.reshape(*self.taken.shape, *[1] * (column.ndim - 1))
        return np.asarray(np.where(mask, column[self.taken], zero).sum(axis=1, dtype=column.dtype))

    def largest(self, column: NDArray[Any]) -> NDArray[Any]:
        """Maximum over the members."""
        return np.asarray(np.where(self.present, column[self.taken], column[self.taken[:, :1]]).max(axis=1))

    def build(self) -> Problem:
        p = self.problem
        wide = self.taken.shape[1] > 1
        costs = {r: (self.largest if p.resources[r].aggregate == "max" else self.summed)(p.cost(r)) for r in p.costs}
        scores = {s: self.summed(v) for s, v in p.scores.items()}
        loss = self._loss(wide)
        interactions = tuple(self._interaction(part) for part in p.interactions)
        if wide and p.active_interactions:
            loss = dataclasses.replace(loss, terms={**loss.terms, self._add_score("inside", self._inside()): 1.0})
        groups = np.array([b[0] for b in self.blocks])
        position = {g: i for i, block in enumerate(self.blocks) for g in block}
        couplings = [c for c in (self._coupling(c, position) for c in p.couplings) if c is not None]
        budgets = [self._budget(b) if wide else b for b in p.budgets]
        reduced = p.replace(
            indptr=np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64),
            scores=scores | self.extra_scores,
            stderr={s: self.summed(v) for s, v in p.stderr.items()},
            remainder={s: self.summed(v) for s, v in p.remainder.items()},
            costs=costs | self.extra_costs,
            resources={**p.resources, **self.extra_resources},
            loss=loss,
            group_names=Names(len(self.sizes)),
            choice_names=Coded(np.full(len(self.taken), -1, np.int32), ()),
            labels=Coded(p.label_codes.code[self.taken[:, 0]], p.label_codes.table),
            allowed=None,
            weights=None,
            action_code=None,
            action_table=(),
            modules=None,
            tags=None if p.tags is None else self._tags(),
            stats={} if wide else {s: v[groups] for s, v in p.stats.items()},
            couplings=tuple(couplings),
            pins={},
            budgets=(*budgets, *self.extra_budgets),
            interactions=interactions,
            reference=None,
        )
        return self._same_arithmetic(reduced)

    def _same_arithmetic(self, reduced: Problem) -> Problem:
        """A float column may turn integer when rows go; its limits then keep their float relaxation."""
        p = self.problem
        rows = list(reduced.budgets)
        for i, b in enumerate(p.budgets):
            name = rows[i].resource
            if b.resource is not None and name is not None and reduced.exact(name) and not p.exact(b.resource):
                high = None if b.max is None else last_integer(upper(b.max, False))
                low = None if b.min is None else -last_integer(-lower(b.min, False))
                rows[i] = dataclasses.replace(rows[i], max=high, min=low)
        return reduced.replace(budgets=tuple(rows)) if rows != list(reduced.budgets) else reduced

    def _tags(self) -> Ragged:
        views = self.problem.groups
        return Ragged.from_lists([list(dict.fromkeys(t for g in b for t in views[g].tags)) for b in self.blocks])

    def _unused(self, stem: str) -> str:
        """A name that no score or resource bears."""
        taken = {*self.problem.scores, *self.problem.costs, *self.extra_scores, *self.extra_costs}
        return next(name for i in itertools.count() if (name := f"({stem} {i})") not in taken)

    def _add_score(self, stem: str, column: NDArray[np.float64]) -> str:
        name = self._unused(stem)
        self.extra_scores[name] = column
        return name

    def _add_cost(self, stem: str, column: NDArray[Any], aggregate: Literal["sum", "max"] = "sum") -> str:
        name = self._unused(stem)
        self.extra_costs[name] = column
        self.extra_resources[name] = Resource(aggregate=aggregate)
        return name

    def _add_row(self, column: NDArray[Any], most: int | None, least: int | None) -> None:
        self.extra_budgets.append(Budget(resource=self._add_cost("coupling", column), max=most, min=least))

    def _loss(self, wide: bool) -> Loss:
        p = self.problem
        if not (wide and p.loss.aggregate == "pnorm"):
            return p.loss
        power = p.loss.p or 1.0
        values = np.where(self.present, p.unary[self.taken], 0.0)
        most = values.max(axis=1)
        shares = values / np.where(most > 0, most, 1.0)[:, None]
        merged = most * (shares**power).sum(axis=1) ** (1 / power)
        return Loss({self._add_score("p-norm", merged): 1.0}, "pnorm", p.loss.p)

    def _budget(self, b: Budget) -> Budget:
        """A scoped row over a merged group counts only the members in its scope: it gets a column of its own."""
        if b.tags is None:
            return b
        scope = self.problem.in_scope(b.tags)
        if all(len({bool(scope[g]) for g in block}) == 1 for block in self.blocks):
            return b
        inside = scope[self.problem.group_of]
        if b.score is not None:
            column = self.problem.scores[b.score]
            if b.include_remainder and b.score in self.problem.remainder:
                column = column + self.problem.remainder[b.score]
            added = self._add_score("scope", self.summed(np.where(inside, column, 0.0)))
            return dataclasses.replace(b, score=added, include_remainder=False, tags=None)
        assert b.resource is not None
        costs = self.problem.cost(b.resource)
        masked = np.where(inside, costs, np.zeros((), costs.dtype))
        aggregate = self.problem.resources[b.resource].aggregate  # a largest cost counts from 0 on in a scoped row
        merged = self.largest(masked) if aggregate == "max" else self.summed(masked)
        return dataclasses.replace(b, resource=self._add_cost("scope", merged, aggregate), tags=None)

    def _coupling(self, c: Coupling, position: dict[int, int]) -> Coupling | None:
        """The coupling on the reduced rows; where a merged row counts twice, a budget row says it instead."""
        find = self.reduced_rows
        if isinstance(c, MaxDistinct):
            groups = tuple(sorted({position[g] for g in c.groups}))
            return dataclasses.replace(c, groups=groups, tags=None, everywhere=False)
        if isinstance(c, SameChoice):
            kept = tuple(sorted({position[g] for g in c.groups}))
            return SameChoice(kept) if len(kept) > 1 else None
        column = np.zeros(len(self.taken), np.int64)
        if isinstance(c, Implies):
            first, then = find.get(c.if_row, []), find.get(c.then_row, [])
            if not first:
                return None
            if len(first) == len(then) == 1:
                return Implies(first[0], then[0])
            column[first] += 1
            column[then] -= 1
            self._add_row(column, 0, None)
            return None
        for r in c.rows:
            column[find.get(r, [])] += 1
        if column.any() and column.max() == 1:
            return dataclasses.replace(c, rows=tuple(np.flatnonzero(column).tolist()))
        most = c.count if c.kind != "at_least" else None
        least = c.count if c.kind != "at_most" else None
        self._add_row(column, most, least)
        return None

    def _interaction(self, part: Interaction) -> Interaction:
        if not isinstance(part, Pairs):
            return dataclasses.replace(part, vectors=self.summed(part.vectors.astype(np.float64)))
        owner = np.repeat(np.arange(len(self.sizes)), self.sizes)
        index, values = [], []
        for (a, b), value in zip(part.index.tolist(), part.value.tolist(), strict=True):
            for i in self.reduced_rows.get(a, []):
                for j in self.reduced_rows.get(b, []):
                    if owner[i] != owner[j]:
                        index.append((i, j))
                        values.append(value)
        return Pairs(part.score, np.array(index, np.int64).reshape(-1, 2), np.array(values, np.float64))

    def _inside(self) -> NDArray[np.float64]:
        """Loss between the members of each merged row: Σ pairs + ½ Σ_i e_i [(Σ v)² − Σ v²], times the weight."""
        total = np.zeros(len(self.taken))
        for weight, part in self.problem.active_interactions:
            if isinstance(part, Pairs):
                for (a, b), value in zip(part.index.tolist(), part.value.tolist(), strict=True):
                    both = set(self.reduced_rows.get(a, [])) & set(self.reduced_rows.get(b, []))
                    total[list(both)] += weight * value
            else:
                vectors = part.vectors.astype(np.float64)
                cross = self.summed(vectors) ** 2 - self.summed(vectors**2)
                total += weight * 0.5 * (cross @ part.eigenvalues)
        return total
