"""What the tensor formats have in common: the tensor that is decomposed, the scales of its parts, how they run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from allocator.actions import Keep, Layer, TensorFormat
from allocator.applier.kinds.kind import FactoredKind
from allocator.applier.kinds.own_forward import Convolution
from allocator.applier.kinds.settling import Array, settled
from allocator.applier.kinds.stepping import pointwise, step
from allocator.applier.kinds.whitening import channel_roots
from allocator.applier.moments import input_moment
from allocator.applier.weight import Weight

RIDGE = 1e-6
"""How much the least squares of `last` hold to what it was, relative to the mean square of what it multiplies."""

_Found = TypeVar("_Found")


class TensorKind(FactoredKind):
    """A weight [O, I, …kernel] as parts first [r, I], cores along the kernel, last [O, r], in the order of running."""

    needs = "tensorly"
    depthwise: ClassVar[bool] = False

    @abstractmethod
    def decomposed(self, tensor: Array, action: TensorFormat, shared: Shared) -> list[Array]:
        """The parts of a tensor [O, I, …kernel] of norm 1, each with the rows and columns of its layer.

        ``shared`` keeps what other ranks of the same tensor can use.
        """

    @abstractmethod
    def steps(self, layer: Layer, action: TensorFormat) -> list[tuple[int, ...]]:
        """Which dimensions of the kernel, numbered from 0, each core does: all of them once."""

    def row_part(self, action: TensorFormat) -> int:
        """last."""
        return -1

    def factors(self, weight: Weight, action: TensorFormat) -> list[Tensor]:
        """The parts in float32, of even sizes and fixed signs (`settled`); zeros for a weight of zeros."""
        self.ready()
        roots = weight.remember(("channel roots", action.weighting), lambda: channel_roots(weight, action))
        tensor = weight.matrix.double().view(weight.layer.weight_shape)
        if roots is not None:
            tensor = torch.einsum("oi...,ij->oj...", tensor, roots.root)
        norm = float(torch.linalg.vector_norm(tensor))
        planned = action.parts(weight.layer)
        if norm == 0:
            return [torch.zeros(part.layer.rows, part.layer.columns) for part in planned]
        shared = Shared(weight, action.weighting)
        with _numpy_backend():
            parts = self.decomposed(np.ascontiguousarray((tensor / norm).numpy()), action, shared)
        if roots is not None:
            parts[0] = parts[0] @ roots.inverse.numpy()
        found = settled([np.asarray(part, np.float64) for part in parts], norm, self.depthwise)
        return [torch.from_numpy(part).to(torch.float32).contiguous() for part in found]

    def store(self, weight: Weight, action: TensorFormat) -> Tensor:
        """All parts' buffers; `last` makes good what the others lost, as far as it can."""
        from allocator.applier.kinds import kind_of

        *planned, planned_last = action.parts(weight.layer)
        *factors, last = self.factors(weight, action)
        buffers = [
            kind_of(part.action).store(Weight(factor, part.layer), part.action)
            for part, factor in zip(planned, factors, strict=True)
        ]
        if action.weighting != "none" or {action.first, action.core} != {Keep()}:
            kept = [
                kind_of(part.action).restore(buffer, part.action, part.layer)
                for part, buffer in zip(planned, buffers, strict=True)
            ]
            last = self._refitted(weight, action, kept, last)
        buffers.append(kind_of(action.last).store(Weight(last, planned_last.layer), action.last))
        return torch.cat(buffers)

    def _refitted(self, weight: Weight, action: TensorFormat, kept: Sequence[Tensor], last: Tensor) -> Tensor:
        """`last` of least squared error beside the other parts as they are stored, little moved where that is free.

        With B the matrix [rank, columns] that the others make, (W M Bᵀ + ρ last)(B M Bᵀ + ρ)⁻¹, M = 1 or E[x xᵀ] of all
        that a row of the weight multiplies: here the places of the kernel need not be averaged.
        """
        rank, layer = last.shape[1], weight.layer
        within = replace(layer, weight_shape=(rank, *layer.weight_shape[1:]))
        basis = self.product([*kept, torch.eye(rank)], action, within).double()
        towards = basis
        if action.weighting != "none":
            towards = basis @ input_moment(weight, action)[0]
        gram = towards @ basis.T
        ridge = RIDGE * float(gram.diagonal().mean())
        if not ridge > 0:  # all zeros, or too small for their squares
            return last
        gram.diagonal().add_(ridge)
        found: Tensor = torch.linalg.solve(gram, towards @ weight.matrix.double().T + ridge * last.T.double())
        return found.T.to(torch.float32).contiguous()

    def run(
        self,
        module: nn.Module,
        x: Tensor,
        parts: Sequence[Tensor],
        action: TensorFormat,
        layer: Layer,
        bias: Tensor | None,
    ) -> Tensor:
        """A 1×1 convolution, the layer's own along some dimensions at a time, a 1×1 convolution."""
        assert isinstance(module, Convolution), "`check` lets no other kind of layer have tensor formats"
        first, *cores, last = parts
        x = pointwise(x, first, None, layer)
        for dims, core in zip(self.steps(layer, action), cores, strict=True):
            kernel = core.view(len(core), -1, *(n if d in dims else 1 for d, n in enumerate(layer.weight_shape[2:])))
            x = step(module, x, kernel, dims, len(core) if self.depthwise else 1)
        return pointwise(x, last, bias, layer)


class Shared:
    """What decompositions of one tensor have in common, kept with its weight."""

    def __init__(self, weight: Weight, weighting: str) -> None:
        self._weight, self._weighting = weight, weighting

    def remember(self, key: object, find: Callable[[], _Found]) -> _Found:
        """What ``find`` gives, found once for a key."""
        return self._weight.remember(("tensor format", self._weighting, key), find)

    def basis(self, tensor: Array, mode: int) -> Array:
        """All left singular vectors of the tensor unfolded along a dimension, by falling singular value."""

        def find() -> Array:
            unfolded = np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)
            return np.asarray(np.linalg.svd(unfolded, full_matrices=False)[0], np.float64)

        return self.remember(("basis", mode, tensor.shape), find)


@contextmanager
def _numpy_backend() -> Iterator[None]:
    """tensorly on numpy arrays, whatever else the process uses it on."""
    import tensorly

    with tensorly.backend_context("numpy", local_threadsafe=True):
        yield
