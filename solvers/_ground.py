"""What a search adds up: a problem as columns whose sums over the groups give every row and the objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.errors import UnsupportedError
from allocator.evaluation import lexicographic, lower, upper
from allocator.linear import Linear, linearise
from allocator.problem import Problem
from allocator.statement import BoolArray, Cardinality, FloatArray, Implies, IntArray, MaxDistinct, Pairs
from solvers._axis import GIVE, Axis

LOSS, REST = 0, 1  # the first two float columns; those of float rows follow
MOST = 2**63 - 1


@dataclass(frozen=True, eq=False)
class Labels:
    """One max_distinct: `code` [N] numbers the labels that count, −1 for others; at most `count` of `kinds` labels."""

    code: IntArray
    kinds: int
    count: int
    groups: int


@dataclass(frozen=True, eq=False)
class Partners:
    """Pairs by choice: those of row r stand at start[r]:start[r+1] as the other row and the loss with it."""

    start: IntArray
    other: IntArray
    value: FloatArray


@dataclass(frozen=True, eq=False)
class Ground:
    """Columns of a problem [N, …], limits on their sums, and how the objective comes out of sums and maxima.

    exact [N, E], loose [N, L]: columns of integer and float rows; a float row gives up 1e-13 of its limits for the
    rounding of running sums. loose[:, 0] is the unary (a p-norm's: its power), less what a basis would count within a
    group; loose[:, 1] the resources of the objective. maxima: columns, least value and weight in the objective, the
    loss first where it is a maximum. vectors [N, R], eigenvalues [R]: all bases, term weights included. ceiling, floor:
    limits of the loss where interactions keep it from being a row. size: of each row, exact ones first.

    The axis orders the free choices of each group by cost; level [N] is the place of a choice in that order, counts [G]
    how many there are, movable the groups that have two or more.
    """

    problem: Problem
    linear: Linear
    axis: Axis
    movable: IntArray
    counts: IntArray
    level: IntArray
    exact: IntArray
    exact_lo: IntArray
    exact_hi: IntArray
    loose: FloatArray
    loose_lo: FloatArray
    loose_hi: FloatArray
    size: FloatArray
    labels: tuple[Labels, ...]
    maxima: tuple[tuple[NDArray[Any], float, float], ...]
    vectors: FloatArray
    eigenvalues: FloatArray
    partners: Partners | None
    loss_weight: float
    constant: float
    power: tuple[float, float] | None
    floor: float
    ceiling: float

    @staticmethod
    def of(problem: Problem) -> Ground | None:
        """The columns; None where some group has no choice within the largest cost allowed."""
        linear = _linear(problem)
        axis = Axis.of(linear)
        if axis is None:
            return None
        between = problem.active_interactions
        rows = [r for r in linear.rows if not (between and problem.budgets[r.budget].loss)]
        ints = [(r.column, r.lo, r.hi) for r in rows if r.exact] + _coupled(problem)
        floats = [(r.column, r.lo, r.hi) for r in rows if not r.exact]
        loss, power = _loss(problem)
        rest, constant, maxima = _rest(problem)
        columns = [column.astype(np.float64) for column in (loss, rest, *(c for c, _, _ in floats))]
        sizes = [float(np.abs(c.astype(np.float64)).sum()) or 1.0 for c, _, _ in (*ints, *floats)]
        vectors, eigenvalues = _bases(problem)
        limits = [b for b in problem.budgets if b.loss] if between else []
        counts = np.diff(np.append(axis.starts, len(axis.order)))
        level = np.zeros(problem.choice_count, np.int64)
        level[axis.order] = np.arange(len(axis.order)) - np.repeat(axis.starts, counts)
        return Ground(
            problem=problem,
            linear=linear,
            axis=axis,
            movable=np.flatnonzero(counts > 1),
            counts=counts,
            level=level,
            exact=_stacked([c for c, _, _ in ints], problem.choice_count).astype(np.int64),
            exact_lo=np.array([-MOST if lo is None else max(int(lo), -MOST) for _, lo, _ in ints], np.int64),
            exact_hi=np.array([MOST if hi is None else min(int(hi), MOST) for _, _, hi in ints], np.int64),
            loose=_stacked(columns, problem.choice_count),
            loose_lo=np.array([-np.inf, -np.inf, *(_low(lo) for _, lo, _ in floats)]),
            loose_hi=np.array([np.inf, np.inf, *(_high(hi) for _, _, hi in floats)]),
            size=np.array([*sizes[: len(ints)], 1.0, 1.0, *sizes[len(ints) :]]),
            labels=tuple(_labels(problem, c) for c in problem.couplings if isinstance(c, MaxDistinct)),
            maxima=maxima,
            vectors=vectors,
            eigenvalues=eigenvalues,
            partners=_partners(problem),
            loss_weight=problem.minimize.get("loss", 0.0),
            constant=constant,
            power=power,
            floor=max([_low(lower(b.min, False)) for b in limits if b.min is not None], default=-np.inf),
            ceiling=min([_high(upper(b.max, False)) for b in limits if b.max is not None], default=np.inf),
        )

    @property
    def lexicographic(self) -> bool:
        """Whether equal objectives are told apart by Σ unary."""
        return lexicographic(self.problem)


def _linear(problem: Problem) -> Linear:
    """The separable part for the repair: its rows hold, its values are the objective as far as that is separable."""
    cap = np.inf if lexicographic(problem) else None
    try:
        return linearise(problem, cap=cap, with_interactions=True)
    except UnsupportedError:
        plain = problem.replace(minimize={"loss": 1.0})
        return linearise(plain, cap=np.inf if lexicographic(plain) else None, with_interactions=True)


def _low(limit: float | None) -> float:
    return -np.inf if limit is None else float(limit) + GIVE * abs(float(limit))


def _high(limit: float | None) -> float:
    return np.inf if limit is None else float(limit) - GIVE * abs(float(limit))


def _stacked(columns: list[NDArray[Any]], length: int) -> NDArray[Any]:
    return np.ascontiguousarray(np.array(columns).reshape(len(columns), length).T)


def _loss(problem: Problem) -> tuple[FloatArray, tuple[float, float] | None]:
    """The column whose sum makes the loss, and for a p-norm (scale, p)."""
    unary = problem.unary
    if problem.loss.aggregate == "pnorm":
        scale, p = float(unary.max()) or 1.0, problem.loss.p or 1.0
        return (unary / scale) ** p, (scale, p)
    for weight, part in problem.active_interactions:
        if not isinstance(part, Pairs):
            unary = unary - 0.5 * weight * (part.vectors.astype(np.float64) ** 2 @ part.eigenvalues)
    return unary, None


def _rest(problem: Problem) -> tuple[FloatArray, float, tuple[tuple[NDArray[Any], float, float], ...]]:
    """The resources of the objective: Σ weight·cost of those that are sums, constants, and the maxima."""
    column, constant = np.zeros(problem.choice_count), 0.0
    maxima: list[tuple[NDArray[Any], float, float]] = []
    if problem.loss.aggregate == "max":
        maxima.append((problem.unary, -np.inf, 0.0))  # the loss has a weight of its own
    for name, weight in problem.minimize.items():
        if name == "loss":
            continue
        spec = problem.resources[name]
        costs = problem.cost(name).astype(np.float64)
        if spec.aggregate == "max":
            maxima.append((costs, float(spec.offset), weight))
        else:
            column = column + weight * costs
            constant += weight * spec.offset
    return column, constant, tuple(maxima)


def _coupled(problem: Problem) -> list[tuple[NDArray[Any], int | None, int | None]]:
    """Couplings that are rows: so many of some choices, and x_if − x_then ≤ 0."""
    rows: list[tuple[NDArray[Any], int | None, int | None]] = []
    for coupling in problem.couplings:
        column = np.zeros(problem.choice_count, np.int64)
        if isinstance(coupling, Cardinality):
            column[list(coupling.rows)] = 1
            least = None if coupling.kind == "at_most" else coupling.count
            most = None if coupling.kind == "at_least" else coupling.count
            rows.append((column, least, most))
        elif isinstance(coupling, Implies):
            column[coupling.if_row] += 1
            column[coupling.then_row] -= 1
            rows.append((column, None, 0))
    return rows


def _labels(problem: Problem, coupling: MaxDistinct) -> Labels:
    codes = problem.label_codes
    inside = np.zeros(problem.group_count, bool)
    inside[list(coupling.groups)] = True
    ignored = [c for c, text in enumerate(codes.table) if text in coupling.ignore]
    counted: BoolArray = inside[problem.group_of] & ~np.isin(codes.code, ignored)
    used, place = np.unique(codes.code[counted], return_inverse=True)
    code = np.full(problem.choice_count, -1, np.int64)
    code[counted] = place
    return Labels(code, len(used), coupling.count, len(coupling.groups))


def _bases(problem: Problem) -> tuple[FloatArray, FloatArray]:
    bases = [(w, part) for w, part in problem.active_interactions if not isinstance(part, Pairs)]
    if not bases:
        return np.zeros((problem.choice_count, 0)), np.zeros(0)
    vectors = np.concatenate([part.vectors.astype(np.float64) for _, part in bases], axis=1)
    return np.ascontiguousarray(vectors), np.concatenate([w * part.eigenvalues for w, part in bases])


def _partners(problem: Problem) -> Partners | None:
    pairs = [(w, part) for w, part in problem.active_interactions if isinstance(part, Pairs)]
    if not pairs:
        return None
    index = np.concatenate([part.index for _, part in pairs])
    value = np.concatenate([w * part.value for w, part in pairs])
    here = np.concatenate([index[:, 0], index[:, 1]])
    order = np.argsort(here, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(here, minlength=problem.choice_count))])
    return Partners(start, np.concatenate([index[:, 1], index[:, 0]])[order], np.concatenate([value, value])[order])
