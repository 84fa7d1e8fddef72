"""The inputs' second moment of a layer, made ready for rounding its weights one column after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from allocator.actions import Action
from allocator.applier.moments import input_moment
from allocator.applier.weight import Weight
from allocator.errors import ActionError

Numbers: TypeAlias = npt.NDArray[np.float64]

DAMPING = 0.01
"""Share of the mean diagonal that is added to the diagonal: the data shows each direction only so well."""
_LEAST = 1e-8  # of the mean over all groups: what a group of inputs that are always 0 gets
_TRIES = 5  # tenfold damping each time; at 100 times the mean diagonal nothing but a wrong moment fails


@dataclass(frozen=True, eq=False)
class Curvature:
    """H = E[x xᵀ] of each group of inputs, over its mean diagonal, damped, its columns by falling diagonal.

    Attributes:
        order: [groups, columns], the column of the weight that stands at each place.
        place: [groups, columns], the other way round.
        moment: H [groups, columns, columns] in that order.
        feed: [groups, columns, columns], H = feedᵀ D feed with D diagonal and feed lower triangular, its diagonal 1:
            e H eᵀ = Σ_j d_j (e_j + Σ_{i<j} feed_ji e_i)².
        importance: diag H [groups, columns] in the order of the weight.
    """

    order: npt.NDArray[np.intp]
    place: npt.NDArray[np.intp]
    moment: Numbers
    feed: Numbers
    importance: Numbers


def curvature(weight: Weight, action: Action) -> Curvature:
    """Of a weight's layer, worked out once; ActionError if its input moment is missing or cannot be one."""
    return weight.remember("curvature", lambda: _prepared(weight, action))


def _prepared(weight: Weight, action: Action) -> Curvature:
    moment: Numbers = input_moment(weight, action).cpu().numpy()
    mean = np.diagonal(moment, axis1=1, axis2=2).mean(1)
    unit = mean.mean() if mean.mean() > 0 else 1.0
    moment, mean = moment / unit, np.maximum(mean / unit, _LEAST)
    order = np.argsort(-np.diagonal(moment, axis1=1, axis2=2), axis=1, kind="stable")
    moment = np.take_along_axis(np.take_along_axis(moment, order[:, :, None], 1), order[:, None, :], 2)
    damped, feed = _factored(moment, DAMPING * mean, action)
    place = np.argsort(order, axis=1)
    importance = np.take_along_axis(np.diagonal(damped, axis1=1, axis2=2), place, 1)
    return Curvature(order, place, damped, feed, importance)


def _factored(moment: Numbers, damping: Numbers, action: Action) -> tuple[Numbers, Numbers]:
    """The damped moment and its `Curvature.feed`, damped further where that fails.

    A Cholesky decomposition from the last column backwards: what comes later in the order makes up for what came
    earlier. The inverse of H, whose own decomposition says the same, is never formed.
    """
    identity = np.eye(moment.shape[1])
    for _ in range(_TRIES):
        damped = moment + damping[:, None, None] * identity
        try:
            upper = np.linalg.cholesky(damped[:, ::-1, ::-1])[:, ::-1, ::-1]
        except np.linalg.LinAlgError:
            damping = 10 * damping
            continue
        feed = np.ascontiguousarray((upper / np.diagonal(upper, axis1=1, axis2=2)[:, None, :]).transpose(0, 2, 1))
        return damped, feed
    raise ActionError(
        f"action {action.kind}: the input moment is no mean of products x xᵀ: it has directions of negative size; "
        "measure it again"
    )
