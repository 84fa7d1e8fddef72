"""Bases in which the error that counts is the plain squared one, for weighted singular value decompositions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from allocator.actions import LowRank, TensorFormat
from allocator.applier.moments import input_moment, output_fisher
from allocator.applier.weight import Weight

SMALLEST = 1e-8
"""Least weight of a direction, relative to the mean one: directions that the data never showed still count a little."""


@dataclass(frozen=True, eq=False)
class Whitening:
    """W ↦ P W Q and back; ``rows`` is the diagonal of P [groups, rows/groups], Q and Q⁻¹ [groups, columns, columns]."""

    rows: Tensor | None
    columns: Tensor
    inverse: Tensor

    def onto(self, blocks: Tensor) -> Tensor:
        """P W Q of blocks [groups, rows/groups, columns]."""
        moved = blocks @ self.columns
        return moved if self.rows is None else self.rows.unsqueeze(2) * moved

    def back(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """P⁻¹ left and right Q⁻¹."""
        return left if self.rows is None else left / self.rows.unsqueeze(2), right @ self.inverse


def whitening(weight: Weight, action: LowRank) -> Whitening | None:
    """What an action's weighting asks for: None for none; Q is symmetric, the root of the inputs' second moment.

    Raises:
        ActionError: the statistics that it is made of were not measured.
    """
    if action.weighting == "none":
        return None
    columns, inverse = _roots(input_moment(weight, action))
    if action.weighting == "input":
        return Whitening(None, columns, inverse)
    fisher = output_fisher(weight, action).view(weight.layer.groups, -1)
    return Whitening(_relative(fisher, fisher.mean()).sqrt(), columns, inverse)


def _roots(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric root and its inverse of each matrix [·, n, n], over its mean eigenvalue."""
    values, vectors = torch.linalg.eigh(moment)
    roots = _relative(values, values.mean(1, keepdim=True)).sqrt()
    root = (vectors * roots.unsqueeze(1)) @ vectors.transpose(1, 2)
    return root, (vectors / roots.unsqueeze(1)) @ vectors.transpose(1, 2)


def _relative(values: Tensor, mean: Tensor) -> Tensor:
    """Values over their mean, no smaller than `SMALLEST`; all 1 where nothing was seen, as in a group of dead inputs.

    So factors are of like size whatever the scale of the statistics: 1 / √mean would leave float32 where it is tiny.
    """
    seen = mean > torch.finfo(torch.float32).tiny
    return torch.where(seen, values / torch.where(seen, mean, 1.0), 1.0).clamp_min(SMALLEST)


@dataclass(frozen=True, eq=False)
class ChannelRoots:
    """Root and inverse root [I, I], symmetric, of the second moment of the input channels."""

    root: Tensor
    inverse: Tensor


def channel_roots(weight: Weight, action: TensorFormat) -> ChannelRoots | None:
    """What a tensor format's weighting asks for: E[x xᵀ] over input channels, averaged over the places of the kernel.

    Raises:
        ActionError: the second moment of the inputs was not measured.
    """
    if action.weighting == "none":
        return None
    moment = input_moment(weight, action)[0]
    channels = weight.layer.weight_shape[1]
    places = moment.view(channels, -1, channels, weight.layer.columns // channels)
    return ChannelRoots(*(found[0] for found in _roots(places.diagonal(dim1=1, dim2=3).mean(-1).unsqueeze(0))))
