"""One class per sample: images, rows, whole texts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import Module

from allocator.tasks.positions import call, cross_entropy, per_sample, plain_logits, split_targets
from allocator.tasks.protocol import Batch


@dataclass(frozen=True, kw_only=True)
class Classification:
    """A batch is ``(inputs, targets [N])`` or a mapping with ``labels``; logits [N, classes]."""

    name: str = "classification"
    per: str = "sample"

    def logits(self, model: Module, batch: Batch) -> Tensor:
        """[N, classes], from a model that returns a tensor or an object with ``.logits``."""
        return plain_logits(call(model, split_targets(batch)[0]))

    def mask(self, batch: Batch) -> None:
        """None: every sample counts."""

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean cross entropy in nats."""
        return cross_entropy(logits, split_targets(batch)[1]).mean()

    def metrics(self, logits: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """``accuracy`` (top-1) and ``loss``."""
        targets = split_targets(batch)[1]
        return {
            "accuracy": per_sample(logits.argmax(-1) == targets, None),
            "loss": per_sample(cross_entropy(logits, targets), None),
        }
