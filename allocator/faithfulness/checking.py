"""fidelity(): is what a problem predicts what happens to the network, on data that no profiler has seen?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allocator.applying import layer_statistics
from allocator.errors import AllocatorError, UsageError
from allocator.faithfulness.agreement import Points, repeatability
from allocator.faithfulness.allocations import (
    Region,
    Whole,
    main_resource,
    optimal_wholes,
    random_wholes,
    regions,
    single_rows,
    uniform_wholes,
)
from allocator.faithfulness.held_out import HeldOut
from allocator.faithfulness.judging import Judgement, judge
from allocator.faithfulness.measuring import NOISY, kept_parts, measured
from allocator.faithfulness.predicting import Predictor, predictors
from allocator.faithfulness.report import Fidelity
from allocator.faithfulness.weights import Weights
from allocator.formats.digest import content_sha256
from allocator.problem import Problem
from allocator.progress import Progress, silent
from allocator.statement import FloatArray, IntArray
from allocator.tasks.guard import untouched
from allocator.tasks.measurement import Measured
from allocator.workload import Workload
from profilers._fast_path import opened
from profilers._groups import model_sha256, versions

FEWEST_GROUPS = 4
"""Groups that a label must have for its ranking of groups to count."""


def fidelity(
    workload: Workload,
    problem: Problem | Mapping[str, Any] | str | Path,
    *,
    allocations: int = 160,
    singles: int | None = None,
    samples: int | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Fidelity:
    """Hold every score of a problem against KL(float ‖ compressed) measured on the workload's evaluation data.

    Measured are single choices (other layers as they are), random whole allocations in several regions, the uniform
    ones, and those that each score calls optimal at several budgets. A score predicts their loss by its sum over
    groups, and, if the problem has interactions of it, once more with them. See `judging.judge` for the verdict.
    Calibration data is only looked at to make sure that none of it is used. The model is left bit-identical.

    Args:
        workload: the float network, its evaluation data and task.
        problem: a `Problem` about that network, the path of a problem.json, or its row form; every choice with an
            action.
        allocations: random whole allocations, over all regions together.
        singles: single choices to measure, drawn at random; all for None, none for 0.
        samples: rows of evaluation data to use; all for None.
        seed: of all that is drawn.
        resume: a folder for finished measurements; what lies there is not measured again.
        progress: called as ``progress(stage, done, total)``.

    Raises:
        UsageError: a number below 0; calibration data of the problem among the evaluation data; a choice without an
            action.
        ActionError: the problem names modules that the network lacks.
    """
    for name, number, least in (("allocations", allocations, 0), ("singles", singles, 0), ("samples", samples, 2)):
        if number is not None and number < least:
            raise UsageError(f"{name} {number}: give {least} or more")
    stated, tick = _loaded(problem), progress or silent
    workload.check()
    warnings = _foreign(workload, stated)
    before = model_sha256(workload.model)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    resource = main_resource(stated)
    named, areas = predictors(stated), regions(stated, resource)
    alone = single_rows(stated, singles, rng)
    wholes = [*random_wholes(stated, areas, allocations, rng), *uniform_wholes(stated)]
    statistics = layer_statistics(workload, stated)
    parts = kept_parts(workload, None if resume is None else Path(resume), statistics)
    with untouched(workload.model), opened(workload):
        weights = Weights(workload.model, stated, statistics)
        wholes += optimal_wholes(stated, named, resource, parts, tick, seed)
        asked = [alone[i : i + 1] for i in range(len(alone))] + [whole.rows for whole in wholes]
        losses = measured(HeldOut(workload, samples), weights, asked, parts, tick)
    if model_sha256(workload.model) != before:
        raise AllocatorError(
            f"measuring changed the state of the model of {workload.name}: its forward pass must be rewriting its own "
            "parameters. Load it anew, and make forward leave them alone"
        )
    single, whole = _columns(losses.found[: len(alone)]), _columns(losses.found[len(alone) :])
    single_predicted = np.array([p.single(alone) for p in named]).reshape(len(named), -1)
    whole_predicted = np.array([p.whole([w.rows for w in wholes]) for p in named]).reshape(len(named), -1)
    kinds = np.array([one.kind for one in wholes])
    halves = losses.halves[:, len(alone) :]
    repeat = repeatability([halves[:, kinds == area.name] for area in areas])
    judgements = {
        predictor.name: _judged(
            stated, predictor, areas, alone, wholes, Points(single_predicted[i], *single),
            Points(whole_predicted[i], *whole), seed, repeat,
        )
        for i, predictor in enumerate(named)
    }  # fmt: skip
    spread = _relative(whole)
    return Fidelity(
        workload=workload.name,
        problem=stated,
        predictors=tuple(named),
        regions=tuple(areas),
        singles=alone,
        single_loss=single[0],
        single_stderr=single[1],
        single_predicted=single_predicted,
        wholes=tuple(wholes),
        whole_loss=whole[0],
        whole_stderr=whole[1],
        whole_predicted=whole_predicted,
        judgements=judgements,
        samples=losses.samples,
        repeat=repeat,
        relative_stderr=spread,
        per=workload.task.per,
        warnings=(*warnings, *_noisy(spread, losses.samples)),
        about={
            "seed": seed,
            "problem": {"sha256": content_sha256(stated), "file_sha256": stated.file_sha256},
            "model_sha256": before,
            "versions": versions(),
        },
    )


def _loaded(problem: Problem | Mapping[str, Any] | str | Path) -> Problem:
    if isinstance(problem, Problem):
        return problem
    if isinstance(problem, Mapping):
        return Problem.from_rows(problem)
    from allocator.formats.problems import load_problem

    return load_problem(problem)


def _foreign(workload: Workload, problem: Problem) -> tuple[str, ...]:
    """Refuse a problem that was calibrated on the evaluation data; warn of one that was measured on other weights."""
    told = problem.notes.provenance or {}
    calibration = told.get("calibration")
    seen = set(calibration.get("sample_digests", ())) if isinstance(calibration, Mapping) else set()
    shared = sum(digest in seen for digest in workload.digests("evaluation"))
    if shared:
        raise UsageError(
            f"{shared} evaluation samples of {workload.name} are calibration samples of the problem: its scores would "
            "be judged by the data that they were made from. Profile on other data, or evaluate on other data"
        )
    sha = told.get("model_sha256")
    if sha is not None and sha != model_sha256(workload.model):
        return (
            "the problem was profiled on other weights than this network has (model_sha256 differs): what is judged "
            "here is how well its scores carry over",
        )
    return ()


def _columns(losses: Sequence[Measured]) -> tuple[FloatArray, FloatArray]:
    return np.array([m.value for m in losses], np.float64), np.array([m.stderr for m in losses], np.float64)


def _relative(whole: tuple[FloatArray, FloatArray]) -> float:
    """Median of stderr / loss over whole allocations that lose anything."""
    value, stderr = whole
    known = value > 0
    return float(np.median(stderr[known] / value[known])) if known.any() else float("nan")


def _noisy(spread: float, samples: int) -> tuple[str, ...]:
    if not spread > NOISY:
        return ()
    wanted = int(np.ceil(samples * (spread / NOISY) ** 2))
    return (
        f"the standard error of a measured loss is {spread:.0%} of it (median), over {samples} samples: give about "
        f"{wanted} evaluation samples for {NOISY:.0%}",
    )


def _judged(
    problem: Problem,
    predictor: Predictor,
    areas: Sequence[Region],
    rows: IntArray,
    wholes: Sequence[Whole],
    single: Points,
    whole: Points,
    seed: int,
    repeat: float,
) -> Judgement:
    kinds = np.array([one.kind for one in wholes])
    own = np.array([one.about.startswith(f"{predictor.name} at ") for one in wholes], np.bool_)
    alive = single.measured != 0  # choices that change no bit are predicted by anyone
    labels = problem.label_codes.code[rows]
    by_label = [single.where(alive & (labels == code)) for code in np.unique(labels).tolist()]
    others = {
        "uniform": whole.where(kinds == "uniform"),
        "optimal": whole.where(kinds == "optimal"),
        "optimal by it": whole.where((kinds == "optimal") & own),
    }
    return judge(
        {area.name: whole.where(kinds == area.name) for area in areas},
        others,
        single.where(alive) if alive.any() else None,
        [points for points in by_label if len(points.measured) >= FEWEST_GROUPS],
        predictor.in_nats,
        seed,
        repeat,
    )
