"""refine(): from a profile to an allocation that measurements back, never worse than uniform on validation data."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator.applier.statistics import Statistics
from allocator.applying import fitted, layer_statistics
from allocator.budgets import apply_budgets
from allocator.errors import SolverError, UsageError
from allocator.faithfulness.held_out import HeldOut
from allocator.faithfulness.measuring import Losses, kept_parts, measured
from allocator.faithfulness.weights import Weights
from allocator.features import ALL
from allocator.hygiene import positive
from allocator.logit_sum import LogitSum
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.progress import Progress, silent
from allocator.protocols import Exactness, Limits
from allocator.refining import measuring
from allocator.refining.believing import Belief, beliefs
from allocator.refining.candidates import Candidate, by_measurement, by_profile, distinct, uniform
from allocator.refining.samples import cuts
from allocator.refining.selecting import Selection, select, untrusted_rows
from allocator.solution import Answer, Solution
from allocator.splitting import split
from allocator.statement import IntArray, Number
from allocator.tasks.batches import count
from allocator.tasks.guard import untouched
from allocator.tasks.measurement import Measured
from allocator.workload import Workload
from profilers._fast_path import opened
from profilers._trust import LIMIT

PASSES = 10.0
"""Forward and backward passes over the calibration data that measuring single choices may take unless told."""
NO_BUDGET = "there is no budget, so that nothing need be compressed: give one, such as weight_bytes=25%"


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
        beliefs: what interactions are worth, by each model that has them and on the validation data.
        reason: why the winner won, in words.
        passes: forward and backward passes that measuring single choices took, about.
        samples: of the calibration data that single choices were measured on.
        predictor: the logit sum of `problem`.
    """

    solution: Solution
    problem: Problem
    candidates: tuple[Candidate, ...]
    losses: tuple[Measured, ...]
    predicted: tuple[float, ...]
    gain: Measured | None
    beliefs: tuple[Belief, ...]
    reason: str
    passes: float
    samples: int
    predictor: LogitSum = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data: the winner, the reason, and every candidate with its figures."""
        return {
            "reason": self.reason,
            "passes": self.passes,
            "samples": self.samples,
            "gain_over_uniform": None if self.gain is None else vars(self.gain),
            "candidates": [
                {"name": one.name, "validation_kl": loss.value, "stderr": loss.stderr, "predicted_kl": predicted}
                for one, loss, predicted in zip(self.candidates, self.losses, self.predicted, strict=True)
            ],
            "interactions": [one.to_json() for one in self.beliefs],
            "choices": dict(self.solution.choices),
        }


def refine(
    workload: Workload,
    problem: Problem,
    *,
    budgets: Mapping[str, Number | str] | Sequence[str] | str | Number | None = None,
    passes: float = PASSES,
    signed: bool = False,
    seed: int = 0,
    jobs: int | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Refined:
    """Solve a profiled problem, measure the choices that its solution may rest on, solve again, and validate.

    1. The problem is solved as it is: without its interactions, and with a quarter, half, three quarters and all of
       them. Every feasible uniform allocation is measured on the last quarter of the calibration data; the best of
       them stays.
    2. Single choices are measured on the other three quarters (KL and logit deltas): all of them if ``passes`` allow,
       else on fewer samples, else those around these solutions, untrusted ones first. Choices that would look much
       better on data that they are fitted to are fitted to the first half of these three quarters and measured on the
       second (`allocator.applying.fitted`).
    3. It is solved again by measured divergences: without measured interactions, with the same shares of them, and by
       a search that predicts KL(p ‖ softmax(z + Σ δ)) of whole allocations.
    4. Every distinct allocation is measured on the last quarter, and the one of least KL is returned: never a worse one
       than the best uniform allocation there.

    Args:
        workload: the network and its data; the evaluation data are not looked at.
        problem: a profile of that network, one stored weight to a group, every choice with its action. Its loss is only
            where the search begins; what is minimised is the divergence.
        budgets: replace those of the problem, as in `solve`.
        passes: forward and backward passes over the calibration data for step 2, about; all else takes some more.
        signed: count interactions along directions of negative curvature too. They are left out unless asked for: their
            optimum is a gain that only the model knows (docs/refine.md).
        seed: of solvers and search.
        jobs: processes that share the measurements, as in `profile`.
        resume: a folder for finished measurements; what lies there is not measured again.
        progress: called as ``progress(stage, done, total)``.

    Raises:
        UsageError: no budget, or one on a loss; something else is minimised; passes not above 0; nothing feasible; too
            little calibration data; a choice or a group that cannot be measured, see `measuring`.
        ActionError: an action that cannot be done to its layer.
    """
    require_passes(passes)
    stated = apply_budgets(problem, budgets)
    _refuse(stated)
    tick = progress or silent
    parted = split(workload)
    begun = stated if signed else positive(stated)
    first, plain = by_profile(begun, seed), uniform(stated)
    if not first and not plain:
        raise UsageError("no allocation within the budgets was found: see what `allocator solve` says of the problem")
    known, scoring = fitted(parted, stated, tick)
    if known and scoring is parted:
        known = layer_statistics(workload, stated, tick)  # as it is applied in the end
    parted = Workload(parted.model, scoring.calibration, parted.evaluation, parted.task, parted.name)
    with nullcontext(str(resume)) if resume is not None else tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = _best(parted, stated, plain, known, folder, tick)
        selection = _selection(stated, [*first, *plain], workload, parted, passes)
        again, predictor = measuring.measured(parted, stated, selection, known, folder, jobs, tick)
        found = distinct([*plain, *first, *by_measurement(again, predictor, [*first, *plain], seed, tick)])
        losses = _validated(parted, again, found, known, folder, tick)
    order = sorted(range(len(found)), key=lambda i: losses.found[i].value)
    best = order[0]
    gain = losses.difference(0, best) if plain else None  # the uniform one is the first
    models = {"profile": stated, "measured": again}
    return Refined(
        solution=_stated(again, found[best], passes, signed, seed),
        problem=again,
        candidates=tuple(found[i] for i in order),
        losses=tuple(losses.found[i] for i in order),
        beliefs=tuple(beliefs(models, {**models, "profile": begun}, found, losses, parted)),
        predicted=tuple(predictor.predict(found[i].choice) for i in order),
        gain=gain,
        reason=_reason(found[best], losses.found[best], gain, bool(plain) and best == 0, losses.samples),
        passes=selection.passes,
        samples=selection.samples,
        predictor=predictor,
    )


@dataclass(frozen=True, kw_only=True)
class Given:
    """Takes the allocation that it is given to start from, so that the core checks and states it.

    The options say in a solution how it came about: ``passes`` and ``signed`` as given to `refine`, ``candidate`` the
    winner's names.
    """

    passes: float
    candidate: str
    signed: bool = False

    name: ClassVar[str] = "refine"
    features: ClassVar[frozenset[str]] = ALL
    exactness: ClassVar[Exactness] = Exactness.HEURISTIC
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """The start."""
        return Answer(choice=start)


def require_passes(passes: float) -> None:
    """Refuse what is no number of passes."""
    if not passes > 0:
        raise UsageError(f"passes={passes}: give a number above 0, such as {PASSES:g}")


def _refuse(problem: Problem) -> None:
    """What refining cannot mean."""
    if not problem.budgets:
        raise UsageError(NO_BUDGET)
    if list(problem.minimize) != ["loss"]:
        raise UsageError(
            f"the problem minimises {', '.join(problem.minimize)}, and refining minimises the divergence alone: give "
            "those as budgets, and minimise the loss"
        )
    if any(row.loss or row.score == measuring.SCORE for row in problem.budgets):
        raise UsageError(
            "a budget limits the loss, which refining measures anew: limit resources, and read the divergence off the "
            "result"
        )


def _stated(problem: Problem, winner: Candidate, passes: float, signed: bool, seed: int) -> Solution:
    given = Given(passes=passes, candidate=winner.name, signed=signed)
    solution = solve(problem, given, start=winner.choice.tolist(), seed=seed)
    if solution.allocation is None:
        raise SolverError(f"the core refuses the allocation of {winner.name}, which was feasible when it was found")
    return solution


def _selection(
    problem: Problem, first: Sequence[Candidate], workload: Workload, parted: Workload, passes: float
) -> Selection:
    resource = next((row.resource for row in problem.budgets if row.resource is not None), next(iter(problem.costs)))
    untrusted = np.zeros(problem.choice_count, np.bool_)
    for name in problem.loss.terms:
        untrusted |= untrusted_rows(problem, name, 2 * LIMIT + LIMIT**2)
    rows: list[IntArray] = [problem.indptr[:-1] + one.choice for one in first]
    whole = sum(map(count, workload.calibration))
    return select(problem, rows, untrusted, cuts=cuts(parted), whole=whole, passes=passes, resource=resource)


def _best(
    parted: Workload, problem: Problem, found: list[Candidate], known: Statistics, folder: Path, tick: Progress
) -> list[Candidate]:
    """The one of least divergence on the validation data."""
    if len(found) < 2:
        return found
    losses = _validated(parted, problem, found, known, folder, tick)
    return [min(zip(found, losses.found, strict=True), key=lambda one: one[1].value)[0]]


def _validated(
    parted: Workload, problem: Problem, found: Sequence[Candidate], known: Statistics, folder: Path, tick: Progress
) -> Losses:
    """Allocations measured on the validation data, once each."""
    parts = kept_parts(parted, folder / "validation", known)
    rows = [problem.indptr[:-1] + one.choice for one in found]
    taken = np.zeros(problem.choice_count, np.bool_)
    taken[np.concatenate(rows)] = True
    with untouched(parted.model), opened(parted):
        weights = Weights(parted.model, problem.replace(allowed=taken), known)
        return measured(HeldOut(parted), weights, rows, parts, tick)


def _reason(winner: Candidate, loss: Measured, gain: Measured | None, is_uniform: bool, samples: int) -> str:
    said = f"{winner.name}: KL {loss.value:.4g} ± {loss.stderr:.2g} on {samples} validation samples, the least"
    if gain is None:
        return f"{said}; no uniform allocation is within the budgets"
    if is_uniform:
        return f"{said}: no mix did better than the best uniform allocation, which is returned"
    sure = "" if gain.value > 2 * gain.stderr else ", which is within two standard errors of nothing"
    return f"{said}; {gain.value:.3g} ± {gain.stderr:.2g} less than the best uniform allocation{sure}"
