"""Whether a network says the same on torch's fast path for encoders, which opening its attention closes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from allocator.applier.opening import Opening
from allocator.workload import Workload

TOLERANCE = 1e-3
"""Of the largest logit: the two paths round differently, 1e-6 of it or so."""


@contextmanager
def opened(workload: Workload) -> Iterator[None]:
    """The workload's model with its attention open, to be used inside `untouched`.

    Warns if that changes what the model says. nn.TransformerEncoder with padding and nested tensors returns zeros at
    padded positions on its fast path, and something else on the ordinary one: a network that looks at them there, such
    as one that takes the mean over all positions, is another network in evaluation than in training.
    """
    nests = [
        module
        for module in workload.model.modules()
        if isinstance(module, nn.TransformerEncoder) and getattr(module, "use_nested_tensor", False)
    ]
    before = _logits(workload) if nests else None
    with Opening(workload.model):
        after = None if before is None else _logits(workload)
        if before is not None and after is not None and not _same(before, after):
            warnings.warn(
                f"the model of {workload.name} gives other logits on torch's fast path for nn.TransformerEncoder than "
                "on the ordinary one: it looks at what comes out at padded positions, which the fast path sets to "
                "zero. The ordinary one is measured, and what is applied takes it too. Leave padded positions out of "
                "sums and means, or make the encoder with enable_nested_tensor=False",
                stacklevel=2,
            )
        yield


def _logits(workload: Workload) -> Tensor:
    with torch.no_grad():
        return workload.task.logits(workload.model, next(iter(workload.calibration)))


def _same(before: Tensor, after: Tensor) -> bool:
    return bool((before - after).abs().max() <= TOLERANCE * before.abs().max().clamp(min=1e-30))
