"""Codes and scales of a weight matrix: the arithmetic of `Quantize`, but for the compensated rounding of gptq."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Quantize
from allocator.applier import kernels
from allocator.applier.codes import Encoded, blocks, encode_into, scale_dtype
from allocator.applier.scales import fit, ranged
from allocator.applier.stored_scales import narrow


def encode(matrix: Tensor, action: Quantize) -> Encoded:
    """Quantise a contiguous float32 matrix [rows, columns], finite, as `Quantize` says; every method but gptq.

    Codes are exact functions of the weights and the rounded scales. The sums behind scales are taken in float64, so
    that neither the number of threads nor their order shows in a float16 scale.
    """
    scales, minima = fitted(matrix, action)
    codes = torch.empty_like(matrix, dtype=torch.uint8)
    encode_into(codes.view(-1), 8, matrix, scales, minima, action)
    return Encoded(codes, scales, minima)


def fitted(matrix: Tensor, action: Quantize) -> tuple[Tensor, Tensor | None]:
    """Scales and, when asymmetric, minima of a matrix, as in `Encoded`."""
    native = _fitted_natively(matrix, action)
    if native is not None:
        return native
    found = [fit(block, action) for block in blocks(matrix, action)]
    minima = [minimum for _, minimum in found if minimum is not None]
    return torch.cat([scale for scale, _ in found], 1), torch.cat(minima, 1) if minima else None


def _fitted_natively(matrix: Tensor, action: Quantize) -> tuple[Tensor, Tensor | None] | None:
    """The same in one pass over the matrix for full ranges and for signs; None where the kernels do not reach."""
    rows, columns = matrix.shape if action.granularity != "tensor" else (1, matrix.numel())
    size = action.group_size or columns
    shape = rows, -(-columns // size)
    if not action.directed:
        sums = matrix.new_empty(shape, dtype=torch.float64)
        if not kernels.find_sizes(matrix, action, sums):
            return None
        counts = torch.full((shape[1],), size, dtype=torch.float64)
        counts[-1] = columns - (shape[1] - 1) * size
        return narrow(sums / counts, scale_dtype(action)), None
    if action.method != "rtn":
        return None
    low, high = matrix.new_empty(shape), matrix.new_empty(shape)
    if not kernels.find_ranges(matrix, action, low, high):
        return None
    return ranged(low.double(), high.double(), action)
