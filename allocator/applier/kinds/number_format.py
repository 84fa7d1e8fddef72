"""`number_format`: codes of NF4, FP8, MXFP4 or trits, then scales."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Layer, NumberFormat
from allocator.actions.number_format import FORMAT_BITS
from allocator.applier.gains import rows_times
from allocator.applier.importance import importance
from allocator.applier.kinds.kind import Kind, as_bytes, as_numbers
from allocator.applier.number_formats import DTYPES, Coded, decode, encode
from allocator.applier.packing import pack_bits, unpack_bits
from allocator.applier.trits import pack_trits, unpack_trits
from allocator.applier.weight import Weight


class NumberFormatKind(Kind):
    """See `NumberFormat`; the arithmetic is in `allocator.applier.number_formats`."""

    def slow(self, action: NumberFormat) -> bool:
        """Where scales are searched for, which takes many times as long as reading the codes again."""
        return action.method == "mse"

    def store(self, weight: Weight, action: NumberFormat) -> Tensor:
        """The codes, then the scales."""
        coded = encode(weight.matrix, action, importance(weight, action))
        ternary = action.format == "ternary"
        codes = pack_trits(coded.codes) if ternary else pack_bits(coded.codes, FORMAT_BITS[action.format])
        return torch.cat([codes, as_bytes(coded.scales)])

    def restore(self, buffer: Tensor, action: NumberFormat, layer: Layer) -> Tensor:
        """Scale · value."""
        at = action.code_bytes(layer)
        if action.format == "ternary":
            codes = unpack_trits(buffer[:at], layer.weights)
        else:
            codes = unpack_bits(buffer[:at], FORMAT_BITS[action.format], layer.weights)
        scales = as_numbers(buffer[at:], DTYPES[action.scale_dtype]).view(action.scale_shape(layer))
        return decode(Coded(codes.view(layer.rows, layer.columns), scales), action)

    def rescaled(self, buffer: Tensor, action: NumberFormat, layer: Layer, gain: Tensor) -> Tensor | None:
        """Scales times the gain of their row; None for powers of two and where rows share a scale."""
        shape, at = action.scale_shape(layer), action.code_bytes(layer)
        if action.scale_dtype is None or shape[0] != layer.rows:
            return None
        scales = as_numbers(buffer[at:], DTYPES[action.scale_dtype]).view(shape)
        return torch.cat([buffer[:at], as_bytes(rows_times(scales, gain))])

    def approximate(self, weight: Weight, action: NumberFormat) -> Tensor:
        """Without the way through the stream of codes."""
        return decode(encode(weight.matrix, action, importance(weight, action)), action)
