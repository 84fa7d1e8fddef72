"""Checks a dual tree: every node's bound and what it excludes are worked out anew, level by level, in numpy.

At a node, with Z = Fᵀy, the function of its stage is at least q·x + (FZ)·x − ½|Z|², and its prices bound that over
the choices alive. Groups with one choice left, k, give N_k· to the others (each pair once) and ν_k to the prices.
Choices whose bound reaches the target go; a node is closed when a group has none left. A node that is open must have
a child for every choice left of some group, or the same restriction once more. Whatever is left open at last bounds
the loss from below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from allocator.certificate_dual import DualTree, Stage
from allocator.checks.dual_stage import Base, base_of
from allocator.checks.lagrangian import EPSILON
from allocator.quadratic import Quadratic
from allocator.statement import BoolArray, FloatArray, IntArray

BLOCK = 2_000_000  # numbers looked at together
MOST_LEAVES = 5_000  # allocations evaluated one by one
TINY = 1e-12  # of a limit in its unit


@dataclass(frozen=True, eq=False)
class Covered:
    """lowest: no allocation's Σ value + Σ W is below it, or below the target. alive [N]: choices of what is open.

    leaves: allocations (rows [K, G]) that the bounds leave open and that alone are left of their restriction.
    """

    lowest: float
    alive: BoolArray
    leaves: IntArray
    proved: bool


def check_dual_tree(model: Quadratic, given: DualTree, objective: float, tolerance: float) -> Covered:
    """What the stages leave open of the allocations below objective − tolerance, or below the level they aim at."""
    linear, problem = model.linear, model.problem
    target = linear.total(objective)
    target -= max(target - linear.total(objective - tolerance), 0.0)
    if given.level is not None and given.level < objective:
        target = min(target, linear.total(given.level))
    alive, lowest = linear.free.copy(), -math.inf
    leaves = np.zeros((0, problem.group_count), np.int64)
    for stage in given.stages:
        found = _stage(model, stage, alive, target)
        if found is None:
            continue
        alive, lowest = found.alive, max(lowest, found.lowest)
        leaves = np.concatenate([leaves, found.leaves])
        if found.proved or not alive.any():
            break
    if alive.any() or len(leaves) > MOST_LEAVES:
        return Covered(lowest, alive, leaves, False)
    for rows in leaves:
        outcome = problem.evaluate(rows - problem.indptr[:-1])
        if outcome.feasible and linear.total(outcome.objective) < target:
            return Covered(min(lowest, linear.total(outcome.objective)), alive, leaves, False)
    return Covered(target, alive, leaves, True)


def _stage(model: Quadratic, stage: Stage, alive: BoolArray, target: float) -> Covered | None:
    base = base_of(model, stage)
    if base is None or not _shaped(stage, base) or (alive & ~_marked(len(alive), stage.rows)).any():
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        tree = _Tree(stage, base, alive[stage.rows], math.ldexp(target, stage.lift))
        tree.walk()
    opened = tree.open_leaves()
    single = tree.kept[opened].sum(axis=1) == len(base.start) - 1
    many = np.zeros(len(alive), bool)
    many[stage.rows] = tree.kept[opened[~single]].any(axis=0)
    leaves = stage.rows[np.nonzero(tree.kept[opened[single]])[1]].reshape(-1, len(base.start) - 1)
    lowest = tree.bound[opened].min() if len(opened) else math.inf
    return Covered(math.ldexp(float(lowest), -stage.lift), many, leaves, not len(opened))


def _marked(count: int, rows: IntArray) -> BoolArray:
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask


def _shaped(stage: Stage, base: Base) -> bool:
    """Whether the nodes can be meant: each after the one above it, with points and prices of the right shape."""
    count, m = len(stage.parent), len(base.group)
    if not count or stage.point.shape != (count, m) or stage.price.shape != (count, len(base.limit)):
        return False
    if stage.branch.shape != (count,) or stage.parent[0] != -1 or stage.branch[0] != -1:
        return False
    after = (stage.parent[1:] >= 0) & (stage.parent[1:] < np.arange(1, count))
    return bool(after.all() and ((stage.branch >= -1) & (stage.branch < m)).all())


class _Tree:
    """kept [K, m]: choices that a node leaves; closed [K]; bound [K]: of the node or what is above it."""

    def __init__(self, stage: Stage, base: Base, alive: BoolArray, target: float) -> None:
        count, m = stage.point.shape
        self.stage, self.base, self.target = stage, base, target
        self.kept = np.zeros((count, m), bool)
        self.closed = np.zeros(count, bool)
        self.bound = np.full(count, -math.inf)
        self.alive = alive
        self.depth = np.zeros(count, np.int64)
        above = stage.parent.tolist()
        for i in range(1, count):
            self.depth[i] = self.depth[above[i]] + 1

    def walk(self) -> None:
        """All nodes, those of one depth together."""
        block = max(BLOCK // len(self.base.group), 1)
        order = np.argsort(self.depth, kind="stable")
        ends = np.searchsorted(self.depth[order], np.arange(int(self.depth.max()) + 2))
        for first, last in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            for at in range(first, last, block):
                self._nodes(order[at : min(at + block, last)])

    def open_leaves(self) -> IntArray:
        """Nodes that are open and whose children do not cover them."""
        stage, group = self.stage, self.base.group
        count = len(stage.parent)
        covered = np.zeros(count, bool)
        child = np.arange(1, count)
        chain = child[stage.branch[1:] < 0]
        covered[stage.parent[chain]] = True
        split = child[stage.branch[1:] >= 0]
        above, row = stage.parent[split], stage.branch[split]
        _, first = np.unique(above * (len(group) + 1) + row, return_index=True)  # each choice counts once
        above, row = above[first], row[first]
        of = np.full(count, -1, np.int64)
        of[above] = group[row]
        mixed = np.zeros(count, bool)
        mixed[above[of[above] != group[row]]] = True
        have = np.bincount(above, self.kept[above, row], count)
        parents = np.unique(above)
        need = (self.kept[parents] & (group[None, :] == of[parents, None])).sum(axis=1)
        covered[parents] |= ~mixed[parents] & (have[parents] >= need)
        reached = np.ones(count, bool)
        for i in range(1, count):  # what lies below a node that is closed, or not covered, does not count
            p = stage.parent[i]
            reached[i] = reached[p] and not self.closed[p] and covered[p]
        return np.flatnonzero(reached & ~self.closed & ~covered)

    def _nodes(self, at: IntArray) -> None:
        stage, base = self.stage, self.base
        above, row = stage.parent[at], stage.branch[at]
        alive = np.where(above[:, None] >= 0, self.kept[above], self.alive)
        split = np.flatnonzero(row >= 0)
        mine = base.group[None, :] == base.group[row[split]][:, None]
        only = np.zeros_like(mine)
        only[np.arange(len(split)), row[split]] = True
        alive[split] &= ~mine | only
        before = np.where(above >= 0, self.bound[above], -math.inf)
        dead = np.where(above >= 0, self.closed[above], False)
        bound, reduced = self._bounds(at, alive)
        alive &= ~(bound[:, None] + reduced >= self.target)
        alive &= self._reachable(alive)
        self.bound[at] = np.maximum(before, np.where(np.isnan(bound), -math.inf, bound))
        self.kept[at] = alive
        empty = (np.add.reduceat(alive, base.start[:-1], axis=1, dtype=np.int64) == 0).any(axis=1)
        self.closed[at] = dead | empty | (self.bound[at] >= self.target)

    def _bounds(self, at: IntArray, alive: BoolArray) -> tuple[FloatArray, FloatArray]:
        """Bound of each restriction [L] and reduced costs [L, m], rounding taken off."""
        base = self.base
        starts, repeats = base.start[:-1], np.diff(base.start)
        count = np.add.reduceat(alive, starts, axis=1, dtype=np.int64)
        fixed = np.repeat(count == 1, repeats, axis=1)
        taken = (alive & fixed).astype(np.float64)
        bend = self.stage.point[at] @ base.factor
        pull = taken @ base.apart
        paid = taken @ base.spare.T
        price = np.maximum(self.stage.price[at], -paid * (1 - 4 * EPSILON * len(starts)))
        column = base.linear + bend @ base.factor.T + np.where(fixed, 0.5 * pull, pull) + price @ base.column
        square = (bend**2).sum(axis=1)
        size = base.size + np.sqrt(square)[:, None] * base.norm + pull + np.abs(price) @ base.column
        terms = len(starts) + base.factor.shape[1] + len(base.limit) + 8
        column = column - 4 * EPSILON * terms * size
        column[np.isnan(column)] = -np.inf
        least = np.minimum.reduceat(np.where(alive, column, np.inf), starts, axis=1)
        charge = price * base.limit
        wide = np.abs(least).sum(axis=1) + square + np.abs(charge).sum(axis=1)
        bound = least.sum(axis=1) - 0.5 * square - charge.sum(axis=1) - 4 * EPSILON * terms * wide
        return bound, column - np.repeat(least, repeats, axis=1)

    def _reachable(self, alive: BoolArray) -> BoolArray:
        """Choices with which the other groups can still keep each side."""
        base = self.base
        fits = np.ones_like(alive)
        for column, limit in zip(base.column, base.limit.tolist(), strict=True):
            least = np.minimum.reduceat(np.where(alive, column, np.inf), base.start[:-1], axis=1)
            room = limit + TINY * (1 + abs(limit)) - least.sum(axis=1)
            fits &= column - np.repeat(least, np.diff(base.start), axis=1) <= room[:, None]
        return fits
