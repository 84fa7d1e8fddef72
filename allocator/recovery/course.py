"""The training itself: batches in a fixed order, measured as it would be stored, resumable."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module

from allocator.progress import Progress, resumed
from allocator.recovery.adam import Adam
from allocator.recovery.trainable import Trainable
from allocator.tasks.batches import count
from allocator.tasks.guard import untouched
from allocator.tasks.measurement import Measured, ratio
from allocator.tasks.positions import divergence, per_sample
from allocator.workload import Workload
from profilers._groups import model_sha256, versions
from profilers._parts import Parts, batch_seed

MEASUREMENTS = 20
"""How often a course is measured on what is held back."""
PATIENCE = 2
"""Measurements in a row clearly above the least one after which it goes back to that, at a lower rate."""
LOWER = 4.0
"""By how much the rate is divided then."""
LOWEST = 1e-3
"""Of the first rate: below it the course ends."""
CLEAR = 2.0
"""Standard errors of a paired difference beyond which it is no chance."""
HELD_BYTES = 1 << 28
"""Logits of the float network that are held in memory; others are worked out again at every step."""
_STAGE = "recovery"


@dataclass(frozen=True, eq=False)
class Divergence:
    """KL(float ‖ compressed) on what is held back: Σ over the positions of each sample, and their numbers [N]."""

    sums: Tensor
    counts: Tensor

    @property
    def measured(self) -> Measured:
        """Its mean per position."""
        return ratio(self.sums, self.counts)

    @property
    def value(self) -> float:
        """The same without its error."""
        return self.measured.value

    def clearly_above(self, other: Divergence) -> bool:
        """Whether the samples agree that it is more than the other one."""
        found = ratio(self.sums - other.sums, self.counts)
        return found.value > CLEAR * found.stderr


class Taught:
    """A compressed network, what it is taught by, and on what.

    Attributes:
        student: packed.
        parts: teacher, task, data to train on (calibration) and held back (evaluation).
    """

    def __init__(self, student: Module, parts: Workload) -> None:
        self.student = student
        self.parts = parts
        self.batches = list(parts.calibration)
        self._known: dict[int, Tensor] = {}

    def held_back(self) -> Divergence:
        """Of the student as it is stored."""
        task, found = self.parts.task, []
        with untouched(self.student), torch.no_grad():
            for batch in self.parts.evaluation:
                logits = [task.logits(model, batch) for model in (self.parts.model, self.student)]
                found.append(per_sample(divergence(*logits), task.mask(batch)))
        sums, counts = zip(*found, strict=True)
        return Divergence(torch.cat(sums), torch.cat(counts))

    def loss(self, place: int) -> Tensor:
        """KL(float ‖ student) on a batch as a mean over positions with a gradient; in float32 at least."""
        batch, task = self.batches[place], self.parts.task
        teacher = self._teacher(place)
        logits = task.logits(self.student, batch)
        wide = torch.promote_types(logits.dtype, torch.float32)
        log_p, log_q = (torch.log_softmax(each.to(wide), -1) for each in (teacher, logits))
        found = (log_p.exp() * (log_p - log_q)).sum(-1)
        mask = task.mask(batch)
        return found.mean() if mask is None else found[mask].mean()

    def _teacher(self, place: int) -> Tensor:
        if place in self._known:
            return self._known[place]
        with torch.no_grad():
            logits = self.parts.task.logits(self.parts.model, self.batches[place])
        held = sum(one.nbytes for one in self._known.values())
        if held + logits.nbytes <= HELD_BYTES:
            self._known[place] = logits
        return logits


@dataclass(frozen=True)
class Taken:
    """How a course went: steps taken, and the one whose state was kept; 0 for the beginning."""

    steps: int
    kept: int


@dataclass
class _Best:
    """The state of least divergence so far, and how often in a row others were clearly above it."""

    vector: Tensor
    divergence: Divergence
    step: int
    misses: int = 0

    def offer(self, vector: Tensor, found: Divergence, step: int) -> None:
        """Take note of a measurement."""
        self.misses = self.misses + 1 if found.clearly_above(self.divergence) else 0
        if found.value < self.divergence.value:
            self.vector, self.divergence, self.step = vector.clone(), found, step


class Course:
    """Adam on the numbers of a `Trainable`; run inside `untouched`, which hands modes and requires_grad back."""

    def __init__(self, trainable: Trainable, taught: Taught, *, steps: int, rate: float, seed: int) -> None:
        self.trainable = trainable
        self.taught = taught
        self.steps, self.rate, self.seed = steps, rate, seed
        self.every = max(1, steps // MEASUREMENTS)

    def run(self, start: Divergence, limit: float, parts: Parts, progress: Progress) -> Taken:
        """Train, and leave the student in the state that is kept, as it is stored.

        Where measurements are clearly above the best one, it goes on from there with smaller steps: a network that is
        nearly exact bears only small ones. What is kept is the last state; but if that is above ``limit``, or clearly
        above the best one that was measured, the best one. A few held-back samples are too noisy for the least of
        twenty measurements to be the best of the states.

        Args:
            start: divergence at the beginning, which is the first best.
            limit: what the kept state's divergence must not exceed; at least that of the beginning.
            parts: where the state is kept after every measurement.
            progress: told after every step.
        """
        adam = Adam.begin(self.trainable.start, self.rate, self.steps)
        best, last = _Best(self.trainable.start, start, 0), start
        piece = parts.take(_STAGE)
        if piece is not None:
            adam.vector, adam.mean, adam.square = piece["vector"], piece["mean"], piece["square"]
            adam.done, adam.begun, step, misses = (int(number) for number in piece["numbers"])
            adam.rate = float(piece["rate"])
            best = _Best(piece["best"], Divergence(piece["best_sums"], start.counts), step, misses)
            last = Divergence(piece["last_sums"], start.counts)
            resumed(progress, _STAGE, adam.done, self.steps)
        self._freeze()
        while adam.done < self.steps and adam.rate >= LOWEST * self.rate:
            adam.step(self._gradient(adam.vector, adam.done))
            if adam.done % self.every == 0 or adam.done == self.steps:
                self.trainable.write(adam.vector)
                last = self.taught.held_back()
                best.offer(adam.vector, last, adam.done)
                if best.misses == PATIENCE:
                    adam.back(best.vector, adam.rate / LOWER)
                    best.misses, last = 0, best.divergence
                numbers = torch.tensor([adam.done, adam.begun, best.step, best.misses])
                state = {"vector": adam.vector, "mean": adam.mean, "square": adam.square, "numbers": numbers}
                state["rate"] = torch.tensor(adam.rate, dtype=torch.float64)
                sums = {"best_sums": best.divergence.sums, "last_sums": last.sums}
                parts.keep(state | sums | {"best": best.vector}, _STAGE)
            progress(_STAGE, adam.done, self.steps)
        if last.value <= limit and not last.clearly_above(best.divergence):
            best = _Best(adam.vector, last, adam.done)
        self.trainable.write(best.vector)
        return Taken(adam.done, best.step)

    def _gradient(self, vector: Tensor, step: int) -> Tensor:
        with torch.enable_grad(), self.trainable.at(vector) as leaves:
            return self.trainable.gradient(self.taught.loss(self._place(step)), leaves)

    def _place(self, step: int) -> int:
        """Every batch once, shuffled, then every batch once again, shuffled anew."""
        n = len(self.taught.batches)
        return _shuffled(n, batch_seed(self.seed, step // n))[step % n]

    def _freeze(self) -> None:
        """Let gradients go to what is trained, and nowhere else."""
        for parameter in self.taught.student.parameters():
            parameter.requires_grad_(False)
        for parameter in self.trainable.parameters:
            parameter.requires_grad_()


@cache
def _shuffled(n: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def kept_at(folder: str | Path | None, workload: Workload, model: Module, parts: Workload, course: Course) -> Parts:
    """Where the state of a course is kept: under a name that says all that it depends on."""
    if folder is None:
        return Parts()
    networks = [model_sha256(each) for each in (workload.model, model, course.taught.student)]
    data = [parts.digests("calibration"), parts.digests("evaluation"), [count(b) for b in parts.calibration]]
    options = (course.steps, course.rate, course.seed, repr(workload.task), versions())
    actions = [(one.packed.names, one.packed.action.to_json()) for one in course.trainable.gains]
    identity = repr((networks, data, options, actions, [p.shape for p in course.trainable.parameters]))
    return Parts(Path(folder), hashlib.sha256(identity.encode()).hexdigest())
