"""Checks `core`: fixes what the prices rule out, and exhausts the rest by a list program. Three levels:

1. The bound alone reaches total − tolerance.
2. Choices are fixed by reduced cost, and the budget and the target are moved to what sums of the surviving
   choices can reach (`allocator.checks.fixing`), until nothing is left that could be better.
3. A list program over the groups that keep several choices finds nothing better.

Whatever the prices, a proof is right: they only decide whether there is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from allocator.checks.fixing import TooManyError, fix
from allocator.checks.lagrangian import EPSILON, VANISHED, scan
from allocator.checks.listing import exhaust_several
from allocator.checks.slopes import exhaust_one
from allocator.linear import SMALL, Linear

MOST_STATES = 20_000_000


@dataclass(frozen=True)
class CoreCheck:
    """proved: no allocation of the separable view is below total − tolerance.

    bound: on Σ value, by the prices alone; infinite where a group has no free choice. level: what proved it (1
    bound, 2 fixing, 3 list program). better: total of an allocation found below. survivors: choices in groups that
    keep several. states: of the list program.
    """

    proved: bool
    bound: float
    level: int | None = None
    better: float | None = None
    survivors: int = 0
    states: int = 0


def exhaust(
    linear: Linear, values: Sequence[float], total: float, tolerance: float, most_states: int = MOST_STATES
) -> CoreCheck:
    """Look for an allocation with Σ value < total − tolerance that keeps every row (couplings aside).

    Args:
        linear: the separable view.
        values: a price per budget row of the problem.
        total: Σ value of the allocation in question.
        tolerance: half of it is kept for the rounding of the values themselves.
        most_states: at which the list program gives up.
    """
    found = scan(linear, values)
    if math.isinf(found.bound):
        return CoreCheck(True, found.bound, 1)
    if linear.power != 1 and total < SMALL:
        return CoreCheck(False, found.bound)
    target = total - tolerance / 2
    if found.bound >= target:
        return CoreCheck(True, found.bound, 1)
    if linear.power != 1:  # the values are powers as computed
        target += EPSILON * (8 + 16 * linear.power) * abs(total) + VANISHED * linear.problem.group_count
    try:
        survivors = fix(linear, found, target)
    except TooManyError:
        return CoreCheck(False, found.bound)
    if survivors is None:
        return CoreCheck(True, found.bound, 2)
    alive, groups = len(survivors.steps), len(survivors.start)
    if groups > most_states:
        return CoreCheck(False, found.bound, survivors=alive, states=groups)
    one = survivors.one_sided()
    listing = exhaust_several(survivors, most_states) if one is None else exhaust_one(one, most_states)
    if not listing.complete or listing.best is not None:
        better = None if listing.best is None else survivors.total + listing.best
        return CoreCheck(False, found.bound, None, better, alive, listing.states)
    return CoreCheck(True, found.bound, 3 if groups else 2, None, alive, listing.states)
