"""Rows of the mixed-integer program: the blocks they stand in, couplings, and products of choices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.errors import UnsupportedError
from allocator.problem import Problem
from allocator.statement import (
    BoolArray,
    Cardinality,
    FloatArray,
    Implies,
    IntArray,
    MaxDistinct,
    Number,
    Pairs,
    SameChoice,
)

NONE = np.iinfo(np.int64).max  # no limit, in an integer row
FULL = 0.5  # share of a pair of groups' products above which all of them are written out
MOST_VECTORS = 4_000


@dataclass(frozen=True, eq=False)
class Block:
    """Rows lo ≤ Σ value·x[index] ≤ hi in compressed form.

    Values and limits are int64 where the row is exact (±NONE: no limit), else float64 (±inf). budget: the
    budget row it stands for, or −1. unit: what 1 means in that row's unit. reach: the largest the left side
    can be.
    """

    indptr: IntArray
    index: IntArray
    value: NDArray[Any]
    lo: NDArray[Any]
    hi: NDArray[Any]
    budget: int = -1
    unit: Number = 1
    reach: float = 1.0

    @staticmethod
    def one(index: IntArray, value: NDArray[Any], lo: Number | None, hi: Number | None, budget: int) -> Block:
        """A block of a single row that stands for a budget."""
        none: Number = NONE if value.dtype.kind == "i" else np.inf
        limits = [-none if lo is None else lo, none if hi is None else hi]
        low, high = (np.array([x], value.dtype) for x in limits)
        return Block(np.array([0, len(index)], np.int64), index, value, low, high, budget)

    @property
    def count(self) -> int:
        """Rows."""
        return len(self.indptr) - 1

    def rows(self) -> Iterable[tuple[IntArray, NDArray[Any], Number | None, Number | None]]:
        """(index, value, lo, hi) of each row, None for no limit."""
        none = NONE if self.value.dtype.kind == "i" else np.inf
        for i, (lo, hi) in enumerate(zip(self.lo.tolist(), self.hi.tolist(), strict=True)):
            part = slice(int(self.indptr[i]), int(self.indptr[i + 1]))
            yield self.index[part], self.value[part], None if lo == -none else lo, None if hi == none else hi

    def times(self, x: FloatArray) -> list[float]:
        """Left side of each row."""
        return [float(self.value[a:b] @ x[self.index[a:b]]) for a, b in zip(self.indptr, self.indptr[1:], strict=False)]

    def float_limits(self) -> tuple[FloatArray, FloatArray]:
        """lo and hi as floats, infinite for none."""
        lo, hi = self.lo.astype(np.float64), self.hi.astype(np.float64)
        if self.value.dtype.kind == "i":
            lo, hi = np.where(self.lo == -NONE, -np.inf, lo), np.where(self.hi == NONE, np.inf, hi)
        return lo, hi

    def under(self, variable: int) -> Block:
        """Σ value·x − variable ≤ 0 in each row."""
        ends = self.indptr[1:]
        return replace(
            self,
            indptr=self.indptr + np.arange(self.count + 1),
            index=np.insert(self.index, ends, variable),
            value=np.insert(self.value, ends, -1.0),
        )

    def tightened(self, amount: float) -> Block:
        """Limits drawn in by an amount in the budget's unit, by at least one unit where exact."""
        step = amount / self.unit
        if self.value.dtype.kind == "i":
            inward = max(int(min(step, 2.0**62)), 1)
            lo = np.where(self.lo == -NONE, -NONE, self.lo + inward)
            return replace(self, lo=lo, hi=np.where(self.hi == NONE, NONE, self.hi - inward))
        return replace(self, lo=self.lo + step, hi=self.hi - step)


def unit_block(
    rows: Sequence[IntArray],
    lo: Sequence[int | None],
    hi: Sequence[int | None],
    values: Sequence[NDArray[np.int64]] | None = None,
) -> Block:
    """Rows with small integer coefficients, 1 unless given."""
    sizes = np.fromiter(map(len, rows), np.int64, len(rows))
    index = np.concatenate(rows).astype(np.int64) if rows else np.zeros(0, np.int64)
    return Block(
        indptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        index=index,
        value=np.ones(len(index), np.int64) if values is None else np.concatenate(values).astype(np.int64),
        lo=np.array([-NONE if x is None else x for x in lo], np.int64),
        hi=np.array([NONE if x is None else x for x in hi], np.int64),
    )


# -- couplings -------------------------------------------------------------------------------------------------------


def _counted(problem: Problem, variable: IntArray, coupling: MaxDistinct) -> list[IntArray]:
    """Rows that may be taken in the coupling's groups, one array per label that counts; [] where it cannot bind."""
    inside = np.zeros(problem.group_count, bool)
    inside[list(coupling.groups)] = True
    codes = problem.label_codes
    ignored = [i for i, label in enumerate(codes.table) if label in coupling.ignore]
    rows = np.flatnonzero((variable >= 0) & inside[problem.group_of] & ~np.isin(codes.code, ignored))
    found = [rows[codes.code[rows] == c] for c in np.unique(codes.code[rows])]
    return found if len(found) > coupling.count else []


def label_members(problem: Problem, variable: IntArray) -> tuple[IntArray, ...]:
    """Choice variables of each label that a max_distinct counts, in the order of `coupling_blocks`."""
    limits = [c for c in problem.couplings if isinstance(c, MaxDistinct)]
    return tuple(variable[rows] for c in limits for rows in _counted(problem, variable, c))


class _Rows:
    """Collects rows with coefficients 1 and −1."""

    def __init__(self) -> None:
        self.index: list[IntArray] = []
        self.value: list[NDArray[np.int64]] = []
        self.lo: list[int | None] = []
        self.hi: list[int | None] = []

    def add(self, plus: IntArray, minus: IntArray | list[int], lo: int | None, hi: int | None) -> None:
        less = np.asarray(minus, np.int64)
        self.index.append(np.concatenate([plus, less]))
        self.value.append(np.concatenate([np.ones(len(plus), np.int64), -np.ones(len(less), np.int64)]))
        self.lo.append(lo)
        self.hi.append(hi)


def coupling_blocks(problem: Problem, variable: IntArray, first_label: int) -> list[Block]:
    """All couplings over the choice variables (`variable` [N], −1 where a row may not be taken)."""
    rows = _Rows()
    label = first_label

    def taken(wanted: Iterable[int]) -> IntArray:
        found = variable[np.fromiter(wanted, np.int64)]
        return np.asarray(found[found >= 0])

    for coupling in problem.couplings:
        if isinstance(coupling, Implies):
            cause = taken([coupling.if_row])
            if len(cause) and coupling.if_row != coupling.then_row:
                rows.add(cause, taken([coupling.then_row]), None, 0)
        elif isinstance(coupling, Cardinality):
            low = None if coupling.kind == "at_most" else coupling.count
            high = None if coupling.kind == "at_least" else coupling.count
            rows.add(taken(coupling.rows), [], low, high)
        elif isinstance(coupling, SameChoice):
            _same_label(problem, variable, coupling, rows)
        else:
            counted = _counted(problem, variable, coupling)
            for i, members in enumerate(counted):
                for part in np.split(members, np.flatnonzero(np.diff(problem.group_of[members])) + 1):
                    rows.add(variable[part], [label + i], None, 0)
            if counted:
                rows.add(np.arange(label, label + len(counted)), [], None, coupling.count)
                label += len(counted)
    return [unit_block(rows.index, rows.lo, rows.hi, rows.value)] if rows.index else []


def _same_label(problem: Problem, variable: IntArray, coupling: SameChoice, rows: _Rows) -> None:
    """Σ of a label's choices in each group equals that in the first."""
    codes = problem.label_codes.code
    parts = []
    for g in dict.fromkeys(coupling.groups):
        mine = np.arange(problem.indptr[g], problem.indptr[g + 1])
        parts.append(mine[variable[mine] >= 0])
    for code in np.unique(codes[np.concatenate(parts)]):
        first, *others = (variable[p[codes[p] == code]] for p in parts)
        for other in others:
            rows.add(other, first, 0, 0)


# -- products of choices ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Products:
    """Products x[first]·x[second] of choice variables of different groups, and what each adds to the loss.

    full: all products of that pair of groups are here. low, high: x_a·x_b must not be understated
    (overstated), because the objective or a row would gain by it. cell: pair of groups it belongs to.
    """

    first: IntArray
    second: IntArray
    value: FloatArray
    full: BoolArray
    low: BoolArray
    high: BoolArray
    cell: IntArray

    @staticmethod
    def none() -> Products:
        """No products."""
        index, mask = np.zeros(0, np.int64), np.zeros(0, bool)
        return Products(index, index, np.zeros(0), mask, mask, mask, index)


def products(problem: Problem, row: IntArray, *, small: bool, large: bool, most: int) -> Products:
    """All products that the interactions speak of, among the rows that may be taken.

    Args:
        problem: with active interactions.
        row: rows of the choice variables.
        small: something pushes the loss down (minimised, or with a max).
        large: something pushes it up.
        most: refuse beyond so many.

    Raises:
        UnsupportedError: more than `most`.
    """
    n = len(row)
    variable = np.full(problem.choice_count, -1, np.int64)
    variable[row] = np.arange(n)
    keys, values = [], []
    for weight, part in problem.active_interactions:
        if isinstance(part, Pairs):
            ends = np.sort(variable[part.index], axis=1)
            both = ends[:, 0] >= 0
            keys.append(ends[both, 0] * n + ends[both, 1])
            values.append(weight * part.value[both])
        else:
            ends, expanded = _expanded(problem, row, part.vectors[row].astype(np.float64), part.eigenvalues, most)
            keys.append(ends[:, 0] * n + ends[:, 1])
            values.append(weight * expanded)
    key, place = np.unique(np.concatenate(keys), return_inverse=True)
    value: FloatArray = np.bincount(place, np.concatenate(values), len(key)).astype(np.float64)
    key, value = key[value != 0], value[value != 0]
    if len(key) > most:
        raise _too_many(len(key), most)
    group = problem.group_of[row]
    key, value, cell, full = _completed(key, value, group, n)
    if len(key) > 2 * most:
        raise _too_many(len(key), most)
    low = ((value > 0) & small) | ((value < 0) & large)
    high = ((value < 0) & small) | ((value > 0) & large)
    return Products(key // n, key % n, value, full, low, high, cell)


def _too_many(count: int, most: int) -> UnsupportedError:
    return UnsupportedError(
        f"the interactions make about {count} products of two choices, more than the {most} that a linear program is "
        "built for; forbid choices, keep fewer pairs or vectors, or use a solver that takes interactions as they are"
    )


def _expanded(
    problem: Problem, row: IntArray, vectors: FloatArray, eigenvalues: FloatArray, most: int
) -> tuple[IntArray, FloatArray]:
    """The pairs behind a basis: Σ_i e_i v_ai v_bi for each two choices of different groups."""
    used = np.flatnonzero((vectors * eigenvalues != 0).any(axis=1))
    if len(used) > MOST_VECTORS:
        raise _too_many(len(used) * (len(used) - 1) // 2, most)
    v = vectors[used]
    table = (v * eigenvalues) @ v.T
    group = problem.group_of[row[used]]
    a, b = np.nonzero(np.triu(group[:, None] != group[None, :]) & (table != 0))
    return np.stack([used[a], used[b]], axis=1), table[a, b]


def _completed(
    key: IntArray, value: FloatArray, group: IntArray, n: int
) -> tuple[IntArray, FloatArray, IntArray, BoolArray]:
    """Fill up pairs of groups that have most of their products: then Σ_b x_a·x_b = x_a is a tight row."""
    count = int(group[-1]) + 1
    cells, of, held = np.unique(group[key // n] * count + group[key % n], return_inverse=True, return_counts=True)
    size = np.bincount(group, minlength=count)
    whole = size[cells // count] * size[cells % count]
    dense = held >= FULL * whole
    first = np.concatenate([[0], np.cumsum(size)])
    kept = ~dense[of]
    keys, values, cell = [key[kept]], [value[kept]], [of[kept]]
    for c in np.flatnonzero(dense).tolist():
        g, h = divmod(int(cells[c]), count)
        a, b = np.arange(first[g], first[g + 1]), np.arange(first[h], first[h + 1])
        every = (a[:, None] * n + b[None, :]).ravel()
        filled = np.zeros(len(every))
        mine = of == c
        filled[np.searchsorted(every, key[mine])] = value[mine]
        keys.append(every)
        values.append(filled)
        cell.append(np.full(len(every), c))
    cell_of = np.concatenate(cell).astype(np.int64)
    return np.concatenate(keys), np.concatenate(values), cell_of, dense[cell_of]


def product_blocks(p: Products, offset: int) -> list[Block]:
    """Rows that tie each product variable (from `offset` on) to its two choices."""
    y = offset + np.arange(len(p.first))
    blocks = [  # Σ over the other group of x_a·x_b is x_a, or at most x_a where some are not here
        _sums(y[mask], end[mask], p.cell[mask], equal)
        for mask, equal in ((p.full, True), (~p.full & p.high, False))
        for end in (p.first, p.second)
        if mask.any()
    ]
    low = ~p.full & p.low
    if low.any():  # x_a + x_b − y ≤ 1
        count = int(low.sum())
        index = np.stack([p.first[low], p.second[low], y[low]], axis=1).ravel()
        value = np.tile(np.array([1, 1, -1]), count)
        none, one = np.full(count, -NONE), np.ones(count, np.int64)
        blocks.append(Block(np.arange(count + 1) * 3, index, value, none, one))
    return blocks


def _sums(y: IntArray, end: IntArray, cell: IntArray, equal: bool) -> Block:
    order = np.lexsort((end, cell))
    y, end, cell = y[order], end[order], cell[order]
    ends = np.flatnonzero((np.diff(end, append=-1) != 0) | (np.diff(cell, append=-1) != 0)) + 1
    count = len(ends)
    index = np.insert(y, ends, end[ends - 1])
    value = np.insert(np.ones(len(y), np.int64), ends, -1)
    lo = np.full(count, 0 if equal else -NONE, np.int64)
    indptr = np.concatenate([[0], ends]) + np.arange(count + 1)
    return Block(indptr.astype(np.int64), index, value, lo, np.zeros(count, np.int64))
