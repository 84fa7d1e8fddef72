"""Bounds from convex minorants, each tighter than the last, and branch and bound until nothing better is left.

First W as it stands where it is convex; then the multipliers of the doubly nonnegative relaxation, looked at every few
iterations. Choices that a root excludes are gone for good: the certificate keeps that root as a stage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from allocator.certificate_dual import DualTree, Stage
from allocator.engine.quadratic_course import Course
from allocator.engine.quadratic_lift import Lift
from allocator.engine.quadratic_minorant import Minorant, part_of, plain
from allocator.engine.quadratic_tree import Grown, grow, prices_of, stage_of
from allocator.statement import BoolArray, FloatArray

DENSE = 600  # choices up to which minorants are made
FIRST = 4_000  # nodes on W as it stands
LOOK = 25  # iterations between two looks at the multipliers
SHRUNK = 0.8  # of the choices: with fewer the iteration goes on without the rest
TRIES = 2_000  # nodes after the first look, twice as many after each that is worth it
BETTER = 0.9  # of the gap: what is worth another search
WITHIN = 0.999  # of a gap that is asked for, likewise
LEVEL = 0.9995  # what the certificate aims at, between the two
SHARE = 0.4  # of the tolerance, for the search; the rest is for the check's rounding


@dataclass(eq=False)
class Proof:
    """What is known so far: `closed` once nothing better than the best is left, `bound` in units of the form.

    tolerance: what `optimal` leaves open. nodes: of all searches, about; steps: of the relaxation. short: a gap that
    the caller leaves open; −∞ for none.
    """

    course: Course
    tolerance: float
    nodes: int
    steps: int
    short: float = -math.inf
    stages: list[Stage] = field(default_factory=list)
    last: Grown | None = None
    bound: float = -math.inf
    closed: bool = False
    spent: int = 0
    iterations: int = 0

    def run(self) -> None:
        """Search until it is closed, or nodes, iterations or time are over."""
        form, course = self.course.form, self.course
        if course.best is None or form.choices > DENSE or course.numpy:
            return
        alive = np.ones(form.choices, bool)
        first = self._search(plain(part_of(form, alive)), FIRST)
        if first is None or self.closed:
            return
        alive = self._shrunk(first, alive)
        if self.steps:
            self._lifted(alive)
        elif not self.closed:
            self._search(first.minorant, self.nodes, first.begin)

    @property
    def certificate(self) -> DualTree | None:
        """The stages, and the last search as far as it came."""
        if self.last is None:
            return None
        level = None
        if self.short > 0:
            linear, form = self.course.form.source.linear, self.course.form
            level = linear.objective(form.down(self.course.worth - LEVEL * self.short))
        return DualTree((*self.stages, stage_of(self.last)), prices_of(self.last), level)

    @property
    def statistics(self) -> dict[str, Any]:
        """Nodes and iterations."""
        return {"nodes": self.spent, "iterations": self.iterations}

    @property
    def _unit(self) -> float:
        taken = self.course.taken
        own = float(np.abs(self.course.form.value[taken]).sum())
        return max(abs(self.course.worth), 1e-3 * own, self.course.form.least, 1e-300)

    def _lifted(self, alive: BoolArray) -> None:
        form, tried, most = self.course.form, math.inf, TRIES
        lift = Lift(part_of(form, alive), self._unit)
        best: tuple[float, Minorant, FloatArray] | None = None
        while lift.steps < self.steps and not self.course.late:
            lift.step(LOOK)
            self.iterations = lift.steps
            found = lift.minorant()
            root = self._search(found, 1, lift.parts)
            if root is None or self.closed:
                return
            if best is None or root.root > best[0]:
                best = (root.root, found, root.begin)
            if root.left.sum() <= SHRUNK * len(root.left):
                alive = self._shrunk(root, alive)
                lift = lift.narrowed(part_of(form, alive), np.flatnonzero(root.left))
                best, tried = None, math.inf
                continue
            gap = self.course.worth - best[0]
            if gap <= BETTER * tried:
                self._search(best[1], most, best[2])
                tried, most = gap, 2 * most
                if self.closed or self.spent > self.nodes:
                    return
        if best is not None and not self.closed:
            self._search(best[1], self.nodes - self.spent, best[2])

    def _search(self, minorant: Minorant, most: int, begin: FloatArray | None = None) -> Grown | None:
        """One search; a better allocation goes to the course, and the tightest of the searches is kept."""
        course = self.course
        if course.late and self.last is not None:
            return None
        found, realised = self._grown(minorant, most, begin, improve=True)
        if not realised:
            found, realised = self._grown(minorant, most, begin, improve=False)
        if found is None:
            return None
        bound = max(found.root, min(found.lowest, course.worth))
        self.closed = found.closed and realised
        if self.closed or bound > self.bound or self.last is None:
            self.last, self.bound = found, max(self.bound, bound)
        return found

    def _grown(
        self, minorant: Minorant, most: int, begin: FloatArray | None, *, improve: bool
    ) -> tuple[Grown | None, bool]:
        """A search, and whether the problem itself takes what it went below; rows that round may refuse it."""
        course, before = self.course, self.course.worth
        close = max(SHARE * self.tolerance, WITHIN * self.short) - minorant.rounding
        found = grow(
            minorant,
            before,
            close,
            unit=self._unit,
            most=max(most, 1),
            seconds=course.limits.left,
            begin=begin,
            improve=improve,
        )
        if found is None:
            return None, True
        self.spent += found.nodes
        for leaf in found.leaves:
            course.offer(minorant.part.keep[leaf])
        if found.taken is not None:
            course.begin(minorant.part.keep[found.taken])
        return found, course.worth <= (found.worth if improve else before) + course.form.least

    def _shrunk(self, root: Grown, alive: BoolArray) -> BoolArray:
        """The choices that a root leaves; it becomes a stage where it excludes some."""
        keep = root.minorant.part.keep[root.left]
        if len(keep) == int(alive.sum()):
            return alive
        self.stages.append(stage_of(root, root=True))
        fewer = np.zeros_like(alive)
        fewer[keep] = True
        return fewer
