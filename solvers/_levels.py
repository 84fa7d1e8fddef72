"""Least cost under a limit on the loss, as least loss under a limit on the cost that comes down."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from allocator.engine.quadratic_model import compact
from allocator.linear import Row
from solvers._improving import Improving
from solvers._loss_search import LossSearch

HALVINGS = 12
LAST = 12  # levels just below the best, one after another
NEAR = 1e-3  # of what is left between the levels: where halving ends


def takes(search: LossSearch) -> bool:
    """Whether the objective is a sum over groups and only a max on the loss has to be kept."""
    model = search.model
    return not len(model.pair) and not len(model.eigenvalues) and search.row.lo == -math.inf


def lowered(search: LossSearch, bound: float, kicks: int) -> None:
    """Lower the best of the search: levels between it and a bound, halved, then just below the best.

    At each level the engine's local search looks for the least loss; a loss within the limit is an allocation no
    dearer than the level, which changes of one and two groups may lower yet. Nothing is concluded from a failure but
    where to look next.

    Args:
        search: with an allocation to begin from.
        bound: on the objective.
        kicks: at each level.
    """
    model, row, limits = search.model, search.row, search.limits
    value, loss = model.linear.value, row.model.linear
    assert search.best is not None
    least = np.minimum.reduceat(np.where(model.linear.free, value, np.inf), model.problem.indptr[:-1]).sum()
    low, high = max(float(least), model.linear.total(bound)), _worth(search)
    ceiling = Row(budget=-1, column=value, lo=None, hi=high, exact=False)
    under = dataclasses.replace(row.model, linear=dataclasses.replace(loss, rows=(*loss.rows, ceiling)))
    form, quiet = compact(under), dataclasses.replace(limits, report=None)
    ends = [search.best.rows]

    def lower(level: float) -> bool:
        """Whether the best of the search has been lowered to the level."""
        form.hi[-1] = level  # in place: all levels share one matrix of interactions
        inner = Improving(under, quiet, form)
        for rows in ends:
            inner.course.begin(np.searchsorted(form.row, rows))  # not as it is: the problem knows nothing of the level
        inner.kick(kicks)
        if inner.best is None:
            return False
        before = search.best
        ends[1:] = [inner.best.rows]
        search.offer(inner.best.rows)
        if search.best is before or search.best is None:
            return False
        search.begin(inner.best.rows)
        ends[0] = search.best.rows
        return True

    first = high - low
    for _ in range(HALVINGS):
        if limits.left <= 0 or high - low <= NEAR * first:
            break
        level = (low + high) / 2
        if lower(level):
            high = _worth(search)
        else:
            low = level
    for _ in range(LAST):
        if limits.left <= 0 or not lower(_worth(search) - search.least):
            return


def _worth(search: LossSearch) -> float:
    assert search.best is not None
    return float(search.model.linear.value[search.best.rows].sum())
