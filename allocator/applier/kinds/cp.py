"""`cp`: alternating least squares, run as depthwise convolutions along the kernel between two 1×1 ones."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from allocator.actions import Cp, Layer, TensorFormat
from allocator.applier.kinds.settling import Array
from allocator.applier.kinds.stepping import one_by_one
from allocator.applier.kinds.tensor_format import Shared, TensorKind
from allocator.errors import ActionError

ITERATIONS = 60
RIDGES = (1e-4, 1e-10)
"""What is added to the diagonal of each least-squares problem for a weight of norm 1, one run for each: with the first,
trained convolutions come out better and their components smaller; with the second, weights of low rank exactly."""
HEAVY = 1e-2
"""The same for weights on which components cancel each other with both."""
LARGEST = 4.0
"""Norm of a component, of a weight of norm 1, from which on it must be cancelled by others and rounds badly."""


@dataclass(frozen=True, eq=False)
class _Run:
    """Factors [size, rank] of each dimension, components by falling size; the largest size and the squared error."""

    factors: list[Array]
    largest: float
    error: float


class CpKind(TensorKind):
    """See `Cp`."""

    depthwise = True

    def decomposed(self, tensor: Array, action: TensorFormat, shared: Shared) -> list[Array]:
        """The components by falling size, out of the run of least error in which none is beyond `LARGEST`."""
        assert isinstance(action, Cp)
        if action.kernel == "whole":
            tensor = tensor.reshape(*tensor.shape[:2], -1)
        else:
            tensor = np.squeeze(tensor, tuple(d for d in range(2, tensor.ndim) if tensor.shape[d] == 1))
            tensor = tensor.transpose(0, 1, *reversed(range(2, tensor.ndim)))
        runs = [run for run in (_alternating(tensor, action.rank, ridge) for ridge in RIDGES) if run is not None]
        good = [run for run in runs if run.largest <= LARGEST]
        if not good:
            heavy = _alternating(tensor, action.rank, HEAVY)
            good = runs if heavy is None else [heavy]
        if not good:
            raise ActionError(
                f"action cp: alternating least squares of rank {action.rank} does not come to finite numbers for shape "
                f"{tuple(tensor.shape)}; take another rank, or tucker2"
            )
        found = min(good, key=lambda run: run.error).factors
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


def _alternating(tensor: Array, rank: int, ridge: float) -> _Run | None:
    """One run from the singular vectors of each dimension; None where it does not come to finite numbers."""
    from tensorly import cp_to_tensor
    from tensorly.decomposition import parafac

    with warnings.catch_warnings():  # ranks beyond a dimension start at random there, as they must
        warnings.simplefilter("ignore")
        try:
            weights, factors = parafac(
                tensor, rank, n_iter_max=ITERATIONS, init="svd", random_state=0, l2_reg=ridge, linesearch=True
            )
        except np.linalg.LinAlgError:
            return None
        error = float(((cp_to_tensor((weights, factors)) - tensor) ** 2).sum())
    sizes = np.abs(weights) * np.prod([np.linalg.norm(factor, axis=0) for factor in factors], 0)
    if not (np.isfinite(sizes).all() and math.isfinite(error)):
        return None
    order = np.argsort(-sizes, kind="stable")
    sorted_ = [factors[0][:, order] * weights[order], *(factor[:, order] for factor in factors[1:])]
    return _Run(sorted_, float(sizes.max()), error)
