"""`quantize`: codes, scales, minima."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Layer, Quantize
from allocator.applier.gains import rows_times
from allocator.applier.kinds.kind import Kind, as_bytes, as_numbers
from allocator.applier.packing import pack_bits, unpack_bits
from allocator.applier.quantizer import Encoded, decode, encode, scale_dtype
from allocator.applier.weight import Weight


class QuantizeKind(Kind):
    """See `Quantize`; the arithmetic is in `allocator.applier.quantizer`."""

    def store(self, weight: Weight, action: Quantize) -> Tensor:
        """The stream of codes, then the scales, then (asymmetric) the minima."""
        encoded = encode(weight.matrix, action)
        parts = [pack_bits(encoded.codes, action.bits), as_bytes(encoded.scales)]
        return torch.cat(parts if encoded.minima is None else [*parts, as_bytes(encoded.minima)])

    def restore(self, buffer: Tensor, action: Quantize, layer: Layer) -> Tensor:
        """Scale · code (+ minimum)."""
        dtype, shape, at = scale_dtype(action), action.scale_shape(layer), action.code_bytes(layer)
        codes = unpack_bits(buffer[:at], action.bits, layer.weights).view(layer.rows, layer.columns)
        length = shape[0] * shape[1] * dtype.itemsize
        scales = as_numbers(buffer[at : at + length], dtype).view(shape)
        rest = buffer[at + length :]
        minima = as_numbers(rest, dtype).view(shape) if action.scheme == "asymmetric" else None
        return decode(Encoded(codes, scales, minima), action)

    def rescaled(self, buffer: Tensor, action: Quantize, layer: Layer, gain: Tensor) -> Tensor | None:
        """Scales and minima times the gain of their row; None where rows share a scale."""
        rows, groups = action.scale_shape(layer)
        if rows != layer.rows:
            return None
        at = action.code_bytes(layer)
        numbers = as_numbers(buffer[at:], scale_dtype(action)).view(-1, groups)
        # The minima, if there are any, follow the scales: rows and gains twice.
        return torch.cat([buffer[:at], as_bytes(rows_times(numbers, gain.repeat(len(numbers) // rows)))])

    def approximate(self, weight: Weight, action: Quantize) -> Tensor:
        """Without the way through the stream of bits."""
        return decode(encode(weight.matrix, action), action)
