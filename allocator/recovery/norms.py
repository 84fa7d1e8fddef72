"""Running statistics of batch normalisation, taken anew in the compressed network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm

from allocator.errors import UsageError
from allocator.tasks.guard import untouched
from allocator.tasks.protocol import Batch, Task

Statistics: TypeAlias = Sequence[tuple[Tensor, Tensor]]
"""Mean and variance [channels] of each norm, in the order of `batch_norms`."""


def batch_norms(model: Module) -> list[_BatchNorm]:
    """Those that have running statistics; a subclass counts."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None
    ]


def statistics(model: Module) -> Statistics:
    """Copies of the running statistics as they are."""
    return [(mean.detach().clone(), variance.detach().clone()) for mean, variance in _buffers(model)]


def write(model: Module, found: Statistics) -> None:
    """Put running statistics in place."""
    with torch.no_grad():
        for (mean, variance), (new_mean, new_variance) in zip(_buffers(model), found, strict=True):
            mean.copy_(new_mean)
            variance.copy_(new_variance)


def estimated(model: Module, task: Task, batches: Sequence[Batch]) -> Statistics:
    """The running statistics after one pass over the data in training mode of the norms alone; the model is as before.

    Each is the mean over batches of the batch's own mean and (unbiased) variance, what torch does with momentum None;
    the norms further on see what those before them give with the statistics of the batch.

    Raises:
        UsageError: a batch with a single value per channel, which has no variance.
    """
    norms = batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    with untouched(model), torch.no_grad():
        try:
            for norm in norms:
                norm.train()
                norm.momentum = None
                norm.reset_running_stats()
            for batch in batches:
                task.logits(model, batch)
            return statistics(model)
        except ValueError as error:
            raise UsageError(
                f"the statistics of batch normalisation cannot be taken from these batches ({error}): give batches of "
                "two samples or more"
            ) from error
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


def _buffers(model: Module) -> list[tuple[Tensor, Tensor]]:
    found = []
    for norm in batch_norms(model):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        found.append((norm.running_mean, norm.running_var))
    return found
