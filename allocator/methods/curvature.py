"""Interactions whose curvature points downhill: taken out of a loss, with how much was taken out written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from allocator.problem import Problem
from allocator.statement import Basis, FloatArray, Interaction, Loss

SMALL = 1e-12
"""Share of the largest |eigenvalue| below which one is rounding."""


def uphill(problem: Problem, score: str, note: str) -> Problem:
    """The loss without the axes of negative curvature in the bases of a score, own squares included.

    ½ Σ_i λ_i (Σ_g v_gi)² loses its terms λ_i < 0 altogether: those between groups with the basis, those of a choice
    alone, ½ λ_i v_i², from the score, which rises. What is left is convex along every axis. ``meta[note]`` says what
    share of Σ |λ_i| that was.
    """
    kept: list[Interaction] = []
    column = problem.scores[score].copy()
    down = size = 0.0
    for one in problem.interactions:
        if not isinstance(one, Basis) or one.score != score:
            kept.append(one)
            continue
        values, vectors = np.asarray(one.eigenvalues), np.asarray(one.vectors, np.float64)
        falls = values < 0
        column -= 0.5 * vectors[:, falls] ** 2 @ values[falls]
        down, size = down - float(values[falls].sum()), size + float(np.abs(values).sum())
        if not falls.all():
            kept.append(Basis(score, values[~falls], vectors[:, ~falls]))
    errors = {score: problem.stderr[score]} if score in problem.stderr else {}
    problem = problem.with_scores({score: column}, errors, {score: problem.score_specs[score]})
    return noted(problem.replace(interactions=tuple(kept)), note, {"dropped": down / size if size else 0.0})


def clipped(problem: Problem, score: str, name: str, note: str) -> Problem:
    """The whole quadratic of a score with its negative eigenvalues set to 0, as the new score ``name``, minimised.

    G has twice the score on its diagonal, the interactions off it, and 0 between choices of one group; of G = QΛQᵀ
    remains G₊ = QΛ₊Qᵀ. On an allocation x the loss is ½ xᵀG₊x: scores ½ diag(G₊) and a basis (λ₊, Q₊). It is never
    below ½ xᵀGx, and another number also where x takes one choice per group. ``meta[note]`` says what share of Σ |λ_i|
    was set to 0. The measured score and its interactions stay in the problem, outside the loss.
    """
    values, vectors = np.linalg.eigh(matrix(problem, score))
    size = float(np.abs(values).sum())
    up = values > SMALL * float(np.abs(values).max(initial=0.0))
    share = -float(values[values < 0].sum()) / size if size else 0.0
    column = 0.5 * vectors[:, up] ** 2 @ values[up]
    spec = {**problem.score_specs[score], "profiler": f"{score}, negative eigenvalues clipped"}
    problem = problem.with_scores({name: column}, None, {name: spec}).replace(loss=Loss({name: 1.0}))
    if up.any():
        problem = problem.replace(interactions=(*problem.interactions, Basis(name, values[up], vectors[:, up])))
    return noted(problem, note, {"dropped": share})


def matrix(problem: Problem, score: str) -> FloatArray:
    """G [N, N] with ½ xᵀGx the loss of an allocation x in that score, its interactions included."""
    found = np.zeros((problem.choice_count, problem.choice_count))
    for one in problem.interactions:
        if one.score != score:
            continue
        if isinstance(one, Basis):
            vectors = np.asarray(one.vectors, np.float64)
            found += (vectors * one.eigenvalues) @ vectors.T
        else:
            for ends in (one.index, one.index[:, ::-1]):
                np.add.at(found, (ends[:, 0], ends[:, 1]), one.value)
    found[problem.group_of[:, None] == problem.group_of] = 0.0
    np.fill_diagonal(found, 2 * problem.scores[score])
    return (found + found.T) / 2


def noted(problem: Problem, key: str, value: Mapping[str, Any]) -> Problem:
    """The problem with an entry in its ``meta``."""
    meta = problem.notes.meta if isinstance(problem.notes.meta, Mapping) else {}
    return problem.replace(notes=replace(problem.notes, meta={**meta, key: dict(value)}))


def dropped(problem: Problem, note: str) -> float:
    """The share that `uphill` or `clipped` wrote down; 0 where they did nothing."""
    meta = problem.notes.meta if isinstance(problem.notes.meta, Mapping) else {}
    return float(meta.get(note, {}).get("dropped", 0.0))
