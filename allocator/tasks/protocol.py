"""The contract between a network, its data and everything that measures it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

Batch: TypeAlias = Any
"""A tensor, or tuples, lists and mappings of tensors, all with the samples along their first dimension."""


@runtime_checkable
class Task(Protocol):
    """What a network is asked to do; N samples, each with P ≥ 1 positions, each a choice among K classes.

    A *sample* is the unit of independence (standard errors are over samples: an image, a token sequence, a batch of
    texts that are compared with each other); a *position* is one predicted distribution (an image, a token, a text).
    Losses and divergences are means over positions.
    """

    @property
    def name(self) -> str:
        """For reports."""
        ...

    @property
    def per(self) -> str:
        """What one position is called in the units of a score: ``sample``, ``token``, ``text``."""
        ...

    def logits(self, model: Module, batch: Batch) -> Tensor:
        """Unnormalised log-probabilities [N, ...positions, K]: of all that follows, a function of the logits alone."""
        ...

    def mask(self, batch: Batch) -> Tensor | None:
        """Bool [N, ...positions], False where a position does not count (padding); None when all count."""
        ...

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Scalar: mean cross entropy in nats over the positions that count."""
        ...

    def metrics(self, logits: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Per metric (sum [N], count [N]) of each sample, in float64: the metric is Σ sum / Σ count."""
        ...


@runtime_checkable
class PairTask(Protocol):
    """A task that also predicts one number per pair, whose correlation with the given one is the metric."""

    def similarity(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(predicted [M], given [M]) in float64."""
        ...
