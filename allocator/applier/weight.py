"""A stored weight as the matrix that actions see, with what was found out about it on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from allocator.actions import Layer
from allocator.applier.statistics import LayerStatistics
from allocator.errors import ActionError

LARGEST = 2.0**126
"""Largest weight taken: within it max − min, and hence every step of the arithmetic, stays in float32."""

_Found = TypeVar("_Found")


class Weight:
    """One weight under many actions; what several of them need, such as its SVD, is worked out once.

    The weight is read when it is made and must not change afterwards.

    Attributes:
        matrix: float32 [rows, columns], finite; to be read only, since it may be the parameter's own memory.
        layer: what it belongs to.
        statistics: of the layer, if they were measured.
        memory: what `remember` keeps.

    Raises:
        ActionError: a weight that is not of the layer's shape, not floating point, without values, or not finite.
    """

    def __init__(self, weight: Tensor, layer: Layer, statistics: LayerStatistics | None = None) -> None:
        self.matrix = to_matrix(weight, layer)
        self.layer = layer
        self.statistics = statistics
        self.memory: dict[object, Any] = {}

    def remember(self, key: object, find: Callable[[], _Found]) -> _Found:
        """What ``find`` gives, found once for a key."""
        if key not in self.memory:
            self.memory[key] = find()
        found: _Found = self.memory[key]
        return found


def to_matrix(weight: Tensor, layer: Layer) -> Tensor:
    """The weight as a contiguous, finite float32 matrix [rows, columns]; not always a copy."""
    if tuple(weight.shape) != layer.weight_shape:
        raise ActionError(f"the weight has shape {tuple(weight.shape)} but its layer says {layer.weight_shape}")
    if not weight.is_floating_point():
        raise ActionError(f"a weight of dtype {weight.dtype} is not compressed; only floating-point ones are")
    if weight.is_meta:
        raise ActionError("the weight is on the meta device and has no values; load the model first")
    matrix = weight.detach().to(torch.float32).reshape(layer.rows, layer.columns).contiguous()
    low, high = torch.aminmax(matrix)
    if not (low >= -LARGEST and high <= LARGEST):  # so written that NaN fails
        raise ActionError("the weight holds NaN, infinity or numbers beyond 2^126, which no code stands for; repair it")
    return matrix
