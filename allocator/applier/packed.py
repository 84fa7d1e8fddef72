"""The stored form of a weight: one buffer of exactly `stored_bytes` bytes, and back, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Action, Keep, Layer, LowRank, Quantize
from allocator.applier.approximate import KEEP_DTYPE, Approximator, keep_values, to_matrix
from allocator.applier.packing import pack_bits, unpack_bits
from allocator.applier.quantizer import Encoded, decode, encode, scale_dtype
from allocator.errors import ActionError


def pack(weight: Tensor, action: Action, layer: Layer) -> Tensor:
    """uint8 [stored_bytes]: for `quantize` codes, scales, minima; for `keep` the numbers; for `low_rank` left, right.

    Numbers are little-endian. Equal inputs give equal bytes.

    Raises:
        ActionError: as `approximate`.
    """
    action.check(layer)
    if isinstance(action, LowRank):
        factors = Approximator(weight, layer).exact_factors(action.rank, action.components)
        parts = zip(factors, (action.left, action.right), strict=True)
        return torch.cat([_pack_matrix(matrix, factor) for matrix, factor in parts])
    return _pack_matrix(to_matrix(weight, layer), action)


def unpack(buffer: Tensor, action: Action, layer: Layer, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weight that a packed buffer stands for; equal bit for bit to `approximate` of the weight it came from.

    Raises:
        ActionError: the buffer is not uint8 [stored_bytes].
    """
    if isinstance(action, LowRank):
        left, right = unpack_factors(buffer, action, layer)
        return (left @ right).reshape(layer.weight_shape).to(dtype)
    _require_size(buffer, action, layer)
    return _unpack_matrix(buffer, action, layer).reshape(layer.weight_shape).to(dtype)


def unpack_factors(
    buffer: Tensor, action: LowRank, layer: Layer, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """left [rows, rank] and right [rank, columns] of a packed low-rank weight; ActionError as `unpack`."""
    _require_size(buffer, action, layer)
    left_layer, right_layer = action.factor_layers(layer)
    split = action.left.stored_bytes(left_layer)
    left = _unpack_matrix(buffer[:split], action.left, left_layer)
    right = _unpack_matrix(buffer[split:], action.right, right_layer)
    return left.to(dtype), right.to(dtype)


def _require_size(buffer: Tensor, action: Action, layer: Layer) -> None:
    need = action.stored_bytes(layer)
    if buffer.dtype != torch.uint8 or buffer.shape != (need,):
        raise ActionError(
            f"{action.kind} of a {layer.kind} of shape {layer.weight_shape} is stored as uint8 [{need}], "
            f"not {buffer.dtype} {list(buffer.shape)}; the buffer belongs to another action or layer"
        )


def _pack_matrix(matrix: Tensor, action: Action) -> Tensor:
    match action:
        case Keep():
            return _bytes(keep_values(matrix, action))
        case Quantize():
            encoded = encode(matrix, action)
            parts = [pack_bits(encoded.codes, action.bits), _bytes(encoded.scales)]
            return torch.cat(parts if encoded.minima is None else [*parts, _bytes(encoded.minima)])
        case _:
            raise ActionError(f"action kind {action.kind!r} cannot be packed; known: keep, low_rank, quantize")


def _unpack_matrix(buffer: Tensor, action: Action, layer: Layer) -> Tensor:
    match action:
        case Keep():
            numbers = _numbers(buffer, KEEP_DTYPE[action.dtype])
            return numbers.view(layer.rows, layer.columns).to(torch.float32)
        case Quantize():
            dtype, shape, at = scale_dtype(action), action.scale_shape(layer), action.code_bytes(layer)
            codes = unpack_bits(buffer[:at], action.bits, layer.weights).view(layer.rows, layer.columns)
            length = shape[0] * shape[1] * dtype.itemsize
            scales = _numbers(buffer[at : at + length], dtype).view(shape)
            rest = buffer[at + length :]
            minima = _numbers(rest, dtype).view(shape) if action.scheme == "asymmetric" else None
            return decode(Encoded(codes, scales, minima), action)
        case _:
            raise ActionError(f"action kind {action.kind!r} cannot be unpacked; known: keep, low_rank, quantize")


def _bytes(numbers: Tensor) -> Tensor:
    return numbers.contiguous().view(-1).view(torch.uint8)


def _numbers(buffer: Tensor, dtype: torch.dtype) -> Tensor:
    # A slice may start at an odd byte, where a view in another dtype is refused; the copy is aligned.
    return buffer.clone().view(dtype)
