"""`quantize`: codes, scales, minima."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Layer, Quantize
from allocator.applier.codes import Encoded, decode, scale_dtype
from allocator.applier.compensated import encode_compensated
from allocator.applier.kinds.kind import Kind, as_bytes, as_numbers
from allocator.applier.packing import pack_bits, unpack_bits
from allocator.applier.quantizer import encode
from allocator.applier.weight import Weight


class QuantizeKind(Kind):
    """See `Quantize`; the arithmetic is in `allocator.applier.quantizer` and, for gptq, `compensated`."""

    def store(self, weight: Weight, action: Quantize) -> Tensor:
        """The stream of codes, then the scales, then (asymmetric) the minima."""
        encoded = _encoded(weight, action)
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

    def approximate(self, weight: Weight, action: Quantize) -> Tensor:
        """Without the way through the stream of bits."""
        return decode(_encoded(weight, action), action)


def _encoded(weight: Weight, action: Quantize) -> Encoded:
    """gptq takes long enough to be done once for each action on a weight."""
    if action.method != "gptq":
        return encode(weight.matrix, action)
    return weight.remember(("quantize", repr(action)), lambda: encode_compensated(weight, action))
