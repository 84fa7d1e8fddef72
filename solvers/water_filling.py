"""Reverse water-filling: exponential rate–distortion curves cut at one slope."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.features import LINEAR
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.statement import FloatArray
from solvers._axis import Axis
from solvers._closing import closed
from solvers._level import shares
from solvers._stats import has_any, stat

FALLEN = math.log(100.0)  # a curve known at one place falls to a hundredth by the place where the loss is 0


@dataclass(frozen=True, kw_only=True)
class WaterFilling:
    """Shares out the budget where exponential loss curves a·exp(−b·cost) of the groups all have one slope.

    min Σ a_g exp(−b_g c_g) subject to Σ c_g ≤ budget: c_g = ln(a_g b_g / ν) / b_g within the group's least and
    largest cost, with the slope ν that uses up the budget, found exactly. Rounded to the choice of nearest cost
    (among those that no other of the group beats in cost and loss), then repaired. The curves are those of
    Collaborative Compression (Li et al., CVPR 2021); with a = n·G²·S², b = 2 ln 2/n for n weights of gradient
    variance G² and variance S², and costs in bits, they are those of Radio (2025).

    Stats, optional, for all groups or none: `rd_scale` a ≥ 0 in units of the loss, `rd_decay` b > 0 per unit of the
    budget's resource. Without them each curve is fitted to the group's own choices by regression of ln loss on
    cost, weighted by √loss, as Collaborative Compression does; what is not above 0 is left out (a group with
    losses below 0 is lifted first). A stat that is given in part is refused.

    polish: go on by local search from there; what comes out is then the work of the search.
    """

    polish: bool = False

    name: ClassVar[str] = "water_filling"
    features: ClassVar[frozenset[str]] = LINEAR - {"resource_objective"} | {"loss_budgets", "pnorm_loss"}
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ("rd_scale", "rd_decay")
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Fit or read the curves, fill to one slope, round, repair."""
        axis = Axis.of(linearise(problem))
        if axis is None:
            return Answer()
        given = has_any(problem, *self.stats)
        log_a, b = _given(problem, axis.linear.power) if given else fitted(axis)
        curved = (b > 0) & np.isfinite(b) & np.isfinite(log_a)
        decay = np.where(curved, b, 1.0)
        base = np.where(curved, (log_a + np.log(decay)) / decay, axis.lo)
        target = shares(base, np.where(curved, 1 / decay, 0.0), axis.lo, axis.hi, float(axis.room))
        told = {"curves": "stats" if given else "fitted"}
        return closed(axis, axis.nearest(target), limits, polish=self.polish, statistics=told)


def _given(problem: Problem, power: float) -> tuple[FloatArray, FloatArray]:
    """ln a and b [G] from the stats; of the p-th powers under a p-norm."""
    a = stat(problem, WaterFilling.name, "rd_scale", "loss of the rate–distortion curve at cost 0", least=-5e-324)
    b = stat(problem, WaterFilling.name, "rd_decay", "decay of its loss per unit of the budget's resource", least=0.0)
    with np.errstate(divide="ignore"):
        return power * np.log(a), power * b


def fitted(axis: Axis) -> tuple[FloatArray, FloatArray]:
    """ln a and b [G] of the curves through each group's front; nan where no choice is left to make.

    A front falls, so that b > 0. One with a single loss above 0 falls to a hundredth of it by its last cost.
    """
    linear, groups = axis.linear, len(axis.starts)
    owner = linear.problem.group_of[axis.front]
    cost = axis.cost[axis.front].astype(np.float64)
    loss = linear.value[axis.front]
    loss = loss - np.minimum(np.minimum.reduceat(loss, axis.front_starts), 0.0)[owner]
    used = loss > 0
    owner, x, y = owner[used], cost[used], loss[used]
    most = np.zeros(groups)
    np.maximum.at(most, owner, y)
    weight = np.sqrt(y / most[owner])

    def sums(values: FloatArray) -> FloatArray:
        return np.bincount(owner, values, groups).astype(np.float64)

    with np.errstate(divide="ignore", invalid="ignore"):  # groups without a loss above 0 come out as nan
        total, log = sums(weight), np.log(y)
        mean_x, mean_y = sums(weight * x) / total, sums(weight * log) / total
        dx, dy = x - mean_x[owner], log - mean_y[owner]
        slope = -sums(weight * dx * dy) / sums(weight * dx * dx)
    alone = (np.bincount(owner, minlength=groups) == 1) & (axis.hi > axis.lo)
    b = np.where(alone, FALLEN / np.where(alone, axis.hi - axis.lo, 1.0), slope)
    return mean_y + b * mean_x, b
