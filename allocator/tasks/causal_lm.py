"""The next token of a text, by a left-to-right language model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import Module

from allocator.tasks.positions import call, cross_entropy, per_sample, plain_logits
from allocator.tasks.protocol import Batch


def _ids(batch: Batch) -> Tensor:
    ids: Tensor = batch["input_ids"] if hasattr(batch, "keys") else batch
    return ids


@dataclass(frozen=True, kw_only=True)
class CausalLm:
    """A batch is token ids [N, T], or a mapping with ``input_ids`` and perhaps ``attention_mask``.

    A sample is a sequence. Position t predicts token t + 1, so that there are T − 1 positions: the last token's
    prediction has no known answer and counts neither in the loss nor in a divergence.
    """

    name: str = "causal_lm"
    per: str = "token"

    def logits(self, model: Module, batch: Batch) -> Tensor:
        """[N, T − 1, vocabulary]."""
        return plain_logits(call(model, batch))[:, :-1]

    def mask(self, batch: Batch) -> Tensor | None:
        """True where the predicted token is not padding."""
        if hasattr(batch, "keys") and "attention_mask" in batch:
            seen: Tensor = batch["attention_mask"].bool()
            return seen[:, 1:] & seen[:, :-1]
        return None

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean next-token cross entropy in nats."""
        values, mask = cross_entropy(logits, _ids(batch)[:, 1:]), self.mask(batch)
        return values.mean() if mask is None else values[mask].mean()

    def metrics(self, logits: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """``accuracy`` of the most likely token and ``loss``; `measure` adds perplexity = exp(loss)."""
        targets, mask = _ids(batch)[:, 1:], self.mask(batch)
        return {
            "accuracy": per_sample(logits.argmax(-1) == targets, mask),
            "loss": per_sample(cross_entropy(logits, targets), mask),
        }
