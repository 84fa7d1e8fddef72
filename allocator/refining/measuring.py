"""Divergences and logit deltas of selected choices, as a score, interactions and a predictor of the same problem."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from allocator.actions import parse
from allocator.errors import UsageError
from allocator.logit_sum import LogitSum
from allocator.problem import Problem
from allocator.profiling import profile
from allocator.refining.selecting import Selection
from allocator.space import Rule, Space
from allocator.statement import Basis, IntArray, Loss
from allocator.workload import Workload
from profilers.kl import Kl

Progress = Callable[[str, int, int], None]
SCORE = "kl"


def measured(
    workload: Workload, problem: Problem, selection: Selection, folder: Path, jobs: int | None, progress: Progress
) -> tuple[Problem, LogitSum]:
    """The problem with measured divergences as its loss, interactions from the logit deltas, and what predicts both.

    Choices that were not measured are forbidden in it, and keep their other scores.

    Args:
        workload: its calibration data are measured on.
        problem: its choices carry actions on modules of the network.
        selection: choices and number of samples.
        folder: for finished parts and logit deltas.
        jobs: as in `profile`.
        progress: as in `profile`.

    Raises:
        UsageError: a choice without an action; a group that is not one stored weight of the network.
    """
    space = _space(problem, np.flatnonzero(selection.rows))
    statistic = Kl(samples=selection.samples, deltas=str(folder / "deltas"), interactions=True)
    found = profile(workload, space, statistic, progress, folder / "parts", jobs)
    place = _places(problem, found, np.flatnonzero(selection.rows))
    known = place >= 0
    score = np.where(known, found.scores[SCORE][place], problem.unary)
    stderr = np.where(known, found.stderr[SCORE][place], 0.0)
    bases = tuple(
        Basis(SCORE, one.eigenvalues, np.where(known[:, None], one.vectors[place], 0.0))
        for one in found.interactions
        if isinstance(one, Basis)
    )
    others = tuple(one for one in problem.interactions if one.score != SCORE)
    kept = problem.with_scores({SCORE: score}, {SCORE: stderr}, {SCORE: found.score_specs[SCORE]})
    remainder = {name: column for name, column in kept.remainder.items() if name != SCORE}
    stated = kept.replace(
        allowed=known & problem.free, loss=Loss({SCORE: 1.0}), interactions=(*others, *bases), remainder=remainder
    )
    predictor = LogitSum.load(folder / "deltas", found)
    deltas = np.where(known[:, None, None], predictor.deltas[place], predictor.deltas.dtype.type(0))
    return stated, LogitSum(stated, deltas, predictor.positions)


def separable(problem: Problem) -> Problem:
    """The same without the interactions of its loss."""
    terms = set(problem.loss.terms)
    return problem.replace(interactions=tuple(one for one in problem.interactions if one.score not in terms))


def scaled(problem: Problem, share: float) -> Problem:
    """The same with the interactions of its loss counted at that share."""
    terms = set(problem.loss.terms)
    return problem.replace(
        interactions=tuple(
            dataclasses.replace(one, eigenvalues=share * one.eigenvalues)
            if isinstance(one, Basis) and one.score in terms
            else one
            for one in problem.interactions
        )
    )


def _space(problem: Problem, rows: IntArray) -> Space:
    """One rule per group, by module names, with the actions of these rows; nothing for all other layers."""
    rules = []
    for group in problem.groups:
        own = [choice for choice in group.choices if choice.row in set(rows.tolist())]
        for choice in own:
            if choice.action is None:
                raise UsageError(
                    f"choice {choice.name!r} of group {group.name!r} has no action, so it cannot be measured: give "
                    "every choice one, or forbid it"
                )
        if own:
            names = "|".join(map(re.escape, group.modules))
            rules.append(Rule(modules=f"re:{names}", choices=tuple(dict(choice.action or {}) for choice in own)))
    return Space((*rules, Rule(modules="*", choices="skip")))


def _places(problem: Problem, found: Problem, rows: IntArray) -> IntArray:
    """Row of `found` that is the same action on the same weight, for these rows; −1 elsewhere [N]."""
    owner = {module: group.index for group in found.groups for module in group.modules}
    actions = [
        {parse(dict(choice.action)).to_json().__repr__(): choice.row for choice in group.choices if choice.action}
        for group in found.groups
    ]
    place = np.full(problem.choice_count, -1, np.int64)
    wanted = set(rows.tolist())
    for group in problem.groups:
        units = {owner[module] for module in group.modules if module in owner}
        own = [choice for choice in group.choices if choice.row in wanted]
        if own and len(units) != 1:
            raise UsageError(
                f"group {group.name!r} spans {len(units)} stored weights of the network ({', '.join(group.modules)}): "
                "refining measures one weight at a time; state the problem with one group per weight and couple them "
                "with same_choice"
            )
        for choice in own:
            key = parse(dict(choice.action or {})).to_json().__repr__()
            place[choice.row] = actions[next(iter(units))].get(key, -1)
    return place
