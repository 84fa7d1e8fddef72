"""What the tensor formats have in common: the tensor that is decomposed, the scales of its parts, how they run."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from allocator.actions import Layer, TensorFormat
from allocator.applier.kinds.kind import FactoredKind
from allocator.applier.kinds.stepping import Convolution, pointwise, step
from allocator.applier.kinds.whitening import channel_roots
from allocator.applier.weight import Weight

Array = npt.NDArray[np.float64]
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

    def factors(self, weight: Weight, action: TensorFormat) -> list[Tensor]:
        """The parts in float32, of even sizes and fixed signs (`_settled`); zeros for a weight of zeros."""
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
        settled = _settled([np.asarray(part, np.float64) for part in parts], norm, self.depthwise)
        return [torch.from_numpy(part).to(torch.float32).contiguous() for part in settled]

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


def _settled(parts: Sequence[Array], norm: float, depthwise: bool) -> list[Array]:
    """The same product times ``norm``, with the freedom between the parts used: sizes are even, signs fixed.

    What a channel is multiplied by in one part and divided by in the next is free. In each its size becomes the same,
    so that none is lost beside a larger one when they are rounded with one scale; its largest entry in the part behind
    becomes positive. Then all parts get the same norm.
    """
    parts = _even_components(parts) if depthwise else _even_chain(parts)
    sizes = [float(np.linalg.norm(part)) for part in parts]
    if not all(sizes):
        return [np.zeros_like(part) for part in parts]
    each = math.exp((math.log(norm) + sum(map(math.log, sizes))) / len(parts))
    return [part * (each / size) for part, size in zip(parts, sizes, strict=True)]


def _even_chain(parts: Sequence[Array]) -> list[Array]:
    """A channel is a row of one part and columns of the next: evened out from the outputs back."""
    found = list(parts)
    for behind in range(len(found) - 1, 0, -1):
        before, part = found[behind - 1], found[behind]
        entries = part.reshape(len(part), len(before), -1)
        size, given = np.sqrt((entries**2).sum((0, 2))), np.linalg.norm(before, axis=1)
        factor = np.sqrt(_divided(given, size)) * _signs(entries.swapaxes(0, 1).reshape(len(before), -1))
        found[behind] = (entries * factor[:, None]).reshape(part.shape)
        found[behind - 1] = before / factor[:, None]
    return found


def _even_components(parts: Sequence[Array]) -> list[Array]:
    """A channel is a row of every part but the last, of which it is a column."""
    found = [*parts[:-1], parts[-1].T]
    sizes = [np.linalg.norm(part, axis=1) for part in found]
    even = np.prod(sizes, 0) ** (1 / len(found))
    signs = [_signs(part) for part in found[1:]]
    factors = [np.prod(signs, 0), *signs]
    found = [part * (f * _divided(even, size))[:, None] for part, f, size in zip(found, factors, sizes, strict=True)]
    return [*found[:-1], found[-1].T]


def _divided(by: Array, size: Array) -> Array:
    """by/size, 1 where either is 0: what is nothing stays as it is."""
    return np.asarray(np.divide(by, size, out=np.ones_like(by), where=(size > 0) & (by > 0)), np.float64)


def _signs(rows: Array) -> Array:
    """The sign of each row's largest entry, 1 for that of zeros."""
    return np.where(np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)[:, 0] < 0, -1.0, 1.0)
