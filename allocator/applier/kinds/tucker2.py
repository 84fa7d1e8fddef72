"""`tucker2`: orthogonal iteration, run as a 1×1 convolution, the layer's own between fewer channels, and a 1×1 one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from allocator.actions import Layer, TensorFormat, Tucker2
from allocator.applier.kinds.own_forward import Through
from allocator.applier.kinds.settling import Array
from allocator.applier.kinds.tensor_format import Shared, TensorKind
from allocator.applier.kinds.tt import chained

ITERATIONS = 60
TOLERANCE = 1e-6
"""Iteration ends when the relative error falls by less."""


class Tucker2Kind(TensorKind):
    """See `Tucker2`; the singular vectors that it begins with are taken once for all ranks of a weight."""

    def decomposed(self, tensor: Array, action: TensorFormat, shared: Shared) -> list[Array]:
        """Both bases orthonormal, the core what they leave of the tensor."""
        from tensorly.decomposition import partial_tucker

        assert isinstance(action, Tucker2)
        ranks = (action.rank_out, action.rank_in)
        bases = [shared.basis(tensor, mode)[:, :rank] for mode, rank in enumerate(ranks)]
        core = np.einsum("oi...,op,iq->pq...", tensor, *bases)
        (core, (out, into)), _ = partial_tucker(
            tensor, list(ranks), modes=[0, 1], n_iter_max=ITERATIONS, init=(core, bases), tol=TOLERANCE, random_state=0
        )
        return [into.T, core.reshape(ranks[0], -1), out]

    def steps(self, layer: Layer, action: TensorFormat) -> list[tuple[int, ...]]:
        """The whole kernel at once."""
        return [tuple(range(len(layer.weight_shape) - 2))]

    def through(self, action: TensorFormat) -> Through:
        """core has fewer outputs and inputs."""
        return "channels"

    def product(self, parts: Sequence[Tensor], action: TensorFormat, layer: Layer) -> Tensor:
        """last · core · first."""
        return chained(parts, self.steps(layer, action), layer)
