"""One convolution done in steps: along some dimensions of its kernel at a time, or at single points."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor
from torch.nn import functional

from allocator.actions import Layer
from allocator.actions.tensor_format import kernel_order
from allocator.applier.kinds.own_forward import Convolution, OwnForward, convolve

_CONVOLVE = (functional.conv1d, functional.conv2d, functional.conv3d)


def pointwise(x: Tensor, matrix: Tensor, bias: Tensor | None, layer: Layer) -> Tensor:
    """A 1×1 convolution with a matrix [outputs, inputs/groups] on what such a layer takes."""
    dimensions = len(layer.weight_shape) - 2
    kernel = matrix.reshape(*matrix.shape, *[1] * dimensions)
    return _CONVOLVE[dimensions - 1](x, kernel, bias, groups=layer.groups)


def one_by_one(layer: Layer) -> list[tuple[int, ...]]:
    """Steps along one dimension of the kernel each, the last first; those of length 1 go with the first step."""
    sizes = layer.weight_shape[2:]
    first, *rest = kernel_order(layer)
    return [(first, *(d for d, size in enumerate(sizes) if size == 1)), *((d,) for d in rest)]


def step(module: Convolution, x: Tensor, kernel: Tensor, dims: Collection[int], groups: int) -> Tensor:
    """The module's convolution with another kernel, its stride, padding and dilation only along some dimensions.

    Padding of any mode along one dimension commutes with what happens along another and with 1×1 convolutions without
    bias, so that steps whose dimensions are all of the kernel's, done one after the other, are the whole.

    Args:
        module: whose options they are.
        x: [N, channels, …] or [channels, …].
        kernel: [outputs, channels/groups, …], of length 1 along the other dimensions.
        dims: of the kernel, numbered from 0.
        groups: of the step.
    """
    count = kernel.dim() - 2
    if isinstance(module, OwnForward):
        assert len(dims) == count, "`through` lets no step along some dimensions meet a class's own forward"
        return convolve(module, x, kernel)
    ends: list[int] = []  # as functional.pad takes them: both ends of the last dimension first
    for d in reversed(range(count)):
        at = 2 * (count - 1 - d)
        ends += module._reversed_padding_repeated_twice[at : at + 2] if d in dims else (0, 0)
    if any(ends):
        x = functional.pad(x, ends, mode="constant" if module.padding_mode == "zeros" else module.padding_mode)
    stride, dilation = ([of[d] if d in dims else 1 for d in range(count)] for of in (module.stride, module.dilation))
    return _CONVOLVE[count - 1](x, kernel, None, stride, 0, dilation, groups)
