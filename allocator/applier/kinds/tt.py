"""`tt`: successive singular value decompositions, run as convolutions along one dimension of the kernel at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from allocator.actions import Layer, TensorFormat, Tt
from allocator.applier.kinds.settling import Array
from allocator.applier.kinds.stepping import one_by_one
from allocator.applier.kinds.tensor_format import Shared, TensorKind


class TtKind(TensorKind):
    """See `Tt`."""

    def decomposed(self, tensor: Array, action: TensorFormat, shared: Shared) -> list[Array]:
        """Cores from the outputs on are orthonormal; the size is in `first`."""
        from tensorly.decomposition import tensor_train

        assert isinstance(action, Tt)
        tensor = np.squeeze(tensor, tuple(d for d in range(2, tensor.ndim) if tensor.shape[d] == 1))
        last, *cores, first = tensor_train(np.moveaxis(tensor, 1, -1), [1, *action.ranks, 1])
        made = [np.moveaxis(core, 1, 2).reshape(len(core), -1) for core in reversed(cores)]
        return [first[:, :, 0], *made, last[0]]

    def steps(self, layer: Layer, action: TensorFormat) -> list[tuple[int, ...]]:
        """One dimension at a time, the last first."""
        return one_by_one(layer)

    def product(self, parts: Sequence[Tensor], action: TensorFormat, layer: Layer) -> Tensor:
        """last · cores · first."""
        return chained(parts, self.steps(layer, action), layer)


def chained(parts: Sequence[Tensor], steps: Sequence[tuple[int, ...]], layer: Layer) -> Tensor:
    """float32 [rows, columns]: the weight of parts that run one after the other, each step along its dimensions."""
    first, *cores, last = parts
    found = last  # [O, kernel so far, channels]: from the outputs back
    for dims, core in zip(reversed(steps), reversed(cores), strict=True):
        size = math.prod(layer.weight_shape[2 + d] for d in dims)
        behind = core.view(len(core), -1, size).transpose(1, 2).reshape(len(core), -1)
        found = (found.reshape(-1, len(core)) @ behind).view(layer.rows, -1, len(core[0]) // size)
    made = found.reshape(-1, len(first)) @ first
    return made.view(layer.rows, -1, layer.weight_shape[1]).transpose(1, 2).reshape(layer.rows, layer.columns)
