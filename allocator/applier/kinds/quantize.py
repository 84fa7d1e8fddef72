"""`quantize`: codes, scales, minima."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Layer, Quantize
from allocator.applier import kernels
from allocator.applier.codes import decode, decode_rows_, encode_into, scale_dtype
from allocator.applier.compensated import encode_compensated
from allocator.applier.gains import rows_times
from allocator.applier.kinds.kind import Kind, as_bytes, as_numbers
from allocator.applier.packing import pack_bits, packed_bytes, unpack_bits, unpack_rows
from allocator.applier.quantizer import encode, fitted
from allocator.applier.weight import Weight

_CHUNK = 1 << 18
"""Weights that torch decodes at a time, so that no whole matrix of codes ever stands beside that of the weights."""


class QuantizeKind(Kind):
    """See `Quantize`; the arithmetic is in `allocator.applier.quantizer` and, for gptq, `compensated`."""

    def slow(self, action: Quantize) -> bool:
        """Where roundings make each other good."""
        return action.method == "gptq"

    def store(self, weight: Weight, action: Quantize) -> Tensor:
        """The stream of codes, then the scales, then (asymmetric) the minima."""
        matrix = weight.matrix
        buffer = torch.empty(action.stored_bytes(weight.layer), dtype=torch.uint8, device=matrix.device)
        stream, *places = _parts(buffer, action, weight.layer)
        if action.method == "gptq":
            encoded = encode_compensated(weight, action)
            scales, minima = encoded.scales, encoded.minima
            stream.copy_(pack_bits(encoded.codes, action.bits))
        else:
            scales, minima = fitted(matrix, action)
            encode_into(stream, action.bits, matrix, scales, minima, action)
        for place, numbers in zip(places, (scales, minima), strict=False):
            assert numbers is not None, "minima have a place where there are some"
            place.copy_(as_bytes(numbers))
        return buffer

    def restore(self, buffer: Tensor, action: Quantize, layer: Layer) -> Tensor:
        """Scale · code (+ minimum), without a matrix of codes on the way."""
        out = torch.empty(layer.rows, layer.columns, device=buffer.device)
        stream, *stored = _parts(buffer, action, layer)
        if kernels.decode_into(out, stream, action.bits, stored[0], _second(stored), action, layer.rows):
            return out
        numbers = _numbers(stored, action, layer)
        step = max(8, kernels.at_once(_CHUNK, buffer) // layer.columns // 8 * 8)  # eight rows fill whole bytes
        for start in range(0, layer.rows, step):
            part = out[start : start + step]
            at = start * layer.columns * action.bits // 8
            codes = stream[at : at + packed_bytes(part.numel(), action.bits)]
            part.copy_(unpack_bits(codes, action.bits, part.numel()).view_as(part))
            of = [n if action.granularity == "tensor" else n[start : start + step] for n in numbers]
            decode_rows_(part, of[0], _second(of), action)
        return out

    def restore_rows(self, buffer: Tensor, action: Quantize, layer: Layer, index: Tensor) -> Tensor:
        """Those rows' codes alone, wherever their bits begin."""
        out = torch.empty(index.numel(), layer.columns, device=buffer.device)
        stream, *stored = _parts(buffer, action, layer)
        if kernels.decode_into(out, stream, action.bits, stored[0], _second(stored), action, layer.rows, index):
            return out
        out.copy_(unpack_rows(stream, action.bits, layer.rows, layer.columns, index))
        of = [n if action.granularity == "tensor" else n[index] for n in _numbers(stored, action, layer)]
        decode_rows_(out, of[0], _second(of), action)
        return out

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
        compensated = action.method == "gptq"
        return decode(encode_compensated(weight, action) if compensated else encode(weight.matrix, action), action)


def _parts(buffer: Tensor, action: Quantize, layer: Layer) -> tuple[Tensor, ...]:
    """Stream, scales and, when asymmetric, minima, as bytes within the buffer."""
    rows, groups = action.scale_shape(layer)
    length = rows * groups * scale_dtype(action).itemsize
    sizes = [action.code_bytes(layer), *[length] * (2 if action.scheme == "asymmetric" else 1)]
    return buffer.split_with_sizes(sizes)


def _numbers(stored: list[Tensor], action: Quantize, layer: Layer) -> list[Tensor]:
    return [as_numbers(part, scale_dtype(action)).view(action.scale_shape(layer)) for part in stored]


def _second(numbers: list[Tensor]) -> Tensor | None:
    return numbers[1] if len(numbers) > 1 else None
