"""Codes and scales of a weight matrix, and the matrix that they stand for: the arithmetic of `Quantize`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from allocator.actions import Quantize
from allocator.applier import kernels
from allocator.applier.packing import pack_bits

CLIPPING = tuple(k / 32 for k in range(32, 3, -1))
"""Clipping factors that method mse tries, from 1 (none) down to 1/8; 2 bits on Gaussian weights wants about 1/3."""

_WHOLE = {"nearest": torch.Tensor.round_, "floor": torch.Tensor.floor_, "ceil": torch.Tensor.ceil_}

_SCALE_DTYPE = {"float16": torch.float16, "float32": torch.float32}
_HALF = torch.finfo(torch.float16)


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


def encode(matrix: Tensor, action: Quantize) -> Encoded:
    """Quantise a contiguous float32 matrix [rows, columns], finite, as `Quantize` says.

    Codes are exact functions of the weights and the rounded scales. The sums behind 1-bit scales and the mse search
    are taken in float64, so that neither the number of threads nor their order shows in a float16 scale.
    """
    scales, minima = fit(matrix, action)
    codes = torch.empty_like(matrix, dtype=torch.uint8)
    encode_into(codes.view(-1), 8, matrix, scales, minima, action)
    return Encoded(codes, scales, minima)


def decode(encoded: Encoded, action: Quantize) -> Tensor:
    """The float32 matrix that the codes stand for: scale · code (+ minimum), multiplied first, then added."""
    codes = encoded.codes
    matrix = torch.empty_like(codes, dtype=torch.float32)
    if not kernels.decode_into(matrix, codes, 8, encoded.scales, encoded.minima, action, codes.shape[0]):
        decode_rows_(matrix.copy_(codes), encoded.scales, encoded.minima, action)
    return matrix


def fit(matrix: Tensor, action: Quantize) -> tuple[Tensor, Tensor | None]:
    """Scales and, when asymmetric, minima of a matrix, as in `Encoded`."""
    native = None if action.method == "mse" else _fit_natively(matrix, action)
    if native is not None:
        return native
    fitted = [_fit(block, action) for block in _blocks(matrix, action)]
    minima = [minimum for _, minimum in fitted if minimum is not None]
    return torch.cat([scale for scale, _ in fitted], 1), torch.cat(minima, 1) if minima else None


def encode_into(
    stream: Tensor, width: int, matrix: Tensor, scales: Tensor, minima: Tensor | None, action: Quantize
) -> None:
    """Write the codes of a matrix that has these scales, of `width` bits each: the action's, or 8 for a byte each."""
    if kernels.encode_into(stream, width, matrix, scales, minima, action):
        return
    codes = torch.empty_like(matrix, dtype=torch.uint8)
    start = 0
    for block, code in zip(_blocks(matrix, action), _blocks(codes, action), strict=True):
        part = slice(start, start + block.shape[1])
        code.copy_(_codes(block, scales[:, part], None if minima is None else minima[:, part], action))
        start = part.stop
    stream.copy_(pack_bits(codes, width))


def decode_rows_(matrix: Tensor, scales: Tensor, minima: Tensor | None, action: Quantize) -> None:
    """Turn codes, as float32, into weights in place."""
    start = 0
    for block in _blocks(matrix, action):
        part = slice(start, start + block.shape[1])
        _decode_(block, scales[:, part], None if minima is None else minima[:, part], action)
        start = part.stop


def _blocks(matrix: Tensor, action: Quantize) -> list[Tensor]:
    """Views [·, groups, size] of a contiguous matrix whose last dimension shares a scale; a ragged end comes apart."""
    if action.granularity == "tensor":
        return [matrix.view(1, 1, -1)]
    columns = matrix.shape[1]
    size = action.group_size or columns
    full = columns - columns % size
    blocks = [matrix[:, :full].view(matrix.shape[0], -1, size)]
    if full < columns:
        blocks.append(matrix[:, full:].unsqueeze(1))
    return blocks


def _fit_natively(matrix: Tensor, action: Quantize) -> tuple[Tensor, Tensor | None] | None:
    """The same as `_fit` of all blocks, one pass over the matrix; None where the kernels do not reach."""
    rows, columns = matrix.shape if action.granularity != "tensor" else (1, matrix.numel())
    size = action.group_size or columns
    shape = rows, -(-columns // size)
    if action.directed:
        low, high = matrix.new_empty(shape), matrix.new_empty(shape)
        if not kernels.find_ranges(matrix, action, low, high):
            return None
        return _parameters(low.double(), high.double(), CLIPPING[0], action)
    sums = matrix.new_empty(shape, dtype=torch.float64)
    if not kernels.find_sizes(matrix, action, sums):
        return None
    counts = torch.full((shape[1],), size, dtype=torch.float64)
    counts[-1] = columns - (shape[1] - 1) * size
    return _narrow(sums / counts, scale_dtype(action)), None


def _fit(block: Tensor, action: Quantize) -> tuple[Tensor, Tensor | None]:
    if action.scheme == "symmetric" and action.bits == 1:
        mean = block.abs().mean(-1, dtype=torch.float64)
        return _narrow(mean, scale_dtype(action)), None
    low, high = block.amin(-1).double(), block.amax(-1).double()
    scale, minimum = _parameters(low, high, CLIPPING[0], action)
    if action.method != "mse":
        return scale, minimum
    least = _squared_error(block, scale, minimum, action)
    for factor in CLIPPING[1:]:
        candidate, floor = _parameters(low, high, factor, action)
        error = _squared_error(block, candidate, floor, action)
        better = error < least
        least = torch.where(better, error, least)
        scale = torch.where(better, candidate, scale)
        if minimum is not None and floor is not None:
            minimum = torch.where(better, floor, minimum)
    return scale, minimum


def _parameters(low: Tensor, high: Tensor, factor: float, action: Quantize) -> tuple[Tensor, Tensor | None]:
    """Rounded scale and minimum for the range [low, high] shrunk by `factor` about 0 (symmetric) or its centre."""
    dtype = scale_dtype(action)
    if action.scheme == "symmetric":
        reach = torch.maximum(-low, high) * factor
        return _round_scale(reach / (2 ** (action.bits - 1) - 1), dtype), None
    cut = (1 - factor) * (high - low) / 2
    return _round_scale((high - low - 2 * cut) / (2**action.bits - 1), dtype), _narrow(low + cut, dtype)


def _round_scale(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Nearest number of the dtype, with float16's edges handled.

    Above its range: saturated (the largest weights are clipped). Among its subnormals, whose spacing 2^−24 is coarse
    beside the value, rounded up: rounding down could clip the largest weight by a third, or to zero.
    """
    scale = scale.abs()  # the range of zeros may come as −0
    if dtype == torch.float16:
        step = _HALF.smallest_normal * _HALF.eps
        up = torch.ceil(scale / step) * step
        scale = torch.where(scale < _HALF.smallest_normal, up, scale)
    return _narrow(scale, dtype)


def _narrow(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Nearest number of the dtype, by way of float32 as torch's own cast goes; saturated at the dtype's range."""
    limit = torch.finfo(dtype).max
    return value.clamp(-limit, limit).to(torch.float32).to(dtype)


def _codes(block: Tensor, scale: Tensor, minimum: Tensor | None, action: Quantize) -> Tensor:
    """Unsigned codes as float32, not yet narrowed."""
    if action.scheme == "symmetric" and action.bits == 1:
        return (block >= 0).to(torch.float32)
    # Dividing by inf where the scale is 0 gives code 0, hence exact zeros (or the exact minimum).
    whole = _WHOLE[action.rounding]
    step = scale.to(torch.float32).masked_fill(scale == 0, torch.inf).unsqueeze(-1)
    if minimum is None:
        q = 2 ** (action.bits - 1) - 1
        return whole(block / step).clamp_(-q, q).add_(q)
    return whole((block - minimum.to(torch.float32).unsqueeze(-1)).div_(step)).clamp_(0, 2**action.bits - 1)


def _decode_(block: Tensor, scale: Tensor, minimum: Tensor | None, action: Quantize) -> Tensor:
    """Turn codes (float32) into weights, in place."""
    if action.scheme == "symmetric":
        if action.bits == 1:
            block.mul_(2).sub_(1)
        else:
            block.sub_(2 ** (action.bits - 1) - 1)
    block.mul_(scale.to(torch.float32).unsqueeze(-1))
    if minimum is not None:
        block.add_(minimum.to(torch.float32).unsqueeze(-1))
    return block


def _squared_error(block: Tensor, scale: Tensor, minimum: Tensor | None, action: Quantize) -> Tensor:
    error = _decode_(_codes(block, scale, minimum, action), scale, minimum, action).sub_(block)
    return error.square_().sum(-1, dtype=torch.float64)
