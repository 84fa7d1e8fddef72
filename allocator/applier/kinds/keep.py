"""`keep`: the numbers themselves, in a floating-point type."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Keep, Layer
from allocator.applier.gains import rows_times
from allocator.applier.kinds.kind import Kind, as_bytes, as_numbers
from allocator.applier.weight import Weight

KEEP_DTYPE = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def keep_values(matrix: Tensor, action: Keep) -> Tensor:
    """The matrix in the dtype that is kept, saturated at its range; float32 is the matrix itself."""
    dtype = KEEP_DTYPE[action.dtype]
    if dtype == torch.float32:
        return matrix
    limit = torch.finfo(dtype).max
    return matrix.clamp(-limit, limit).to(dtype)


class KeepKind(Kind):
    """See `Keep`."""

    def store(self, weight: Weight, action: Keep) -> Tensor:
        """The numbers, row by row."""
        numbers = as_bytes(keep_values(weight.matrix, action))
        return numbers.clone() if action.dtype == "float32" else numbers

    def restore(self, buffer: Tensor, action: Keep, layer: Layer) -> Tensor:
        """The numbers in float32."""
        return _numbers(buffer, action, layer).to(torch.float32, copy=True)

    def restore_rows(self, buffer: Tensor, action: Keep, layer: Layer, index: Tensor) -> Tensor:
        """Those rows' numbers in float32."""
        return _numbers(buffer, action, layer)[index].to(torch.float32)

    def rescaled(self, buffer: Tensor, action: Keep, layer: Layer, gain: Tensor) -> Tensor:
        """Every number times the gain of its row."""
        numbers = as_numbers(buffer, KEEP_DTYPE[action.dtype]).view(layer.rows, layer.columns)
        return as_bytes(rows_times(numbers, gain))

    def approximate(self, weight: Weight, action: Keep) -> Tensor:
        """The rounded numbers; the weight's own matrix for float32."""
        return keep_values(weight.matrix, action).to(torch.float32)


def _numbers(buffer: Tensor, action: Keep, layer: Layer) -> Tensor:
    """The stored numbers where they lie; a copy if no number of theirs can begin there."""
    dtype = KEEP_DTYPE[action.dtype]
    aligned = buffer.storage_offset() % dtype.itemsize == 0 and buffer.is_contiguous()
    return (buffer.view(dtype) if aligned else as_numbers(buffer, dtype)).view(layer.rows, layer.columns)
