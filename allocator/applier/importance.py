"""How much the error of each weight counts: by the inputs that it multiplies."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from allocator.actions import Action
from allocator.applier.moments import input_moment
from allocator.applier.weight import Weight

SMALLEST = 1e-8
"""Least importance, relative to the mean one: columns that the data never showed still count a little."""


class Weighted(Action, Protocol):
    """An action that may weigh errors by a layer's inputs."""

    @property
    def weighting(self) -> str:
        """none or input."""
        ...


def importance(weight: Weight, action: Weighted) -> Tensor | None:
    """float32 [rows, columns]: E[x²] of the input that each weight multiplies, relative to the mean; None for none.

    The squared error of a layer's outputs, were its inputs uncorrelated. Not to be written to: rows may share memory.

    Raises:
        ActionError: the second moment of the inputs was not measured.
    """
    if action.weighting == "none":
        return None
    moment = input_moment(weight, action)
    each = moment.diagonal(dim1=1, dim2=2)
    mean = each.mean()
    relative = (each / mean).clamp_min(SMALLEST) if mean > 0 else torch.ones_like(each)
    rows = weight.layer.rows // weight.layer.groups
    return relative.to(torch.float32).unsqueeze(1).expand(-1, rows, -1).reshape(weight.layer.rows, -1)
