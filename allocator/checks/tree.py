"""Checks `tree`: grows the cover of the search space again, by the price vectors and the order it names.

1. Fixing. An allocation x with Σ value < target has, under every vector λ, bound(λ) + Σ_g reduced(λ, x_g) < target
   where reduced = priced value − its group's minimum ≥ 0: a choice with bound + reduced ≥ target goes. A choice
   goes too where the least that the other groups use breaks a row. What stays is all that such an x may use;
   on it uses are a base plus multiples of the divisor of all differences within groups, so that limits move to
   the nearest such number; and minima are larger. Repeated until nothing goes.
   Where the tree keeps a row of integers `whole`, the least priced value (other rows at their prices) of all
   groups within the limit of that row, by a dynamic programme from both ends, takes the place of the bound.
2. Nodes. Groups that keep several choices are split in order, all nodes of a block at once. A node is closed when
   a vector's bound for it reaches the target or the rest of the groups cannot keep a row. Proved when no node is
   open at the end: the closed nodes and the fixed choices cover every allocation.

Integers decide for exact rows. Floats: what rounding may add is taken off bounds and given to limits, so that
a check may fail but never proves what is false.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.certificate_tree import Tree
from allocator.checks.lagrangian import EPSILON
from allocator.checks.tree_rest import Rest
from allocator.checks.tree_steps import Steps, narrowed, stairs_of
from allocator.linear import SMALL, Linear
from allocator.statement import FloatArray, Number

MOST_NODES = 20_000_000
BLOCK = 1 << 13
ROUNDS = 20
NARROWINGS = 8
MOST_VECTORS = 256


@dataclass(frozen=True)
class TreeCheck:
    """proved: nothing that keeps the rows is below the target. nodes: looked at."""

    proved: bool
    nodes: int = 0


def check_tree(linear: Linear, tree: Tree, total: float, tolerance: float, most_nodes: int = MOST_NODES) -> TreeCheck:
    """Whether no allocation keeps every row (couplings aside) with Σ value < total − tolerance.

    Args:
        linear: separable view.
        tree: any; a bad one proves nothing.
        total: Σ value of the allocation in question; infinite to ask whether nothing is feasible at all.
        tolerance: absolute, on Σ value.
        most_nodes: more of them, and nothing is proved.
    """
    if math.isnan(total) or (linear.power != 1 and total < SMALL):
        return TreeCheck(proved=False)
    if not np.logical_or.reduceat(linear.free, linear.problem.indptr[:-1]).all():
        return TreeCheck(proved=True)
    target = min(total - tolerance / 2, _above_all(linear))
    vectors = _usable(linear, tree.vectors)
    rest = Rest.of(linear)
    if not _fixed(rest, vectors, target):
        return TreeCheck(proved=True)
    stairs = _usable(linear, tree.stairs)[1:]
    if stairs and isinstance(tree.whole, int):
        for _ in range(NARROWINGS):
            count = len(rest.choices)
            if not (narrowed(rest, tree.whole, stairs, target) and _fixed(rest, vectors, target)):
                return TreeCheck(proved=True)
            if len(rest.choices) == count:
                break
    bounds, reduced = rest.bounds(vectors)
    best = np.argsort(-bounds, kind="stable")
    spans = _ordered_spans(rest, tree.order)
    steps = stairs_of(rest, tree.whole, stairs, spans) if stairs and isinstance(tree.whole, int) else []
    return _exhausted(rest, bounds[best], reduced[best], spans, steps, target, most_nodes)


def _fixed(rest: Rest, vectors: list[tuple[float, ...]], target: float) -> bool:
    """Drop what no allocation below the target can use; False where nothing is left."""
    for _ in range(ROUNDS):
        if not rest.tighten():
            return False
        bounds, reduced = rest.bounds(vectors)
        if bounds.max() >= target:
            return False
        alive = ((bounds[:, None] + reduced).max(axis=0) < target) & rest.reachable()
        if alive.all():
            return True
        if not rest.narrow(alive):
            return False
    return rest.tighten() and bool(rest.bounds(vectors)[0].max() < target)


def _above_all(linear: Linear) -> float:
    """A number above the Σ value of every allocation."""
    most = np.maximum.reduceat(np.where(linear.free, linear.value, -np.inf), linear.problem.indptr[:-1])
    return math.fsum(most.tolist()) + 4 * EPSILON * math.fsum(np.abs(most).tolist()) + 1e-300


def _usable(linear: Linear, vectors: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    """The vectors as numbers, and zeros: at the end of a path these give its Σ value."""
    found = [(0.0,) * len(linear.problem.budgets)]
    for vector in list(vectors)[:MOST_VECTORS]:
        try:
            found.append(tuple(float(v) for v in vector))
        except (TypeError, ValueError, OverflowError):
            continue
    return found


@dataclass(frozen=True, eq=False)
class _Block:
    """Nodes of one depth: bounds [B, K], of stairs what is taken [B, S], uses per row [B]."""

    depth: int
    bounds: FloatArray
    paid: FloatArray
    uses: list[NDArray[Any]]


def _exhausted(
    rest: Rest,
    bounds: FloatArray,
    reduced: FloatArray,
    spans: list[tuple[int, int]],
    stairs: list[Steps],
    target: float,
    most_nodes: int,
) -> TreeCheck:
    tails = [_tails(row.use, spans) for row in rest.rows]
    paid = np.array([[s.base for s in stairs]])
    stack = [_Block(0, bounds[None], paid, [np.zeros(1, row.use.dtype) for row in rest.rows])]
    nodes = 0
    while stack:
        block = stack.pop()
        if block.depth == len(spans):
            return TreeCheck(proved=False, nodes=nodes)
        s, e = spans[block.depth]
        nodes += len(block.bounds) * (e - s)
        if nodes > most_nodes:
            return TreeCheck(proved=False, nodes=nodes)
        keep = block.bounds[:, :1] + reduced[0, s:e] < target
        uses = []
        for row, used, (least, most) in zip(rest.rows, block.uses, tails, strict=True):
            use = used[:, None] + row.use[s:e]
            if row.hi is not None:
                keep &= use + least[block.depth + 1] <= row.hi + row.slip
            if row.lo is not None:
                keep &= use + most[block.depth + 1] >= row.lo - row.slip
            uses.append(use)
        node, choice = np.nonzero(keep)
        wider = block.bounds[node] + reduced[:, s:e].T[choice]
        still = wider.max(axis=1) < target
        node, choice, wider = node[still], choice[still], wider[still]
        paid = block.paid[node]
        for i, stair in enumerate(stairs):
            use = uses[stair.row][node, choice]
            paid[:, i] += stair.column[s:e][choice]
            still = paid[:, i] + stair.rest(block.depth + 1, use) < target
            node, choice, wider, paid = node[still], choice[still], wider[still], paid[still]
        for first in range(0, len(node), BLOCK):
            part = slice(first, first + BLOCK)
            kept = [use[node[part], choice[part]] for use in uses]
            stack.append(_Block(block.depth + 1, wider[part], paid[part], kept))
    return TreeCheck(proved=True, nodes=nodes)


def _ordered_spans(rest: Rest, order: Sequence[int]) -> list[tuple[int, int]]:
    """First and last choice of each open group: the named groups in their order, then the others."""
    groups = rest.linear.problem.group_of[rest.choices[rest.indptr[:-1]]].tolist()
    place = {g: i for i, g in reversed(list(enumerate(order)))}
    ranked = sorted(range(len(groups)), key=lambda i: (place.get(groups[i], len(place) + len(order)), i))
    return [(int(rest.indptr[i]), int(rest.indptr[i + 1])) for i in ranked]


def _tails(use: NDArray[Any], spans: list[tuple[int, int]]) -> tuple[list[Number], list[Number]]:
    """Least and most use by the groups from each depth on."""
    least: list[Number] = [0]
    most: list[Number] = [0]
    for s, e in reversed(spans):
        least.append(least[-1] + use[s:e].min().item())
        most.append(most[-1] + use[s:e].max().item())
    return least[::-1], most[::-1]
