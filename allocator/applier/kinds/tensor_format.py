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
        """The parts in float32, scaled so that rounding costs little (`_settled`), signs fixed; zeros for zeros."""
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


def _settled(parts: list[Array], norm: float, depthwise: bool) -> list[Array]:
    """The same product times ``norm``, with the freedom between the parts used.

    What a channel between two parts is multiplied by in one and divided by in the other is free. A part's channels are
    its rows, which have scales of their own when they are rounded, and the columns of the part behind it, which share
    them: so the columns have norm 1 and their largest entry positive, and the rows before carry size and sign.
    Then all parts have the same norm.
    """
    for behind in range(len(parts) - 1, 0, -1):
        before, part = parts[behind - 1], parts[behind]
        channels = len(before)
        rowwise = depthwise and behind < len(parts) - 1
        entries = (
            part.T if rowwise else np.moveaxis(part.reshape(len(part), channels, -1), 1, 0).reshape(channels, -1).T
        )
        size = np.linalg.norm(entries, axis=0)
        largest = np.take_along_axis(entries, np.abs(entries).argmax(0)[None], 0)[0]
        factor = np.where(size > 0, size, 1.0) * np.where(largest < 0, -1.0, 1.0)
        parts[behind - 1] = before * factor[:, None]
        parts[behind] = part / factor[:, None] if rowwise else part / np.repeat(factor, part.shape[1] // channels)
    sizes = [float(np.linalg.norm(part)) for part in parts]
    if not all(sizes):
        return [np.zeros_like(part) for part in parts]
    each = math.exp((math.log(norm) + sum(map(math.log, sizes))) / len(parts))
    return [part * (each / size) for part, size in zip(parts, sizes, strict=True)]
