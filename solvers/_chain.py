"""Groups in chains under one budget: as stages of the exact engine, and its answer within the stated row."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from allocator.engine.chain import Chain, Chained, solve_chain
from allocator.engine.knapsack import Knapsack, knapsack_of
from allocator.linear import Linear
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.statement import BoolArray, FloatArray, IntArray

MOST_STEPS = 20


@dataclass(frozen=True, eq=False)
class Answered:
    """rows: taken [G], None where nothing keeps the row or nothing was found. bound: on Σ value + Σ pairs.

    value: of the rows. price: of the row. limit: what stopped it short of the optimum: None, "time", "states" or
    "rounding".
    """

    rows: IntArray | None
    value: float
    bound: float
    price: float
    limit: str | None
    statistics: dict[str, Any]

    def choice(self, problem: Problem) -> IntArray | None:
        """Index within each group [G]."""
        return None if self.rows is None else self.rows - problem.indptr[:-1]


@dataclass(frozen=True, eq=False)
class Stages:
    """The groups as stages, chain after chain; between two chains a stage with a single choice that is nothing.

    rows [m]: the row of the problem behind each choice, −1 for nothing.
    """

    rows: IntArray
    start: IntArray
    value: FloatArray
    table: FloatArray
    begin: IntArray

    @staticmethod
    def of(
        linear: Linear, groups: IntArray, joined: BoolArray, value: FloatArray, pair: IntArray, pair_value: FloatArray
    ) -> Stages:
        """The stages of groups in the order of `chains`.

        Args:
            linear: the free choices.
            groups: chain after chain [G].
            joined: each one with the next [G − 1].
            value: of each row [N].
            pair: free rows of groups that are joined, each two once [M, 2].
            pair_value: [M].
        """
        problem = linear.problem
        free = np.flatnonzero(linear.free)
        first = np.searchsorted(free, problem.indptr)
        stage_of = np.arange(len(groups)) + np.concatenate([[0], np.cumsum(~joined)])
        size = np.ones(max(int(stage_of[-1]) + 1, 2), np.int64)  # after one group alone: nothing
        size[stage_of] = np.diff(first)[groups]
        start = np.concatenate([[0], np.cumsum(size)])
        begin = np.concatenate([[0], np.cumsum(size[:-1] * size[1:])])
        rows = np.full(start[-1], -1, np.int64)
        real = np.zeros(len(size), bool)
        real[stage_of] = True
        own = np.repeat(first[groups] - start[stage_of], size[stage_of])
        at = np.flatnonzero(np.repeat(real, size))
        rows[at] = free[at + own]
        stage = np.empty(len(groups), np.int64)
        stage[groups] = stage_of
        place = np.cumsum(linear.free) - 1 - first[problem.group_of]
        near = stage[problem.group_of[pair]]
        early = (near[:, 0] > near[:, 1]).astype(np.int64)
        a, b = np.take_along_axis(pair, early[:, None], 1)[:, 0], np.take_along_axis(pair, 1 - early[:, None], 1)[:, 0]
        left = near.min(axis=1)
        table = np.zeros(begin[-1])
        table[begin[left] + place[a] * size[left + 1] + place[b]] = pair_value
        return Stages(rows, start, np.where(rows >= 0, value[rows], 0.0), table, begin)

    @property
    def cells(self) -> int:
        """Of the tables between neighbours, and of the last one alone."""
        return int(self.begin[-1] + self.start[-1] - self.start[-2])

    def chain(self, knapsack: Knapsack) -> tuple[Chain, int]:
        """The engine's form: costs over each stage's least, by their common divisor, which is the unit."""
        cost = np.where(self.rows >= 0, knapsack.cost[self.rows], 0)
        least = np.minimum.reduceat(cost, self.start[:-1])
        over = cost - np.repeat(least, np.diff(self.start))
        unit = int(np.gcd.reduce(over)) or 1
        over //= unit
        most = int(np.maximum.reduceat(over, self.start[:-1]).sum())
        capacity = min((knapsack.capacity - sum(least.tolist())) // unit, most)
        return Chain(self.start, self.value, over, self.table, self.begin, max(capacity, -1)), unit

    def rows_of(self, taken: IntArray) -> IntArray:
        """The rows [G] of an allocation of the stages."""
        rows = self.rows[taken]
        return np.sort(rows[rows >= 0])


def solve_stages(stages: Stages, linear: Linear, *, tolerance: float, offset: float, limits: Limits) -> Answered:
    """The least Σ value + Σ tables that keeps the only row.

    A row of floats is rounded to integers, a little loose first: what is best there and keeps the stated row is
    best. Otherwise the tight one's must be as good; "rounding" is the limit where it is not.
    """
    knapsack = knapsack_of(linear)

    statistics = {"states": 0, "cuts": 0}
    whole = all(r.exact for r in linear.rows)  # integers decide in the engine already
    price = 0.0

    def solve(capacity: int) -> tuple[Chained, IntArray | None]:
        nonlocal price
        chain, unit = stages.chain(dataclasses.replace(knapsack, capacity=capacity))
        found = solve_chain(chain, tolerance=tolerance, gap=limits.gap, offset=offset, seconds=limits.left)
        statistics["states"] += found.states
        statistics["cuts"] += found.cuts
        price = knapsack.price(found.price / unit)
        return found, None if found.taken is None else stages.rows_of(found.taken)

    def kept(rows: IntArray | None) -> bool:
        return whole or rows is None or linear.problem.evaluate(rows - linear.problem.indptr[:-1]).feasible

    found, rows = solve(knapsack.capacity + 2 * knapsack.margin)
    bound, limit = found.bound, found.limit
    if knapsack.margin and not kept(rows):
        loose = found.value
        found, rows = solve(knapsack.capacity)
        limit = limit or found.limit or ("rounding" if found.value > loose + tolerance or not kept(rows) else None)
    for _ in range(MOST_STEPS):  # a float limit is loosened by what rounding may hide, but sums here are exact
        if rows is None or knapsack.margin or limit is not None or kept(rows):
            break
        found, rows = solve(sum(knapsack.cost[rows].tolist()) - 1)
        bound, limit = max(bound, found.bound), found.limit
    if rows is not None and not kept(rows):
        rows, limit = None, limit or "rounding"
    value = math.inf if rows is None else found.value
    return Answered(rows, value, min(bound, value), price, limit, statistics)
