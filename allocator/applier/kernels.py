"""The C kernels behind packing and quantising, for plain tensors in the memory of the CPU.

Each function does its work and says True, or touches nothing and says False: the extension was not built or
ALLOCATOR_ENGINE=numpy asks to do without, a tensor lies on another device or has no memory of its own (fake tensors,
transforms of torch.func), or torch is recording a graph. Torch then does the same arithmetic, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from allocator.actions import Quantize
from allocator.actions.quantize import SCALE_BYTES
from allocator.engine import native

_ALL = 1 << 48  # more numbers than any memory holds
_WAY = {"nearest": 0, "floor": 1, "ceil": 2}
_SIGN = 3


def pack_codes(codes: Tensor, bits: int, stream: Tensor) -> bool:
    """uint8 codes [n], each below 2^bits, bits below 8, into their stream."""
    kernels = _kernels((codes, torch.uint8), (stream, torch.uint8))
    if kernels is None:
        return False
    kernels.codes_pack(codes.data_ptr(), codes.numel(), bits, stream.data_ptr())
    return True


def unpack_codes(stream: Tensor, bits: int, codes: Tensor) -> bool:
    """The other way round."""
    kernels = _kernels((codes, torch.uint8), (stream, torch.uint8))
    if kernels is None:
        return False
    kernels.codes_unpack(stream.data_ptr(), codes.numel(), bits, codes.data_ptr())
    return True


def find_ranges(matrix: Tensor, action: Quantize, low: Tensor, high: Tensor) -> bool:
    """Least and largest weight of those that share a scale, float32, one after the other."""
    kernels = _kernels((matrix, torch.float32), (low, torch.float32), (high, torch.float32))
    if kernels is None:
        return False
    columns, size = _sharing(matrix.shape[0], matrix.shape[1], action)
    kernels.codes_ranges(matrix.data_ptr(), matrix.numel(), columns, size, low.data_ptr(), high.data_ptr())
    return True


def find_sizes(matrix: Tensor, action: Quantize, sums: Tensor) -> bool:
    """Σ|w| over the weights that share a scale, float64."""
    kernels = _kernels((matrix, torch.float32), (sums, torch.float64))
    if kernels is None:
        return False
    columns, size = _sharing(matrix.shape[0], matrix.shape[1], action)
    kernels.codes_sizes(matrix.data_ptr(), matrix.numel(), columns, size, sums.data_ptr())
    return True


def encode_into(
    stream: Tensor, width: int, matrix: Tensor, scales: Tensor, minima: Tensor | None, action: Quantize
) -> bool:
    """Codes of a float32 matrix with the scales of an action, in a stream of `width` bits each (8: a byte each)."""
    numbers = [(tensor, tensor.dtype) for tensor in (scales, minima) if tensor is not None]
    kernels = _kernels((stream, torch.uint8), (matrix, torch.float32), *numbers)
    if kernels is None:
        return False
    _require_sizes(stream, width, matrix.shape[0], matrix.shape[1], numbers, action)
    top = 2 ** (action.bits - 1) - 1
    shift, low, high = (top, -top, top) if action.scheme == "symmetric" else (0, 0, 2**action.bits - 1)
    kernels.codes_encode(
        *(matrix.data_ptr(), matrix.numel()),
        *(scales.data_ptr(), 0 if minima is None else minima.data_ptr(), action.scale_dtype == "float16"),
        *_sharing(matrix.shape[0], matrix.shape[1], action),
        *(shift, low, high, _WAY[action.rounding] if action.directed else _SIGN),
        *(width, stream.data_ptr()),
    )
    return True


def decode_into(
    out: Tensor,
    stream: Tensor,
    width: int,
    scales: Tensor,
    minima: Tensor | None,
    action: Quantize,
    rows: int,
    index: Tensor | None = None,
) -> bool:
    """The weights that a stream stands for, float32 [rows, columns], or of some rows [n, columns].

    scales, minima: numbers of the scale dtype one after the other, as such or as the bytes that they are stored in.
    index: int64 [n], each from 0 to rows − 1.
    """
    numbers = [(tensor, tensor.dtype) for tensor in (scales, minima) if tensor is not None]
    if index is not None:
        numbers.append((index, torch.int64))
    kernels = _kernels((out, torch.float32), (stream, torch.uint8), *numbers)
    if kernels is None:
        return False
    length = out.shape[1]
    _require_sizes(stream, width, rows, length, numbers[: 1 + (minima is not None)], action)
    kernels.codes_decode(
        *(stream.data_ptr(), stream.numel(), width),
        *((0, 0) if action.scheme == "asymmetric" else (0, 2 ** (action.bits - 1) - 1) if action.directed else (1, 1)),
        *(scales.data_ptr(), 0 if minima is None else minima.data_ptr(), action.scale_dtype == "float16"),
        *_sharing(rows, length, action),
        *((0, 1, rows * length) if index is None else (index.data_ptr(), index.numel(), length)),
        out.data_ptr(),
    )
    return True


def _sharing(rows: int, columns: int, action: Quantize) -> tuple[int, int]:
    """Columns of a row and weights that share a scale, as the kernels see a matrix: a tensor-wide scale is one row."""
    if action.granularity == "tensor":
        return rows * columns, rows * columns
    return columns, action.group_size or columns


def _require_sizes(
    stream: Tensor,
    width: int,
    rows: int,
    columns: int,
    numbers: Sequence[tuple[Tensor, torch.dtype]],
    action: Quantize,
) -> None:
    """Raise ValueError unless the memory that the kernels go through is there."""
    row, size = _sharing(rows, columns, action)
    need = rows * columns // row * -(-row // size) * SCALE_BYTES[action.scale_dtype]
    if stream.numel() * 8 < rows * columns * width or any(t.numel() * t.itemsize != need for t, _ in numbers):
        raise ValueError(f"codes, scales or minima are not as many as {action} has on {rows} × {columns} weights")


def readable(tensor: Tensor) -> bool:
    """Whether a tensor's numbers can be looked at now: it is no stand-in, and nothing is recording a graph."""
    if type(tensor) not in (Tensor, nn.Parameter) or torch.compiler.is_compiling():
        return False
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # torch.jit leaves it untyped
        return False
    try:
        tensor.data_ptr()
    except RuntimeError:  # it has no memory of its own
        return False
    return not tensor.is_meta


def at_once(size: int, tensor: Tensor) -> int:
    """How many numbers to work on at a time: `size`; all while a graph is recorded, which each turn makes longer.

    ``tensor``: one of those that are worked on.
    """
    return size if readable(tensor) else _ALL


def _kernels(*tensors: tuple[Tensor, torch.dtype]) -> Any | None:
    """The extension, if it may read and write all these tensors, each of the dtype that it takes it for."""
    kernels = native()
    if kernels is None:
        return None
    for tensor, dtype in tensors:
        if tensor.device.type != "cpu" or tensor.dtype != dtype or not readable(tensor) or not tensor.is_contiguous():
            return None
    return kernels
