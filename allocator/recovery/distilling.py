"""recover(): a compressed network brought nearer to the float one by what it stores besides its codes."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.nn import Module

from allocator.applier.modules import is_compressed
from allocator.applier.packed_units import packed_units
from allocator.errors import UsageError
from allocator.progress import Progress, silent
from allocator.recovery import norms
from allocator.recovery.course import Course, Taught, kept_at
from allocator.recovery.samples import parted
from allocator.recovery.trainable import Trainable
from allocator.tasks.batches import count
from allocator.tasks.guard import untouched
from allocator.tasks.measurement import Measured
from allocator.tasks.protocol import Batch
from allocator.workload import Workload
from profilers._fast_path import opened

RATE = 5e-3
"""Of the first step; of 1e-3 to 1e-2 the middle one is good from 2 to 4 bits."""


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What a recovery came to. Divergences are KL(float network ‖ compressed) per position on the held-back samples.

    Attributes:
        model: packed, as large as before; the given one is as it was.
        before: of the network as it was given.
        norms: with the running statistics of its batch norms taken anew and nothing else; None without such norms.
        after: of ``model``; at most ``before``. These samples had a say in what was kept, so it is a little too good.
        kept: what ``model`` is: ``given``, ``norms``, or the step after which it was kept, ``step 120``.
        steps: of training that were taken; fewer than asked where it went no further.
        asked: steps that were asked for.
        lr: rate of the first of them.
        seed: of the order of the batches.
        samples: rows that were trained on.
        held_back: rows that were measured on.
        parameters: numbers that were trained.
        seconds: on the clock.
    """

    model: Module = field(repr=False)
    before: Measured
    norms: Measured | None
    after: Measured
    kept: str
    steps: int
    asked: int
    lr: float
    seed: int
    samples: int
    held_back: int
    parameters: int
    seconds: float

    @property
    def provenance(self) -> dict[str, Any]:
        """What a checkpoint's header says of it; without clocks, so that equal runs write equal bytes."""
        return {"steps": self.steps, "kept": self.kept, "lr": self.lr, "seed": self.seed, "samples": self.samples}

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        divergences = {"before": self.before, "norms": self.norms, "after": self.after}
        return {
            "kl": {name: None if found is None else _plain(found) for name, found in divergences.items()},
            **{name: getattr(self, name) for name in ("kept", "steps", "asked", "lr", "seed", "samples", "held_back")},
            "parameters": self.parameters,
            "seconds": self.seconds,
        }


def recover(
    workload: Workload,
    model: Module,
    data: Iterable[Batch] | None = None,
    *,
    steps: int = 200,
    lr: float = RATE,
    seed: int = 0,
    progress: Progress | None = None,
    resume: str | Path | None = None,
) -> Recovered:
    """Train what a compressed network stores besides its codes to say what the float network says.

    First the running statistics of batch norms are taken anew, in one pass, and kept if that is better. Then Adam
    minimises the mean over positions of KL(float ‖ compressed), in nats, in biases and the affine parameters of norms
    (all parameters of one dimension that are not frozen) and in one gain exp(θ) for each row of each packed weight
    whose stored form takes it. Gains go into the stored scales; codes stay; no byte is added. Norms stay in evaluation
    mode. A tenth of the data, the last, is held back: on it the network is measured as it would be stored, before,
    in between and after. What comes out is never worse there than what came in: the last state, or if that is clearly
    above the best one measured (two standard errors of the difference), the best. Two such measurements in a row send
    it back to the best state with a quarter of the rate.
    Cost: about 1.3 passes forward and backward of a batch per step, less where the float network's logits are held.
    The same seed on as many threads gives the same bytes.

    Distillation is Hinton et al. 2015 (arXiv 1503.02531); of a quantised network's biases alone, Finkelstein et al.
    2019 (arXiv 1906.03193); statistics of norms taken anew after quantisation, Nagel et al. 2022 (arXiv 2203.11086).

    Args:
        workload: the float network, which is the teacher and is left as it was; task; evaluation data.
        model: compressed and packed, by `apply_` with packed=True or `load_compressed`; left as it was.
        data: batches, read once and held; default: the workload's calibration data.
        steps: of Adam, a batch each; 0 only takes the statistics anew.
        lr: see `allocator.recovery.adam`.
        seed: of the order of the batches.
        progress: called as ``progress(stage, done, total)``.
        resume: a folder; a run that was killed goes on from there, and ends with the same bytes.

    Raises:
        UsageError: a model without packed weights, a workload whose network is compressed itself, evaluation samples
            among the data, too few of them, numbers that cannot be meant.
    """
    _require(workload, model, steps, lr)
    began, tick = time.monotonic(), progress or silent
    parts = parted(workload, data)
    student = copy.deepcopy(model)
    with untouched(workload.model), opened(workload):
        taught = Taught(student, parts)
        before = least = taught.held_back()
        kept, anew = "given", None
        if norms.batch_norms(student):
            old = norms.statistics(student)
            norms.write(student, norms.estimated(student, parts.task, list(parts.calibration)))
            anew = taught.held_back()
            if anew.value < least.value:
                kept, least = "norms", anew
            else:
                norms.write(student, old)
        trainable = Trainable(student)
        parameters, taken = len(trainable.start), 0
        if steps and parameters:
            with untouched(student):
                course = Course(trainable, taught, steps=steps, rate=lr, seed=seed)
                found = course.run(least, before.value, kept_at(resume, workload, model, parts, course), tick)
                taken = found.steps
                if found.kept:
                    kept = f"step {found.kept}"
            least = taught.held_back()
    return Recovered(
        model=student, before=before.measured, norms=None if anew is None else anew.measured, after=least.measured,
        kept=kept, steps=taken, asked=steps, lr=lr, seed=seed,
        samples=sum(map(count, parts.calibration)), held_back=sum(map(count, parts.evaluation)),
        parameters=parameters, seconds=time.monotonic() - began,
    )  # fmt: skip


def _require(workload: Workload, model: Module, steps: int, lr: float) -> None:
    if not packed_units(model):
        raise UsageError(
            "the model has no packed weight to recover: apply_ a solution with packed=True, or load a checkpoint with "
            "load_compressed"
        )
    if any(is_compressed(module) for module in workload.model.modules()):
        raise UsageError(f"the network of {workload.name} is compressed: give a workload with the float one as teacher")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise UsageError(f"steps must be a whole number, 0 or more, got {steps!r}")
    if not (lr > 0 and math.isfinite(lr)):
        raise UsageError(f"lr must be a number above 0, got {lr!r}")


def _plain(found: Measured) -> dict[str, float | None]:
    return {key: number if math.isfinite(number) else None for key, number in vars(found).items()}
