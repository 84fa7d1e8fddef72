"""Statistics of a layer as the arithmetic of the actions takes them: there, of the right shape, finite."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Action
from allocator.applier.statistics import require
from allocator.applier.weight import Weight
from allocator.errors import ActionError


def input_moment(weight: Weight, action: Action) -> Tensor:
    """E[x xᵀ] [groups, columns, columns], float64, symmetric, where the weight is; ActionError if it cannot be had."""
    layer = weight.layer
    moment = _checked(weight, action, "input_moment", (layer.groups, layer.columns, layer.columns))
    return (moment + moment.transpose(1, 2)) / 2


def input_mean(weight: Weight, action: Action) -> Tensor:
    """E[x] [groups, columns], likewise."""
    return _checked(weight, action, "input_mean", (weight.layer.groups, weight.layer.columns))


def output_fisher(weight: Weight, action: Action) -> Tensor:
    """E[(∂L/∂y)²] [rows], likewise."""
    return _checked(weight, action, "output_fisher", (weight.layer.rows,))


def _checked(weight: Weight, action: Action, name: str, shape: tuple[int, ...]) -> Tensor:
    found = require(weight.statistics, name, action)
    what = f"action {action.kind}: the layer's {name.replace('_', ' ')}"
    if tuple(found.shape) != shape:
        raise ActionError(
            f"{what} has shape {tuple(found.shape)}, but a weight of shape {weight.layer.weight_shape} in "
            f"{weight.layer.groups} groups calls for {shape}; measure it on this layer"
        )
    if not bool(found.isfinite().all()):
        raise ActionError(f"{what} holds NaN or infinity; look at the calibration data")
    return found.detach().to(weight.matrix.device, torch.float64)
