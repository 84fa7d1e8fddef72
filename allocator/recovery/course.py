"""The training itself: batches in a fixed order, measured as it would be stored, resumable."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module

from allocator.recovery.adam import Adam
from allocator.recovery.trainable import Trainable
from allocator.tasks.batches import count
from allocator.tasks.measurement import Measured, measure
from allocator.workload import Workload
from profilers._groups import model_sha256, versions
from profilers._parts import Parts, batch_seed
from profilers._progress import Progress, resumed

MEASUREMENTS = 20
"""How often a course is measured on what is held back."""
PATIENCE = 8
"""Measurements without a gain after which it ends."""
HELD_BYTES = 1 << 28
"""Logits of the float network that are held in memory; others are worked out again at every step."""
_STAGE = "recovery"


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

    def held_back(self) -> Measured:
        """KL(float ‖ student) per position on what is held back, of the student as it is stored."""
        return measure(self.parts, self.student, self.parts.model)["kl"]

    def loss(self, place: int) -> Tensor:
        """The same on a batch, as a mean with a gradient; in float32 at least."""
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
    """How a course went: steps taken, and the one after which the best state was found, 0 for the beginning."""

    steps: int
    best_step: int


class Course:
    """Adam on the numbers of a `Trainable`; run inside `untouched`, which hands modes and requires_grad back."""

    def __init__(self, trainable: Trainable, taught: Taught, *, steps: int, rate: float, seed: int) -> None:
        self.trainable = trainable
        self.taught = taught
        self.steps, self.rate, self.seed = steps, rate, seed
        self.every = max(1, steps // MEASUREMENTS)

    def run(self, start: float, parts: Parts, progress: Progress) -> Taken:
        """Train, and leave the student in its best state, as it is stored.

        Args:
            start: divergence on what is held back at the beginning, which is the first best.
            parts: where the state is kept after every measurement.
            progress: told after every step.
        """
        adam = Adam.begin(self.trainable.start, self.rate, self.steps)
        best, least, best_step = self.trainable.start, start, 0
        piece = parts.take(_STAGE)
        if piece is not None:
            adam.vector, adam.mean, adam.square = piece["vector"], piece["mean"], piece["square"]
            adam.done, best_step = (int(number) for number in piece["steps"])
            best, least = piece["best"], float(piece["least"])
            resumed(progress, _STAGE, adam.done, self.steps)
        self._freeze()
        while adam.done < self.steps and adam.done - best_step < PATIENCE * self.every:
            adam.step(self._gradient(adam.vector, adam.done))
            if adam.done % self.every == 0 or adam.done == self.steps:
                self.trainable.write(adam.vector)
                value = self.taught.held_back().value
                if value < least:
                    best, least, best_step = adam.vector.clone(), value, adam.done
                state = {"vector": adam.vector, "mean": adam.mean, "square": adam.square, "best": best}
                numbers = {"steps": torch.tensor([adam.done, best_step]), "least": torch.tensor(least).double()}
                parts.keep(state | numbers, _STAGE)
            progress(_STAGE, adam.done, self.steps)
        self.trainable.write(best)
        return Taken(adam.done, best_step)

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
