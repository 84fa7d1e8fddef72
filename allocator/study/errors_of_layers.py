"""The six errors of one layer's approximation: of its weights and of its outputs, absolute, relative and scaled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Module

from allocator.faithfulness.held_out import Change, changed
from allocator.tasks.protocol import Batch
from allocator.workload import Workload

ERRORS = (
    "relative weights", "relative features", "scaled weights", "scaled features", "absolute weights",
    "absolute features",
)  # fmt: skip
"""In the order of the published figure."""


def layer_inputs(workload: Workload, layer: Module, batches: Sequence[Batch]) -> list[Tensor]:
    """What a layer is given on every batch, by one forward pass each; a layer called twice has two entries."""
    seen: list[Tensor] = []

    def note(module: Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0].detach().clone())

    handle = layer.register_forward_pre_hook(note)
    try:
        for batch in batches:
            workload.task.logits(workload.model, batch)
    finally:
        handle.remove()
    return seen


def errors(change: Change, layer: Module, inputs: Sequence[Tensor]) -> Mapping[str, float]:
    """Absolute, relative and scaled error of the weights W and of the outputs Y of one layer.

    Absolute ‖W − W̃‖ (Frobenius); relative, that over ‖W‖; scaled, that over the number of elements, not its root, as in
    the authors' code. Of outputs (before any normalisation or activation that follows) the same of one sample's Y,
    averaged over samples. Schuurmans, Batselier and Kooij (ICLR 2023).
    """
    weight = change.weight.detach().double()
    off = float((change.other.double() - weight).norm())
    absolute, relative, scaled, count = 0.0, 0.0, 0.0, 0
    for given in inputs:
        before = layer(given).double().flatten(1)
        with changed([change]):
            after = layer(given).double().flatten(1)
        norms = (after - before).norm(dim=1)
        sizes = before.norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
        absolute += float(norms.sum())
        relative += float((norms / sizes).sum())
        scaled += float(norms.sum()) / before.shape[1]
        count += len(before)
    return {
        "absolute weights": off,
        "relative weights": off / float(weight.norm()),
        "scaled weights": off / weight.numel(),
        "absolute features": absolute / count,
        "relative features": relative / count,
        "scaled features": scaled / count,
    }
