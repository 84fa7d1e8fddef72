"""Whole numbers that stand for the weights of a matrix, and back: the form that every way of rounding ends in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from allocator.actions import Quantize
from allocator.applier import kernels
from allocator.applier.packing import pack_bits

_WHOLE = {"nearest": torch.Tensor.round_, "floor": torch.Tensor.floor_, "ceil": torch.Tensor.ceil_}
_SCALE_DTYPE = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Encoded:
    """A quantised matrix.

    Attributes:
        codes: uint8 [rows, columns]; symmetric codes are shifted by q = 2^(bits−1) − 1 to 0…2q (1 bit: 0 for −1).
        scales: [rows, groups] in the scale dtype ([1, 1] for granularity tensor).
        minima: like scales; None when symmetric.
    """

    codes: Tensor
    scales: Tensor
    minima: Tensor | None


def scale_dtype(action: Quantize) -> torch.dtype:
    """Dtype in which scales and minima are stored."""
    return _SCALE_DTYPE[action.scale_dtype]


def decode(encoded: Encoded, action: Quantize) -> Tensor:
    """The float32 matrix that the codes stand for: scale · code (+ minimum), multiplied first, then added."""
    codes = encoded.codes
    matrix = torch.empty_like(codes, dtype=torch.float32)
    if not kernels.decode_into(matrix, codes, 8, encoded.scales, encoded.minima, action, codes.shape[0]):
        decode_rows_(matrix.copy_(codes), encoded.scales, encoded.minima, action)
    return matrix


def encode_into(
    stream: Tensor, width: int, matrix: Tensor, scales: Tensor, minima: Tensor | None, action: Quantize
) -> None:
    """Write the codes of a matrix that has these scales, of `width` bits each: the action's, or 8 for a byte each."""
    if kernels.encode_into(stream, width, matrix, scales, minima, action):
        return
    codes = torch.empty_like(matrix, dtype=torch.uint8)
    start = 0
    for block, code in zip(blocks(matrix, action), blocks(codes, action), strict=True):
        part = slice(start, start + block.shape[1])
        code.copy_(codes_of(block, scales[:, part], None if minima is None else minima[:, part], action))
        start = part.stop
    stream.copy_(pack_bits(codes, width))


def decode_rows_(matrix: Tensor, scales: Tensor, minima: Tensor | None, action: Quantize) -> None:
    """Turn codes, as float32, into weights in place."""
    start = 0
    for block in blocks(matrix, action):
        part = slice(start, start + block.shape[1])
        decode_(block, scales[:, part], None if minima is None else minima[:, part], action)
        start = part.stop


def blocks(matrix: Tensor, action: Quantize) -> list[Tensor]:
    """Views [·, groups, size] of a contiguous matrix whose last dimension shares a scale; a ragged end comes apart."""
    if action.granularity == "tensor":
        return [matrix.view(1, 1, -1)]
    columns = matrix.shape[1]
    size = action.group_size or columns
    full = columns - columns % size
    found = [matrix[:, :full].view(matrix.shape[0], -1, size)]
    if full < columns:
        found.append(matrix[:, full:].unsqueeze(1))
    return found


def codes_of(block: Tensor, scale: Tensor, minimum: Tensor | None, action: Quantize) -> Tensor:
    """Unsigned codes of a block as float32, not yet narrowed; scale and minimum [·, groups]."""
    if action.scheme == "symmetric" and action.bits == 1:
        return (block >= 0).to(torch.float32)
    # Dividing by inf where the scale is 0 gives code 0, hence exact zeros (or the exact minimum).
    whole = _WHOLE[action.rounding]
    step = scale.to(torch.float32).masked_fill(scale == 0, torch.inf).unsqueeze(-1)
    if minimum is None:
        q = 2 ** (action.bits - 1) - 1
        return whole(block / step).clamp_(-q, q).add_(q)
    return whole((block - minimum.to(torch.float32).unsqueeze(-1)).div_(step)).clamp_(0, 2**action.bits - 1)


def decode_(block: Tensor, scale: Tensor, minimum: Tensor | None, action: Quantize) -> Tensor:
    """Turn codes (float32) into weights, in place."""
    signed_(block, action).mul_(scale.to(torch.float32).unsqueeze(-1))
    if minimum is not None:
        block.add_(minimum.to(torch.float32).unsqueeze(-1))
    return block


def signed_(codes: Tensor, action: Quantize) -> Tensor:
    """Turn codes (float32) into what the scale multiplies, in place: −q…q or ±1 when symmetric, else themselves."""
    if action.scheme == "symmetric":
        if action.bits == 1:
            codes.mul_(2).sub_(1)
        else:
            codes.sub_(2 ** (action.bits - 1) - 1)
    return codes
