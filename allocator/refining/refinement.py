"""refine(): from a profile to an allocation that measurements back, never worse than uniform on validation data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.budgets import apply_budgets
from allocator.errors import UsageError
from allocator.faithfulness.held_out import HeldOut
from allocator.faithfulness.measuring import Losses, kept_parts, measured
from allocator.faithfulness.weights import Weights
from allocator.features import ALL
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.refining import measuring
from allocator.refining.candidates import Candidate, by_measurement, by_profile, distinct
from allocator.refining.selecting import Selection, select, untrusted_rows
from allocator.refining.splitting import split
from allocator.solution import Answer, Solution
from allocator.statement import IntArray, Number
from allocator.tasks.batches import count
from allocator.tasks.guard import untouched
from allocator.tasks.measurement import Measured
from allocator.workload import Workload
from profilers._fast_path import opened
from profilers._trust import LIMIT

PASSES = 20.0
"""Forward and backward passes over the calibration data that measuring may take unless told."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Refined:
    """What a refinement came to.

    Attributes:
        solution: the winner, checked by the core on `problem`.
        problem: the stated problem with the measured divergences ``kl`` as its loss; unmeasured choices are forbidden.
        candidates: every allocation that was validated, the best first.
        losses: their KL on the validation data in nats per position, with standard errors, in the same order.
        predicted: the same as the logit sum predicts it.
        gain: loss of the best uniform allocation less that of the winner, paired; None where none is feasible.
        reason: why the winner won, in words.
        passes: forward and backward passes that measuring took, about.
        predictor: the logit sum of `problem`.
    """

    solution: Solution
    problem: Problem
    candidates: tuple[Candidate, ...]
    losses: tuple[Measured, ...]
    predicted: tuple[float, ...]
    gain: Measured | None
    reason: str
    passes: float
    predictor: Any = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data: the winner, the reason, and every candidate with its figures."""
        return {
            "reason": self.reason,
            "passes": self.passes,
            "gain_over_uniform": None if self.gain is None else vars(self.gain),
            "candidates": [
                {"name": one.name, "validation_kl": loss.value, "stderr": loss.stderr, "predicted_kl": predicted}
                for one, loss, predicted in zip(self.candidates, self.losses, self.predicted, strict=True)
            ],
            "choices": dict(self.solution.choices),
        }


def refine(
    workload: Workload,
    problem: Problem,
    *,
    budgets: Mapping[str, Number | str] | Sequence[str] | str | Number | None = None,
    passes: float = PASSES,
    seed: int = 0,
    jobs: int | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Refined:
    """Solve a profiled problem, measure the choices that its solution may rest on, solve again, and validate.

    1. The problem is solved as it is: with its interactions, without them, and uniformly.
    2. Single choices are measured on three quarters of the calibration data (KL and logit deltas): all of them if
       ``passes`` allow, else on fewer samples, else those around these solutions, untrusted ones first.
    3. It is solved again by measured divergences: additive, with measured interactions, and by a search that predicts
       KL(p ‖ softmax(z + Σ δ)) of whole allocations.
    4. Every distinct allocation is measured on the last quarter, and the one of least KL is returned. The best uniform
       allocation within the budgets is one of them, so the result is never worse than uniform there.

    Args:
        workload: the network and its data; the evaluation data are not looked at.
        problem: a profile of that network, one stored weight to a group, every choice with its action.
        budgets: replace those of the problem, as in `solve`.
        passes: forward and backward passes over the calibration data for step 2, about.
        seed: of solvers and search.
        jobs: processes that share the measurements, as in `profile`.
        resume: a folder for finished measurements; what lies there is not measured again.
        progress: called as ``progress(stage, done, total)``.

    Raises:
        UsageError: no budget; passes not above 0; nothing feasible; too little calibration data; see `measuring`.
    """
    if not passes > 0:
        raise UsageError(f"passes={passes}: give a number above 0, such as {PASSES:g}")
    stated = apply_budgets(problem, budgets)
    if not stated.budgets:
        raise UsageError("there is no budget, so that nothing need be compressed: give one, such as weight_bytes=25%")
    tick = progress or (lambda stage, done, total: None)
    parted = split(workload)
    first = by_profile(stated, seed)
    if not first:
        raise UsageError("no allocation within the budgets was found: see what `allocator solve` says of the problem")
    selection = _selection(stated, first, parted, passes)
    with nullcontext(str(resume)) if resume is not None else tempfile.TemporaryDirectory() as folder:
        again, predictor = measuring.measured(parted, stated, selection, Path(folder), jobs, tick)
        found = distinct([*first, *by_measurement(again, predictor, first, seed, tick)])
        losses = _validated(parted, again, found, Path(folder) / "validation", tick)
    order = sorted(range(len(found)), key=lambda i: losses.found[i].value)
    best, uniform = order[0], next((i for i, one in enumerate(found) if "uniform" in one.name.split("; ")), None)
    gain = None if uniform is None else losses.difference(uniform, best)
    return Refined(
        solution=solve(again, Given(), start=found[best].choice.tolist()),
        problem=again,
        candidates=tuple(found[i] for i in order),
        losses=tuple(losses.found[i] for i in order),
        predicted=tuple(predictor.predict(found[i].choice) for i in order),
        gain=gain,
        reason=_reason(found[best], losses.found[best], gain, best == uniform, losses.samples),
        passes=selection.passes,
        predictor=predictor,
    )


@dataclass(frozen=True, kw_only=True)
class Given:
    """Takes the allocation that it is given to start from, so that the core checks and states it."""

    name: ClassVar[str] = "refine"
    features: ClassVar[frozenset[str]] = ALL
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """The start."""
        return Answer(choice=start)


def _selection(problem: Problem, first: list[Candidate], parted: Workload, passes: float) -> Selection:
    resource = next((row.resource for row in problem.budgets if row.resource is not None), next(iter(problem.costs)))
    untrusted = np.zeros(problem.choice_count, np.bool_)
    for name in problem.loss.terms:
        untrusted |= untrusted_rows(problem, name, 2 * LIMIT + LIMIT**2)
    rows: list[IntArray] = [problem.indptr[:-1] + one.choice for one in first]
    batches = list(parted.calibration)
    samples = sum(map(count, batches))
    return select(problem, rows, untrusted, samples, _positions(parted) / samples, passes, resource)


def _positions(workload: Workload) -> float:
    """Positions of the calibration data that count, all together."""
    import torch

    from allocator.tasks.positions import per_sample

    task, total = workload.task, 0.0
    with untouched(workload.model), torch.no_grad():
        for batch in workload.calibration:
            shape = task.logits(workload.model, batch).shape[:-1]
            total += float(per_sample(torch.ones(shape), task.mask(batch))[1].sum())
    return total


def _validated(parted: Workload, problem: Problem, found: list[Candidate], folder: Path, tick: Progress) -> Losses:
    """Every candidate measured on the validation data."""
    parts = kept_parts(parted, folder)
    with untouched(parted.model), opened(parted):
        weights = Weights(parted.model, problem)
        rows = [problem.indptr[:-1] + one.choice for one in found]
        return measured(HeldOut(parted), weights, rows, parts, tick)


def _reason(winner: Candidate, loss: Measured, gain: Measured | None, is_uniform: bool, samples: int) -> str:
    said = f"{winner.name}: KL {loss.value:.4g} ± {loss.stderr:.2g} on {samples} validation samples, the least"
    if gain is None:
        return f"{said}; no uniform allocation is within the budgets"
    if is_uniform:
        return f"{said}: no mix did better than the best uniform allocation, which is returned"
    sure = "" if gain.value > 2 * gain.stderr else ", which is within two standard errors of nothing"
    return f"{said}; {gain.value:.3g} ± {gain.stderr:.2g} less than the best uniform allocation{sure}"
