"""Branch and bound on a convex minorant in C, with a record of every node for the checker."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from allocator.certificate_dual import Stage
from allocator.engine import native
from allocator.engine.quadratic_minorant import Minorant
from allocator.statement import BoolArray, FloatArray, IntArray

ROOM = 60_000_000  # numbers that records may take: 480 MB, of which only those that are written are held
SWEEPS = 5
LEAVES = 2_000
STEP = 30.0  # of the multipliers, in units of the loss


@dataclass(frozen=True, eq=False)
class Grown:
    """What a search found, all in units of the form.

    parent, branch [nodes]: the node above (−1 at the root), and the choice of the part that was taken there (−1: none,
    the same restriction again). point [nodes, m], price [nodes, S]. closed: nothing better is left. lowest: bound of
    what is open. taken: a better allocation (rows of the part), of that worth; None without. begin [m]: point at the
    root. left [m]: choices that the root leaves. leaves [K, G]: allocations too near the best for a bound to exclude
    them; the checker evaluates them one by one.
    """

    minorant: Minorant
    parent: IntArray
    branch: IntArray
    point: FloatArray
    price: FloatArray
    root: float
    closed: bool
    lowest: float
    nodes: int
    taken: IntArray | None
    worth: float
    begin: FloatArray
    left: BoolArray
    leaves: IntArray


def grow(
    minorant: Minorant,
    worth: float,
    close: float,
    *,
    unit: float,
    most: int,
    seconds: float,
    begin: FloatArray | None = None,
    improve: bool = True,
) -> Grown | None:
    """Search below worth − close; None without the C extension.

    Args:
        minorant: of the choices that are left.
        worth: of the best allocation known.
        close: how far below the best a restriction may be left alone; below 0, where the checker has to look at every
            allocation that is as good to rounding.
        unit: what losses of about the best's size are.
        most: nodes.
        seconds: time.
        begin: parts of choices [m] to begin from.
        improve: go on below a better allocation once it is found; False where rows that round may refuse it.
    """
    kernels = native()
    if kernels is None:
        return None
    part = minorant.part
    m, groups, sides = len(part.group), len(part.start) - 1, len(part.limit)
    most = max(min(most, ROOM // (m + sides + 1)), 1)
    arrays = [
        part.start,
        part.group,
        np.ascontiguousarray(minorant.linear),
        np.ascontiguousarray(minorant.factor @ minorant.factor.T),
        np.ascontiguousarray(minorant.apart),
        part.column,
        part.limit,
        np.ascontiguousarray(minorant.spare),
        np.array([close, min(max(seconds, 0.0), 1e9), STEP * unit, part.form.least if improve else math.inf]),
    ]
    found, taken = np.array([worth]), np.zeros(groups, np.int64)
    point0 = 1.0 / np.diff(part.start)[part.group] if begin is None else begin.copy()
    parent, branch = np.empty(most, np.int64), np.empty(most, np.int64)
    point, price, bound = np.empty((most, m)), np.empty((most, sides)), np.empty(most)
    leaf = np.empty((LEAVES, groups), np.int64)
    counts, lowest = np.zeros(5, np.int64), np.array([-math.inf])
    left = np.ones(m, bool)
    results = [found, taken, point0, left, parent, branch, point, price, bound, leaf]
    at = [a.ctypes.data for a in arrays + results]
    numbers = [groups, m, sides, most, SWEEPS]
    frame = np.array([*numbers, *at, LEAVES, counts.ctypes.data, lowest.ctypes.data], np.int64)
    kernels.quadratic_tree(frame.ctypes.data)
    n = int(counts[0])
    return Grown(
        minorant,
        parent[:n].copy(),
        branch[:n].copy(),
        point[:n].copy(),
        price[:n].copy(),
        float(bound[: _chain(parent[:n], branch[:n])].max(initial=-math.inf)),
        bool(counts[2]),
        float(lowest[0]),
        int(counts[1]),
        taken if counts[3] else None,
        float(found[0]),
        point0,
        left,
        leaf[: int(counts[4])].copy(),
    )


def _chain(parent: IntArray, branch: IntArray) -> int:
    """Records of the root alone: the first, and those that go on with the same restriction."""
    if not len(parent):
        return 0
    goes_on = (branch[1:] < 0) & (parent[1:] == np.arange(len(parent) - 1))
    return 1 + int(np.argmin(goes_on)) if not goes_on.all() else len(parent)


def stage_of(grown: Grown, *, root: bool = False) -> Stage:
    """The search, or its root alone, as a stage of a certificate."""
    found, part = grown.minorant, grown.minorant.part
    last = _chain(grown.parent, grown.branch) if root else len(grown.parent)
    return Stage(
        lift=part.form.lift,
        rows=part.form.row[part.keep],
        side=part.form.stated[part.side],
        sign=part.sign,
        unit=part.unit,
        factor=found.factor,
        face=found.face,
        spare=found.spare,
        parent=grown.parent[:last],
        branch=grown.branch[:last],
        point=grown.point[:last],
        price=grown.price[:last],
    )


def prices_of(grown: Grown) -> tuple[float, ...]:
    """Prices per budget row of the problem, as at the last visit to the root."""
    part = grown.minorant.part
    linear = part.form.source.linear
    values = [0.0] * len(linear.problem.budgets)
    last = _chain(grown.parent, grown.branch) - 1
    for i, side in enumerate(part.form.stated[part.side].tolist()):
        price = math.ldexp(float(grown.price[last, i]), -part.form.lift) / float(part.unit[i])
        values[linear.rows[side].budget] += float(part.sign[i]) * max(price, 0.0)
    return tuple(values)
