"""One forward pass and some backward passes over one piece of the data, with what they say about every choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from allocator.tasks.positions import per_sample
from allocator.tasks.protocol import Batch
from profilers._backward import Backward, Changes, Diagonal
from profilers._calibration import Key, keys
from profilers._capture import captured
from profilers._outputs import Outputs
from profilers._plan import Plan, Target
from profilers._project import Call
from profilers._verify import rows_are_samples

Cotangent = Callable[[Tensor, Tensor | None], Tensor]
"""From logits [N, …positions, K] and their mask to a cotangent on them."""


def pieces_of_samples(plan: Plan) -> list[Key]:
    """Keys of pieces in which every row of a layer belongs to one sample; `rows_are_samples` says what is refused."""
    plan.workload.model.requires_grad_(False)
    return keys(plan, rows_are_samples(plan))


def changes_of(plan: Plan, cache_bytes: int) -> Changes:
    """The choices' changes, kept in ``plan.memory`` from piece to piece as far as ``cache_bytes`` allows."""
    changes: Changes = plan.memory.setdefault(("changes", cache_bytes), Changes(cache_bytes))
    return changes


def backward_passes(
    plan: Plan, batch: Batch, count: int, cotangent: Cotangent, changes: Changes, diagonal: Diagonal = "none"
) -> Iterator[Backward]:
    """``count`` finished backward passes after one forward pass, all at the end unless the diagonal of all is gathered.

    The model's parameters lose requires_grad (`untouched` gives it back).
    """
    plan.workload.model.requires_grad_(False)
    task = plan.workload.task
    current: list[Backward] = []

    def arrive(target: Target, call: Call, gradient: Tensor) -> None:
        current[-1].arrive(target, call, gradient)

    with captured(plan.targets, arrive) as capture, torch.enable_grad():
        logits = task.logits(plan.workload.model, batch)
    mask = task.mask(batch)
    positions = per_sample(torch.ones(logits.shape[:-1]), mask)[1]
    outputs = Outputs(count)
    try:
        for left in reversed(range(count)):
            outputs.left = left
            current.append(Backward(changes, capture.calls, positions, diagonal, outputs))
            capture.backward(logits, cotangent(logits, mask), again=left > 0)
            current[-1].finish()
            if diagonal == "all" or not left:
                yield from current
                current.clear()
    finally:
        changes.cache_bytes += outputs.held  # they go with this piece


def whole_menu(backward: Backward, target: Target, columns: Tensor) -> Tensor:
    """[N, choices] on the CPU from the columns [N, C] of the choices that change something; 0 for the others."""
    wide = torch.zeros(len(columns), len(target.menu), dtype=torch.float64)
    wide[:, backward.changes.places(target)] = columns.cpu().double()
    return wide
