"""Which choices are worth a measurement, on how many samples, within a budget of passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from allocator.problem import Problem
from allocator.statement import BoolArray, FloatArray, IntArray, SameChoice

EACH = 1 / 6
"""Passes forward and back that one choice takes on all samples: half a forward pass, since blocks before the changed
layer are remembered. Measured on the networks of Fashion-MNIST: .17 to .19 on 256 images and .20 to .31 on 64, where
it shows what a call costs however few its images are."""


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
    *,
    cuts: Sequence[int],
    whole: int,
    passes: float,
    resource: str,
) -> Selection:
    """All choices on all samples if the passes allow it; else fewer samples; else fewer choices.

    With few passes the choices that remain are those that allocations close to the best ones consist of, ring by ring:
    their own choices, the next cheaper and the next dearer one of each group, and so on, the untrusted ones of a ring
    first. Groups that must take one label are measured at the same labels. The choices of ``near`` and the least
    number of samples are taken whatever they cost.

    Args:
        problem: whose choices.
        near: rows of allocations that may be close to the best [G] each; always measured.
        untrusted: choices whose predicted score is not to be relied on [N].
        cuts: numbers of samples that can be had, rising; below the first, divergences are too noisy to solve with.
        whole: samples that make a pass.
        passes: forward and backward passes over so many samples.
        resource: whose cost orders the choices of a group.
    """
    free = problem.free
    ring = _rings(problem, near, resource)
    ring = np.where(untrusted, ring - 0.5, ring)
    at_once = passes * whole / EACH  # samples times choices
    order = np.argsort(np.where(free, ring, np.inf), kind="stable")
    certain = int((free & (ring <= 0)).sum())
    kept = np.zeros(problem.choice_count, np.bool_)
    kept[order[: max(certain, int(min(float(free.sum()), at_once / cuts[0])))]] = True
    kept = _same_labels(problem, kept & free)
    number = max((cut for cut in cuts if cut * int(kept.sum()) <= at_once), default=cuts[0])
    return Selection(kept, number, EACH * float(kept.sum()) * number / whole)


def _rings(problem: Problem, near: Sequence[IntArray], resource: str) -> FloatArray:
    """How many steps of cost each choice is from the nearest one that is taken in its group [N]."""
    cost = np.asarray(problem.cost(resource), np.float64)
    ring = np.full(problem.choice_count, np.inf)
    for g in range(problem.group_count):
        own = np.arange(*problem.indptr[g : g + 2].tolist())
        own = own[problem.free[own]]
        own = own[np.argsort(cost[own], kind="stable")]
        taken = np.flatnonzero(np.isin(own, [rows[g] for rows in near]))
        ring[own] = np.abs(np.arange(len(own))[:, None] - taken).min(axis=1)
    return ring


def _same_labels(problem: Problem, kept: BoolArray) -> BoolArray:
    """With the choices of every group of a `same_choice` that bear a label which another of them is measured at."""
    code = problem.label_codes.code
    members = [
        np.isin(problem.group_of, np.asarray(one.groups)) for one in problem.couplings if isinstance(one, SameChoice)
    ]
    before = -1
    while before < int(kept.sum()):  # sets that share a group hand labels on
        before = int(kept.sum())
        for member in members:
            kept = kept | (member & problem.free & np.isin(code, code[member & kept]))
    return kept


def untrusted_rows(problem: Problem, score: str, limit: float) -> BoolArray:
    """Choices whose remainder is more than that share of the score; none where no remainder was measured."""
    gap: Mapping[str, FloatArray] = problem.remainder
    if score not in gap:
        return np.zeros(problem.choice_count, np.bool_)
    return np.asarray(gap[score] > limit * np.abs(problem.scores[score]), np.bool_)
