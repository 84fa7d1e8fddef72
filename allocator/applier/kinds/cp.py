"""`cp`: alternating least squares, run as depthwise convolutions along the kernel between two 1×1 ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from allocator.actions import Cp, Layer, TensorFormat
from allocator.applier.kinds.stepping import one_by_one
from allocator.applier.kinds.tensor_format import Array, Shared, TensorKind
from allocator.errors import ActionError

ITERATIONS = 60
RIDGES = (1e-4, 1e-2)
"""What is added to the diagonal of each least-squares problem for a weight of norm 1. The first is best on trained
convolutions; the second is for weights on which components cancel each other."""
LARGEST = 4.0
"""Norm of a component, of a weight of norm 1, from which on it must be cancelled by others and rounds badly."""


class CpKind(TensorKind):
    """See `Cp`."""

    depthwise = True

    def decomposed(self, tensor: Array, action: TensorFormat, shared: Shared) -> list[Array]:
        """The components by falling size, out of the first run in which none is beyond `LARGEST`, or the last."""
        assert isinstance(action, Cp)
        if action.kernel == "whole":
            tensor = tensor.reshape(*tensor.shape[:2], -1)
        else:
            tensor = np.squeeze(tensor, tuple(d for d in range(2, tensor.ndim) if tensor.shape[d] == 1))
            tensor = tensor.transpose(0, 1, *reversed(range(2, tensor.ndim)))
        found: list[Array] | None = None
        for ridge in RIDGES:
            made = _alternating(tensor, action.rank, ridge)
            if made is None:
                continue
            found, largest = made
            if largest <= LARGEST:
                break
        if found is None:
            raise ActionError(
                f"action cp: alternating least squares of rank {action.rank} does not come to finite numbers for shape "
                f"{tuple(tensor.shape)}; take another rank, or tucker2"
            )
        out, into, *kernel = found
        return [into.T, *(vectors.T for vectors in kernel), out]

    def steps(self, layer: Layer, action: TensorFormat) -> list[tuple[int, ...]]:
        """One dimension at a time, the last first, or all at once."""
        assert isinstance(action, Cp)
        whole = action.kernel == "whole"
        return [tuple(range(len(layer.weight_shape) - 2))] if whole else one_by_one(layer)

    def product(self, parts: Sequence[Tensor], action: TensorFormat, layer: Layer) -> Tensor:
        """Σ_r of the outer products, one place of the kernel at a time."""
        first, *cores, last = parts
        sizes, rank = layer.weight_shape[2:], len(first)
        kernel = torch.ones(rank, *[1] * len(sizes))
        for dims, core in zip(self.steps(layer, action), cores, strict=True):
            kernel = kernel * core.view(rank, *(size if d in dims else 1 for d, size in enumerate(sizes)))
        places = kernel.view(rank, -1)
        made = torch.empty(layer.rows, layer.weight_shape[1], places.shape[1])
        for place in range(places.shape[1]):
            made[:, :, place] = (last * places[:, place]) @ first
        return made.view(layer.rows, layer.columns)


def _alternating(tensor: Array, rank: int, ridge: float) -> tuple[list[Array], float] | None:
    """Factors [size, rank] of each dimension, components by falling size, and the largest size; None if not finite."""
    from tensorly.decomposition import parafac

    with warnings.catch_warnings():  # ranks beyond a dimension start at random there, as they must
        warnings.simplefilter("ignore")
        try:
            weights, factors = parafac(
                tensor, rank, n_iter_max=ITERATIONS, init="svd", random_state=0, l2_reg=ridge, linesearch=True
            )
        except np.linalg.LinAlgError:
            return None
    sizes = np.abs(weights) * np.prod([np.linalg.norm(factor, axis=0) for factor in factors], 0)
    if not np.isfinite(sizes).all():
        return None
    order = np.argsort(-sizes, kind="stable")
    return [factors[0][:, order] * weights[order], *(factor[:, order] for factor in factors[1:])], float(sizes.max())
