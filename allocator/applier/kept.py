"""Which weights `Prune` keeps: the most important ones, of a layer or of each block."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Layer, Prune
from allocator.applier.moments import input_moment
from allocator.applier.weight import Weight


def kept(weight: Weight, action: Prune) -> Tensor:
    """bool [rows, columns]: the weights that stay, as many as `Prune.kept` says, by the values that they have."""
    return most_important(saliency(weight.matrix, weight, action), action, weight.layer)


def saliency(values: Tensor, weight: Weight, action: Prune) -> Tensor:
    """[rows, columns], ≥ 0, a new tensor: |w|, or |w|·√E[x²] of its column, of a weight's values or of better ones."""
    if action.weighting == "none":
        return values.abs()
    moment = input_moment(weight, action)
    size = moment.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()  # [groups, columns]
    blocks = values.double().abs().view(weight.layer.groups, -1, weight.layer.columns)
    return (blocks * size.unsqueeze(1)).view(weight.layer.rows, -1)


def most_important(found: Tensor, action: Prune, layer: Layer) -> Tensor:
    """bool [rows, columns]: as many as an action keeps, by importance [rows, columns]; the first of equal ones."""
    if action.pattern == "n_m":
        return _of_blocks(found, action, layer)
    return _largest(found.view(-1), action.kept(layer)).view_as(found)


def _largest(importance: Tensor, k: int) -> Tensor:
    """bool [n]: the k largest of [n], the first of equal ones."""
    n = importance.numel()
    least = importance.kthvalue(n - k + 1).values
    mask = importance > least
    tied = (importance == least).nonzero().view(-1)
    mask[tied[: k - int(mask.sum())]] = True
    return mask


def _of_blocks(importance: Tensor, action: Prune, layer: Layer) -> Tensor:
    assert action.block is not None, "pattern n_m has it"
    assert action.keep is not None, "likewise"
    whole = layer.columns - layer.columns % action.block
    blocks = importance[:, :whole].reshape(layer.rows, -1, action.block)
    mask = _first_of_each(blocks, action.keep).flatten(1)
    rest = importance[:, whole:]
    if rest.shape[1]:
        still = action.kept_of_row(layer) - blocks.shape[1] * action.keep
        mask = torch.cat([mask, _first_of_each(rest, still)], 1)
    return mask


def _first_of_each(importance: Tensor, keep: int) -> Tensor:
    """bool [.., m]: the ``keep`` largest along the last dimension, the first of equal ones."""
    order = importance.sort(dim=-1, descending=True, stable=True).indices[..., :keep]
    return torch.zeros_like(importance, dtype=torch.bool).scatter_(-1, order, True)
