"""Divergences and logit deltas of selected choices, as a score, interactions and a predictor of the same problem."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from allocator.applier.statistics import Statistics, digest
from allocator.logit_sum import LogitSum
from allocator.problem import Problem
from allocator.profiling import profile
from allocator.progress import Progress
from allocator.refining.menus import Menus, menus_of
from allocator.refining.selecting import Selection
from allocator.statement import Basis, IntArray, Loss, Notes
from allocator.workload import Workload
from profilers._groups import model_sha256
from profilers.kl import Kl

SCORE = "kl"


def measured(
    workload: Workload,
    problem: Problem,
    selection: Selection,
    statistics: Statistics,
    folder: Path,
    jobs: int | None,
    progress: Progress,
) -> tuple[Problem, LogitSum]:
    """The problem with measured divergences as its loss, interactions from the logit deltas, and what predicts both.

    Choices that were not measured are forbidden in it, with 0 as the score ``kl``; they keep their other scores. How
    many samples and choices were measured stands in ``meta.refine``.

    Args:
        workload: its calibration data are measured on.
        problem: its choices carry actions on modules of the network.
        selection: choices and number of samples.
        statistics: of the layers, for the choices that need them.
        folder: for finished parts and logit deltas.
        jobs: as in `profile`.
        progress: as in `profile`.

    Raises:
        UsageError: a choice without an action; a group that is not one stored weight of the network.
        ActionError: an action that cannot be done to its layer.
    """
    space = menus_of(problem, workload.model, selection.rows)
    deltas = folder / f"deltas-{_identity(workload, space, selection.samples, statistics)}"
    statistic = Kl(samples=selection.samples, deltas=str(deltas), interactions=True)
    found = profile(workload, space, statistic, progress, folder / "parts", jobs, statistics=statistics)
    place = _places(problem, space, found)
    known = place >= 0
    spec = {**found.score_specs[SCORE], "profiler": repr(dataclasses.replace(statistic, deltas=""))}
    kept = problem.with_scores(
        {SCORE: np.where(known, found.scores[SCORE][place], 0.0)},
        {SCORE: np.where(known, found.stderr[SCORE][place], 0.0)},
        {SCORE: spec},
    )
    bases = tuple(
        Basis(SCORE, one.eigenvalues, np.where(known[:, None], one.vectors[place], 0.0))
        for one in found.interactions
        if isinstance(one, Basis)
    )
    stated = kept.replace(
        allowed=known if problem.allowed is None else known & problem.allowed,
        loss=Loss({SCORE: 1.0}),
        interactions=(*(one for one in problem.interactions if one.score != SCORE), *bases),
        remainder={name: column for name, column in kept.remainder.items() if name != SCORE},
        notes=_noted(problem.notes, selection),
    )
    predictor = LogitSum.load(deltas, found)
    return stated, LogitSum(stated, predictor.deltas, predictor.positions, place)


def _places(problem: Problem, space: Menus, found: Problem) -> IntArray:
    """Row of `found` that measures each row; −1 for those that were not measured [N]."""
    place = np.full(problem.choice_count, -1, np.int64)
    for own in found.groups:
        wanted = {choice.name: choice.row for choice in problem.groups[space.groups[own.name]].choices}
        for choice in own.choices:
            place[wanted[choice.name]] = choice.row
    return place


def _identity(workload: Workload, space: Menus, samples: int, statistics: Statistics) -> str:
    """What the deltas depend on, so that a folder takes those of other choices or data beside them."""
    menus = [(unit, [(item.name, item.action.to_json()) for item in own]) for unit, own in space.menus.items()]
    data = workload.digests("calibration")
    everything = (model_sha256(workload.model), data, samples, menus, digest(statistics))
    return hashlib.sha256(repr(everything).encode()).hexdigest()[:16]


def _noted(notes: Notes, selection: Selection) -> Notes:
    if not (notes.meta is None or isinstance(notes.meta, Mapping)):
        return notes
    about = {"samples": selection.samples, "choices": int(selection.rows.sum())}
    return dataclasses.replace(notes, meta={**(notes.meta or {}), "refine": about})
