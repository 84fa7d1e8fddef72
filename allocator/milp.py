"""An allocation problem as a mixed-integer program in arrays, for no backend in particular.

Variables, all from 0 to 1: one per choice that may be taken, then one per product of two choices
(interactions), one per label (max_distinct), one per maximum (a largest cost or loss in the objective).
Each group's smallest value is taken out of the objective and of every row, exact rows are divided by their
common divisor and stay int64; how a backend scales what is left is its own affair (`allocator.milp_scaled`
does it for those that compute in floats).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.errors import UnsupportedError
from allocator.linear import Linear, Row, linearise
from allocator.milp_terms import Block, Products, coupling_blocks, label_members, product_blocks, products, unit_block
from allocator.problem import Problem
from allocator.statement import BoolArray, FloatArray, IntArray, Number

MOST_PRODUCTS = 50_000
EPSILON = 4 * float(np.finfo(np.float64).eps)
DOUBT = 1e-9  # a float row is called hopeless only beyond this share of its size


@dataclass(frozen=True, eq=False)
class Maximum:
    """A maximum over groups in the objective: variable·span, where variable ≥ Σ share·x in each of the rows."""

    variable: int
    span: float
    rows: Block


@dataclass(frozen=True, eq=False)
class Milp:
    """min objective·x + constant over x in {0, 1} (maxima in [0, 1]), subject to blocks of rows.

    row: row of the problem behind each choice variable; start [G+1]: first choice variable of each group,
    of which exactly one is 1. labels: choice variables that carry each label of a max_distinct. hopeless: why
    nothing can be feasible, where that is plain.
    """

    problem: Problem
    linear: Linear
    row: IntArray
    start: IntArray
    objective: FloatArray
    constant: float
    blocks: tuple[Block, ...]
    products: Products
    labels: tuple[IntArray, ...]
    maxima: tuple[Maximum, ...]
    hopeless: str | None = None

    @property
    def variables(self) -> int:
        """How many there are."""
        return len(self.objective)

    @property
    def first_label(self) -> int:
        """The first label variable."""
        return len(self.row) + len(self.products.first)

    @cached_property
    def integer(self) -> BoolArray:
        """Variables that must be declared binary: choices and labels; the others follow from them."""
        mask = np.ones(self.variables, bool)
        mask[len(self.row) : self.first_label] = False
        mask[[m.variable for m in self.maxima]] = False
        return mask

    @cached_property
    def group_of(self) -> IntArray:
        """Group of each choice variable."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))

    def choice_of(self, x: NDArray[Any]) -> IntArray:
        """The allocation [G] that a vector means: the largest variable of each group."""
        part = x[: len(self.row)]
        hit = np.flatnonzero(part == np.maximum.reduceat(part, self.start[:-1])[self.group_of])
        first = hit[np.searchsorted(hit, self.start[:-1])]
        return np.asarray(self.problem.places[self.row[first]])

    def vector_of(self, choice: NDArray[Any]) -> FloatArray | None:
        """The 0/1 vector of an allocation [G]; None where it takes a choice that has no variable."""
        taken = self.variables_of(choice)
        if taken is None:
            return None
        x = np.zeros(self.variables)
        x[taken] = 1.0
        p = self.products
        x[len(self.row) : self.first_label] = x[p.first] * x[p.second]
        for i, members in enumerate(self.labels):
            x[self.first_label + i] = x[members].max()
        for m in self.maxima:
            x[m.variable] = max(m.rows.times(x), default=0.0)
        return x

    def variables_of(self, choice: NDArray[Any]) -> IntArray | None:
        """The choice variables [G] that an allocation takes, or None."""
        rows = self.problem.indptr[:-1] + choice
        taken = np.searchsorted(self.row, rows)
        inside = taken < len(self.row)
        return taken if inside.all() and (self.row[taken] == rows).all() else None

    def without(self, index: NDArray[np.int64], most: int) -> Milp:
        """The same with one more row: at most so many of these choice variables."""
        return replace(self, blocks=(*self.blocks, unit_block([index], [None], [most])))

    def tightened(self, budget: int, amount: float) -> Milp:
        """The same with the limits of one budget row drawn in by an amount in the row's own unit."""
        blocks = tuple(b.tightened(amount) if b.budget == budget else b for b in self.blocks)
        return replace(self, blocks=blocks)


def build(problem: Problem, *, cap: float | None = None, idle: bool = False, ceiling: float | None = None) -> Milp:
    """The program of a problem.

    Args:
        problem: any problem that sums, masks, products and maxima can say.
        cap: forbid unaries above it and minimise Σ unary (the second stage of a least maximum).
        idle: minimise nothing; any feasible allocation will do.
        ceiling: a total that some allocation reaches; choices that alone exceed it are left out (no interactions).

    Raises:
        UnsupportedError: a p-norm in a mixture, a negative weight on a maximum or p-norm, too many products.
    """
    linear, sums, constant, maxima = _objective(problem, cap, idle)
    if ceiling is not None and not maxima and not problem.active_interactions:
        least = _least(problem, linear.free, sums)
        room = max(ceiling - constant - math.fsum(least.tolist()), 0.0) * (1 + 1e-9) + EPSILON * abs(ceiling)
        linear = replace(linear, free=linear.free & (sums - least[problem.group_of] <= room))
    row = np.flatnonzero(linear.free)
    sizes = np.bincount(problem.group_of[row], minlength=problem.group_count)
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    if (sizes == 0).any():
        name = problem.group_names[int(np.argmin(sizes))]
        return _nothing(problem, linear, f"group {name!r} has no choice that may be taken")
    least = np.minimum.reduceat(sums[row], start[:-1])
    weight = 0.0 if idle or cap is not None else problem.minimize.get("loss", 0.0)
    pairs = _products(problem, row, weight)
    variable = np.full(problem.choice_count, -1, np.int64)
    variable[row] = np.arange(len(row))
    labels = label_members(problem, variable)
    objective = np.concatenate([sums[row] - np.repeat(least, sizes), weight * pairs.value, np.zeros(len(labels))])
    tops, floor = _maxima(problem, maxima, row, start, len(objective))
    model = Milp(
        problem=problem,
        linear=linear,
        row=row,
        start=start,
        objective=np.concatenate([objective, [t.span for t in tops]]),
        constant=constant + floor + math.fsum(least.tolist()),
        blocks=(),
        products=pairs,
        labels=labels,
        maxima=tops,
    )
    blocks: list[Block] = []
    for r in linear.rows:
        found = _budget_block(model, r)
        if isinstance(found, str):
            return replace(model, hopeless=found)
        if found is not None:
            blocks.append(found)
    blocks += coupling_blocks(problem, variable, model.first_label)
    blocks += product_blocks(pairs, len(row))
    return replace(model, blocks=tuple(blocks))


def _nothing(problem: Problem, linear: Linear, reason: str) -> Milp:
    none, ends = np.zeros(0, np.int64), np.zeros(problem.group_count + 1, np.int64)
    return Milp(problem, linear, none, ends, np.zeros(0), 0.0, (), Products.none(), (), (), reason)


def _objective(
    problem: Problem, cap: float | None, idle: bool
) -> tuple[Linear, FloatArray, float, list[tuple[float, FloatArray, float]]]:
    """The separable view, the summed part [N] with its constant, and (weight, column, floor) of each maximum."""
    if cap is not None or idle:
        value = np.zeros(problem.choice_count) if idle else problem.unary
        linear = replace(_rows_only(problem, cap), problem=problem, value=value, constant=0.0, power=1.0, scale=1.0)
        return linear, value, 0.0, []
    norm = problem.loss.aggregate == "pnorm" and problem.minimize.get("loss", 0.0) != 0.0
    if norm and list(problem.minimize) == ["loss"]:
        linear = linearise(problem)
        return linear, linear.value, 0.0, []
    if norm:
        raise UnsupportedError("a p-norm loss in a mixture is not linear; minimise it alone and limit the rest")
    value, constant = np.zeros(problem.choice_count), 0.0
    maxima: list[tuple[float, FloatArray, float]] = []
    for name, weight in problem.minimize.items():
        if weight == 0.0:
            continue
        largest = problem.loss.aggregate == "max" if name == "loss" else problem.resources[name].aggregate == "max"
        column = problem.unary if name == "loss" else problem.cost(name).astype(np.float64)
        offset = -math.inf if name == "loss" else float(problem.resources[name].offset)
        if largest and weight < 0:
            raise _backwards("the max loss" if name == "loss" else f"the largest {name!r}")
        if largest:
            maxima.append((weight, column, offset))
        else:
            value = value + weight * column
            constant += 0.0 if name == "loss" else weight * offset
    linear = replace(_rows_only(problem, None), problem=problem, value=value, constant=constant, power=1.0, scale=1.0)
    return linear, value, constant, maxima


def _backwards(what: str) -> UnsupportedError:
    return UnsupportedError(f"{what} has a negative weight in the objective; a linear program can only make it small")


def _rows_only(problem: Problem, cap: float | None) -> Linear:
    """Rows and masks, with whatever is minimised out of the way."""
    plain = problem
    if list(problem.minimize) != ["loss"]:
        plain = problem.replace(minimize={"loss": 1.0})
    return linearise(plain, cap=math.inf if cap is None else cap, with_interactions=True)


def _least(problem: Problem, free: BoolArray, column: FloatArray) -> FloatArray:
    return np.asarray(np.minimum.reduceat(np.where(free, column, np.inf), problem.indptr[:-1]))


def _products(problem: Problem, row: IntArray, weight: float) -> Products:
    """Products of choices, in the directions that the objective and the loss rows can exploit."""
    if problem.loss.aggregate != "sum" or not problem.active_interactions:
        return Products.none()
    rows = [b for b in problem.budgets if b.loss]
    small = weight > 0 or any(b.max is not None for b in rows)
    large = weight < 0 or any(b.min is not None for b in rows)
    if not small and not large:
        return Products.none()
    return products(problem, row, small=small, large=large, most=MOST_PRODUCTS)


def _maxima(
    problem: Problem, parts: Sequence[tuple[float, FloatArray, float]], row: IntArray, start: IntArray, first: int
) -> tuple[tuple[Maximum, ...], float]:
    """One variable per maximum, counted from the least value that it can have; and what those least values add."""
    found: list[Maximum] = []
    base = 0.0
    for weight, column, offset in parts:
        values = column[row]
        floor = max(offset, float(np.minimum.reduceat(values, start[:-1]).max()))
        span = float(values.max()) - floor
        base += weight * floor
        if span <= 0:
            continue
        share = np.maximum(values - floor, 0.0) / span
        above = np.flatnonzero(share > 0)
        group = np.searchsorted(start, above, side="right") - 1
        ends = np.flatnonzero(np.diff(group, append=-1)) + 1
        count = len(ends)
        rows = Block(
            indptr=np.concatenate([[0], ends]).astype(np.int64),
            index=above,
            value=share[above],
            lo=np.full(count, -np.inf),
            hi=np.zeros(count),
        )
        found.append(Maximum(first + len(found), weight * span, rows))
    return tuple(found), base


def _budget_block(model: Milp, row: Row) -> Block | str | None:
    """A budget row over the variables: None where it cannot bind, a reason where it cannot hold.

    Float limits give way by what taking the minima out may have rounded; whoever takes the answer checks it.
    """
    budget = model.problem.budgets[row.budget]
    column = row.column[model.row]
    least = np.minimum.reduceat(column, model.start[:-1])
    shifted = column - least[model.group_of]
    extra = model.products.value if budget.loss and model.problem.loss.aggregate == "sum" else np.zeros(0)
    base: Number
    low: Number
    reach: Number
    slip: Number
    doubt: Number
    if row.exact:
        base, reach, low, doubt, slip = int(least.sum()), int(_most(model, shifted).sum()), 0, 0, 0
    else:
        base, reach = math.fsum(least.tolist()), math.fsum(_most(model, shifted).tolist())
        low, reach = float(extra[extra < 0].sum()), reach + float(extra[extra > 0].sum())
        size = math.fsum(np.abs(least).tolist()) + reach - low
        doubt, slip = DOUBT * size, EPSILON * size
    nothing = f"{budget.name}: no allocation keeps the limit, whatever the other rows ask"
    lo = None if row.lo is None else row.lo - base - slip
    hi = None if row.hi is None else row.hi - base + slip
    if (hi is not None and hi < low - doubt) or (lo is not None and lo > reach + doubt):
        return nothing
    lo = None if lo is None or lo <= low - slip else lo
    hi = None if hi is None or hi >= reach + slip else hi
    if lo is None and hi is None:
        return None
    index = np.concatenate([np.flatnonzero(shifted), len(model.row) + np.flatnonzero(extra)])
    value = np.concatenate([shifted[shifted != 0], extra[extra != 0]]) if len(extra) else shifted[shifted != 0]
    if row.exact:
        unit = int(np.gcd.reduce(value))
        value = value // unit
        lo, hi = None if lo is None else -(-int(lo) // unit), None if hi is None else int(hi) // unit
        if lo is not None and hi is not None and lo > hi:
            return nothing
        return replace(Block.one(index, value, lo, hi, row.budget), unit=unit, reach=reach / unit)
    if lo is not None and hi is not None and lo > hi:
        return nothing
    return replace(Block.one(index, value, lo, hi, row.budget), reach=float(reach - low))


def _most(model: Milp, column: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.maximum.reduceat(column, model.start[:-1]))
