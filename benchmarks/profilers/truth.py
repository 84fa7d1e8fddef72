"""What compression really does, measured without any statistic: apply an allocation to a copy, run it, compare."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import Module

from allocator.applier.apply import apply_
from allocator.problem import Problem
from allocator.statement import IntArray
from allocator.tasks.measurement import Measured, correlation, measure, ranks, ratio
from allocator.tasks.positions import divergence, per_sample
from allocator.tasks.protocol import Batch
from allocator.workload import Workload

Plain = dict[str, dict[str, Any]]


class Held:
    """Batches with the logits that the float network gives for them."""

    def __init__(self, workload: Workload, batches: Sequence[Batch]) -> None:
        self.workload = workload
        self.batches = batches
        with torch.no_grad():
            self.logits = [workload.task.logits(workload.model, batch) for batch in batches]

    def kl(self, model: Module) -> Measured:
        """Mean KL(float ‖ model) in nats per position over all batches, with its standard error over samples."""
        sums: list[Tensor] = []
        counts: list[Tensor] = []
        task = self.workload.task
        with torch.no_grad():
            for batch, reference in zip(self.batches, self.logits, strict=True):
                found = per_sample(divergence(reference, task.logits(model, batch)), task.mask(batch))
                sums.append(found[0])
                counts.append(found[1])
        return ratio(torch.cat(sums), torch.cat(counts))


def singles(problem: Problem) -> Iterator[Plain]:
    """For every row of the problem, the change of that one group to that one choice."""
    for group in problem.groups:
        for choice in group.choices:
            yield {group.name: _entry(group, choice)}


def wholes(problem: Problem, allocations: Iterable[IntArray]) -> Iterator[Plain]:
    """Allocations [G] in the form that the applier takes."""
    groups = list(problem.groups)
    for allocation in allocations:
        picked = zip(groups, allocation.tolist(), strict=True)
        yield {group.name: _entry(group, group.choices[place]) for group, place in picked}


def compressed(model: Module, plain: Plain) -> Module:
    """A copy of the network with its weights replaced."""
    return apply_(copy.deepcopy(model), plain)


def kls(held: Held, plains: Iterable[Plain]) -> list[float]:
    """The measured divergence of each."""
    return [held.kl(compressed(held.workload.model, plain)).value for plain in plains]


def losses(workload: Workload, plain: Plain | None) -> Mapping[str, float]:
    """Metrics on the evaluation data, of the float network (None) or a compressed one."""
    model = workload.model if plain is None else compressed(workload.model, plain)
    return {name: found.value for name, found in measure(workload, model).items()}


def _entry(group: Any, choice: Any) -> dict[str, Any]:
    return {"action": choice.action, "modules": list(group.modules)}


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Rank correlation; ties share their mean rank."""
    a, b = (torch.from_numpy(np.array(column, np.float64)) for column in (first, second))
    return correlation(ranks(a), ranks(b)).value
