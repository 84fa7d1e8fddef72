"""Codes and scales of a weight matrix: the arithmetic of `Quantize` without statistics of the layer."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Quantize
from allocator.applier.codes import Encoded, blocks, codes_of
from allocator.applier.scales import fit


def encode(matrix: Tensor, action: Quantize) -> Encoded:
    """Quantise a contiguous float32 matrix [rows, columns], finite, as `Quantize` says; every method but gptq.

    Codes are exact functions of the weights and the rounded scales. The sums behind scales are taken in float64, so
    that the number of threads does not show in a float16 scale.
    """
    codes = torch.empty_like(matrix, dtype=torch.uint8)
    scales, minima = [], []
    for block, code in zip(blocks(matrix, action), blocks(codes, action), strict=True):
        scale, minimum = fit(block, action)
        code.copy_(codes_of(block, scale, minimum, action))
        scales.append(scale)
        minima.append(minimum)
    found = [m for m in minima if m is not None]
    return Encoded(codes, torch.cat(scales, 1), torch.cat(found, 1) if found else None)
