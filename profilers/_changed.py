"""The loss of the network with some weights replaced, sample by sample, on the first calibration samples."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Literal

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.tasks.batches import count, first
from allocator.tasks.positions import divergence, per_sample
from allocator.tasks.protocol import Batch
from allocator.workload import Workload
from profilers._plan import Plan, Target

Measure = Literal["ce", "kl"]
"""The task's own loss, or the divergence from the float network."""


def first_batches(plan: Plan, samples: int | None) -> list[Batch]:
    """The first so many rows of calibration data, in the batches in which they come; all for None."""
    key = ("first batches", samples)
    if key not in plan.memory:
        plan.memory[key] = list(first(plan.workload.calibration, samples))
    found: list[Batch] = plan.memory[key]
    if sum(map(count, found)) < 2:
        raise UsageError(
            f"{plan.workload.name}: choices are to be measured on {sum(map(count, found))} calibration samples; "
            "2 are the least, some dozens better"
        )
    return found


def cut(plan: Plan, samples: int | None) -> Workload:
    """The workload with only these rows of calibration data."""
    own = plan.workload
    return Workload(own.model, first_batches(plan, samples), own.evaluation, own.task, own.name)


def changed_losses(
    plan: Plan, batches: Sequence[Batch], choices: Sequence[tuple[Target, int]], measure: Measure
) -> tuple[Tensor, Tensor]:
    """(rise of the loss, positions) [N] of each sample with these choices (target, place) made, float64.

    Runs in full, without gradients; the float network's logits are kept in ``plan.memory``.

    Raises:
        UsageError: ``ce``, and the task has no metric named ``loss``.
    """
    task, model = plan.workload.task, plan.workload.model
    rises, counts = [], []
    with torch.no_grad(), ExitStack() as stack:
        plain = _plain(plan, batches)
        for target, place in choices:
            stack.enter_context(target.changed(place))
        for batch, before in zip(batches, plain, strict=True):
            after = task.logits(model, batch)
            if measure == "kl":
                rise, number = per_sample(divergence(before, after), task.mask(batch))
            else:
                ends = [task.metrics(logits, batch) for logits in (after, before)]
                if "loss" not in ends[0]:
                    raise UsageError(f"task {task.name} has no metric named loss, so its rise cannot be measured")
                rise, number = ends[0]["loss"][0] - ends[1]["loss"][0], ends[0]["loss"][1]
            rises.append(rise)
            counts.append(number)
    return torch.cat(rises), torch.cat(counts)


def _plain(plan: Plan, batches: Sequence[Batch]) -> list[Tensor]:
    """Logits of the float network; to be called before a weight is replaced."""
    key = ("float logits", tuple(map(id, batches)))
    if key not in plan.memory:
        plan.memory[key] = [plan.workload.task.logits(plan.workload.model, batch).clone() for batch in batches]
    found: list[Tensor] = plan.memory[key]
    return found
