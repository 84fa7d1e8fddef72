"""Arithmetic shared by the tasks: from per-position values to per-sample sums."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.tasks.protocol import Batch

ELEMENTS_AT_ONCE = 1 << 23
"""Logits turned into float64 at a time: 64 MB, however large the vocabulary."""


def per_sample(values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """(sum, count) [N] in float64 on the CPU of ``values`` [N, ...positions] where ``mask`` holds."""
    flat = values.detach().reshape(len(values), -1).cpu().double()
    if mask is None:
        return flat.sum(1), torch.full((len(flat),), float(flat.shape[1]), dtype=torch.float64)
    keep = mask.reshape(len(values), -1).cpu()
    return torch.where(keep, flat, 0.0).sum(1), keep.sum(1).double()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """−log softmax(logits)[target] in float64, [N, ...positions]; targets below 0 count as class 0: mask them out."""
    flat, wanted = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1).clamp(min=0)
    step = max(1, ELEMENTS_AT_ONCE // logits.shape[-1])
    parts = [
        torch.nn.functional.cross_entropy(flat[i : i + step].double(), wanted[i : i + step], reduction="none")
        for i in range(0, len(flat), step)
    ]
    return torch.cat(parts).reshape(targets.shape)


def divergence(reference: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax(reference) ‖ softmax(logits)) in nats, float64, [N, ...positions]; rounding may make it negative."""
    p, q = reference.reshape(-1, reference.shape[-1]), logits.reshape(-1, logits.shape[-1])
    step = max(1, ELEMENTS_AT_ONCE // logits.shape[-1])
    parts = []
    for i in range(0, len(p), step):
        log_p = torch.log_softmax(p[i : i + step].double(), -1)
        log_q = torch.log_softmax(q[i : i + step].double(), -1)
        parts.append((log_p.exp() * (log_p - log_q)).sum(-1))
    return torch.cat(parts).reshape(logits.shape[:-1])


def plain_logits(output: object) -> Tensor:
    """The logits of a model's output: the tensor itself, or its ``.logits``."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise UsageError(f"the model returned {type(output).__name__}, neither a tensor nor an object with .logits")
    return logits


def split_targets(batch: Batch) -> tuple[Batch, Tensor]:
    """(inputs, targets) of a pair or of a mapping with ``labels``."""
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], Tensor):
        return batch[0], batch[1]
    if hasattr(batch, "keys") and "labels" in batch:
        return {key: batch[key] for key in batch if key != "labels"}, batch["labels"]
    raise UsageError(
        f"a {type(batch).__name__} is no batch of this task: give (inputs, targets) or a mapping with 'labels'"
    )


def call(model: torch.nn.Module, inputs: Batch) -> object:
    """``model(inputs)``, by keyword when the inputs are a mapping."""
    if hasattr(inputs, "keys"):
        return model(**{key: inputs[key] for key in inputs})
    return model(inputs)
