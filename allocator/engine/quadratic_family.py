"""Annealed allocations that are crossed and annealed again: what the search does where nothing is proved.

Runs of annealing end in optima that lie percents apart and share most choices. A child takes what two of them agree
on, either's choice elsewhere, and walks on from a lower heat. (Memetic algorithms: Moscato 1989.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from allocator.engine.quadratic_course import SLOWER, Course
from allocator.engine.quadratic_search import annealed
from allocator.statement import FloatArray, IntArray

EACH = 150  # proposals for each choice in one run
LARGE = 5_000  # choices above which one long run does more than many short ones, whose descents take as long
LEAST = 1e5  # proposals in one run
IN_ALL = 4e7  # proposals; where there are many choices, a fifth, as each takes longer
OPERATIONS = 2e9  # of all proposals, where W is not held and each costs as many as there are vectors
RUNS = 280
SHARE = 9  # runs for each first one
MEMBERS = 20
HOT = (3.0, 1e-2)  # of the loss: where first runs begin, over the number of groups, and at least
WARM = 0.3  # of that: where children begin
COLD = 3e-4  # of the loss: where all end
ABOVE = 1.5  # times the relaxation's prices: those of parts of choices are low
NEAR = 2e-2  # of the groups: two members that differ in fewer are one


@dataclass(eq=False)
class Member:
    """An allocation in the engine's form and its Σ value + Σ W."""

    taken: IntArray
    total: float


def breed(course: Course, prices: FloatArray, share: float = 1.0) -> None:
    """Anneal a few from the course's best, cross them, and hand everything to the course; by runs, not by time.

    Args:
        course: with an allocation.
        prices: of the rows in the form's units, upper sides and then lower ones [2R]: of the relaxation.
        share: of the runs.
    """
    form = course.form
    each, runs = _plan(course)
    runs = max(int(share * runs), 1)
    family: list[Member] = []
    first = min(runs // SHARE + 1, int(MEMBERS * max(1.0, math.sqrt(course.effort))))
    unit = max(abs(course.worth), course.spread, form.least)
    if unit <= 0:
        return
    prices = ABOVE * np.maximum(prices, _least(course, unit))
    hot = max(HOT[0] / form.groups, HOT[1]) * unit
    rng = np.random.default_rng(course.limits.seed)
    for run in range(runs):
        if course.late:
            return
        young = run < first or len(family) < 2
        begin = course.taken if young else _crossed(family, rng)
        found = annealed(
            form,
            begin,
            prices=prices,
            proposals=each,
            heat=(hot if young else WARM * hot, COLD * unit),
            seed=course.limits.seed + ((run + 16) << 32),
            seconds=course.limits.left,
            engine=course.engine,
        )
        if found is not None:
            course.offer(found)
            _join(family, Member(found, form.total(found)), first, NEAR * form.groups)


def _plan(course: Course) -> tuple[int, int]:
    """Proposals of a run, and runs."""
    form = course.form
    most = IN_ALL if form.choices <= LARGE else IN_ALL / 5
    if form.matrix is None:
        most = min(most, OPERATIONS / (1 + len(form.sign)))
    each = min(max(EACH * form.choices, LEAST), most) if form.choices <= LARGE else most * min(course.effort, 1.0)
    runs = max(int(course.effort * min(most / each, RUNS)), 1)
    return int(each / (SLOWER if course.numpy else 1)) + 1, runs


def _least(course: Course, unit: float) -> FloatArray:
    """Prices that no row goes below: a thousandth of the loss over all that the row's choices differ in [2R]."""
    form = course.form
    high = np.maximum.reduceat(form.column, form.start[:-1], axis=0).sum(axis=0)
    span = high - np.minimum.reduceat(form.column, form.start[:-1], axis=0).sum(axis=0)
    least = 1e-3 * unit / np.where(span > 0, span, 1.0)
    return np.concatenate([np.where(np.isfinite(form.hi), least, 0.0), np.where(np.isfinite(form.lo), least, 0.0)])


def _crossed(family: list[Member], rng: np.random.Generator) -> IntArray:
    i, j = rng.choice(len(family), 2, replace=False).tolist()
    mine = rng.random(len(family[i].taken)) < 0.5
    return np.asarray(np.where(mine, family[i].taken, family[j].taken))


def _join(family: list[Member], new: Member, most: int, near: float) -> None:
    """Into the family instead of its nearest if that is near, else of its worst; only where it is better."""
    apart = [int((one.taken != new.taken).sum()) for one in family]
    if family and min(apart) < max(near, 1):
        at = int(np.argmin(apart))
    elif len(family) < most:
        family.append(new)
        return
    else:
        at = max(range(len(family)), key=lambda i: family[i].total)
    if new.total < family[at].total:
        family[at] = new
