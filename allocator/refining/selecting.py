"""Which choices are worth a measurement, on how many samples, within a budget of passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from allocator.problem import Problem
from allocator.statement import BoolArray, FloatArray, IntArray, SameChoice

FORWARDS = 3.0
"""Forward passes that take about as long as one forward and backward pass."""
PREFIX = 0.5
"""Share of a forward pass that one measurement takes: blocks before the changed layer are remembered."""
FEWEST_POSITIONS = 32
"""Positions (images, tokens, texts) below which measured divergences are too noisy to solve with."""


@dataclass(frozen=True, eq=False)
class Selection:
    """rows: mask of the choices to be measured [N]. samples: on how many samples. passes: what that costs, about."""

    rows: BoolArray
    samples: int
    passes: float


def select(
    problem: Problem,
    near: Sequence[IntArray],
    untrusted: BoolArray,
    samples: int,
    positions: float,
    passes: float,
    resource: str,
) -> Selection:
    """All choices on all samples if the passes allow it; else fewer samples; else fewer choices.

    One choice on all samples takes half a forward pass, a sixth of a pass forward and back. With few passes the
    choices that remain are those that allocations close to the best ones consist of, ring by ring: their own choices,
    the next cheaper and the next dearer one of each group, and so on, the untrusted ones of a ring first. Groups that
    must take one label are measured at the same labels.

    Args:
        problem: whose choices.
        near: rows of allocations that may be close to the best [G] each; always measured.
        untrusted: choices whose predicted score is not to be relied on [N].
        samples: of the data that is searched on.
        positions: of one sample, the mean.
        passes: forward and backward passes over all these samples.
        resource: whose cost orders the choices of a group.
    """
    each = PREFIX / FORWARDS
    least = min(samples, max(2, int(np.ceil(FEWEST_POSITIONS / max(positions, 1.0)))))
    free = problem.free
    ring = np.where(untrusted, _rings(problem, near, resource) - 0.5, _rings(problem, near, resource))
    most = passes * samples / (each * least)
    order = np.argsort(np.where(free, ring, np.inf), kind="stable")
    certain = int((free & (ring <= 0)).sum())
    kept = np.zeros(problem.choice_count, np.bool_)
    kept[order[: max(certain, min(int(free.sum()), int(most)))]] = True
    kept = _same_labels(problem, kept & free)
    wanted = int(passes * samples / (each * max(int(kept.sum()), 1)))
    number = min(samples, max(least, wanted))
    return Selection(kept, number, each * float(kept.sum()) * number / samples)


def _rings(problem: Problem, near: Sequence[IntArray], resource: str) -> FloatArray:
    """How many steps of cost each choice is from the nearest one that is taken in its group [N]."""
    cost = np.asarray(problem.cost(resource), np.float64)
    ring = np.full(problem.choice_count, np.inf)
    for g in range(problem.group_count):
        own = np.arange(*problem.indptr[g : g + 2].tolist())
        own = own[problem.free[own]]
        place = {row: at for at, row in enumerate(own[np.argsort(cost[own], kind="stable")].tolist())}
        for rows in near:
            at = place[int(rows[g])]
            for row, other in place.items():
                ring[row] = min(ring[row], abs(other - at))
    return ring


def _same_labels(problem: Problem, kept: BoolArray) -> BoolArray:
    """With the choices of every group of a `same_choice` that bear a label which another of them is measured at."""
    code = problem.label_codes.code
    for coupling in problem.couplings:
        if isinstance(coupling, SameChoice):
            member = np.isin(problem.group_of, np.asarray(coupling.groups))
            kept = kept | (member & problem.free & np.isin(code, code[member & kept]))
    return kept


def untrusted_rows(problem: Problem, score: str, limit: float) -> BoolArray:
    """Choices whose remainder is more than that share of the score; none where no remainder was measured."""
    gap: Mapping[str, FloatArray] = problem.remainder
    if score not in gap:
        return np.zeros(problem.choice_count, np.bool_)
    return np.asarray(gap[score] > limit * np.abs(problem.scores[score]), np.bool_)
