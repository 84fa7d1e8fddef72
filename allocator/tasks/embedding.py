"""Texts turned into vectors whose angles should follow people's sense of similarity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import normalize

from allocator.errors import UsageError
from allocator.tasks.positions import call, cross_entropy, per_sample, split_targets
from allocator.tasks.protocol import Batch


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """A batch is ``(texts, similarity [B])``; texts is a tensor [B, 2, …] or a mapping of such: B pairs of texts.

    The model sees all 2·B texts in one call, [2·B, …], and returns vectors [2·B, D]. A KL needs distributions, and a
    vector has none of its own, so the logits are those of *retrieval within the batch*: z_ij = scale · cos(a_i, b_j),
    the score with which first text i picks second text j, as in contrastive training with in-batch negatives
    (Henderson et al. 2017, arXiv 1705.00652; scale 20 is what sentence encoders are usually trained with).
    They do not change when all vectors are rotated, and KL → 0 exactly when no angle changes.
    The rows of one batch hang together, so *a whole batch is one sample* with B positions: use several batches.
    """

    scale: float = 20.0
    name: str = "embedding"
    per: str = "text"

    def logits(self, model: Module, batch: Batch) -> Tensor:
        """[1, B, B]."""
        texts, _ = split_targets(batch)
        flat = {k: texts[k].flatten(0, 1) for k in texts} if hasattr(texts, "keys") else texts.flatten(0, 1)
        vectors = call(model, flat)
        if not isinstance(vectors, Tensor) or vectors.dim() != 2:
            raise UsageError(f"the model returned {type(vectors).__name__}: an embedding model gives a tensor [2·B, D]")
        first, second = normalize(vectors, dim=-1).reshape(-1, 2, vectors.shape[-1]).unbind(1)
        return self.scale * (first @ second.T).unsqueeze(0)

    def mask(self, batch: Batch) -> None:
        """None: every text counts."""

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean cross entropy in nats of picking one's own partner: the contrastive loss."""
        return cross_entropy(logits, _own(logits)).mean()

    def metrics(self, logits: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """``accuracy`` of picking one's own partner and ``loss``; `measure` adds the correlations."""
        own = _own(logits)
        return {
            "accuracy": per_sample(logits.argmax(-1) == own, None),
            "loss": per_sample(cross_entropy(logits, own), None),
        }

    def similarity(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(cos(a_i, b_i), the similarity that people gave) in float64."""
        return logits[0].diagonal().double() / self.scale, split_targets(batch)[1].double()


def _own(logits: Tensor) -> Tensor:
    return torch.arange(logits.shape[-1], device=logits.device).unsqueeze(0)
