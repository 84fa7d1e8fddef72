"""The kept weights of `Prune` as codes: which scale belongs to which, and how they are stored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from allocator.actions import Layer, Prune, Quantize
from allocator.applier.codes import Encoded, decode, scale_dtype
from allocator.applier.kinds.kind import as_bytes, as_numbers
from allocator.applier.packing import pack_bits, unpack_bits
from allocator.applier.positions import write_bitmap
from allocator.applier.quantizer import encode


@dataclass(frozen=True)
class CodedValues:
    """Quantised values [k] in the order of their places.

    Attributes:
        signs: bool [k], whether a value is ≥ 0, where codes stand for magnitudes; None where they stand for values.
        codes: uint8 [k].
        scales: [S] in the scale dtype.
        minima: like scales; None when symmetric.
        scale_of: int64 [k]: which scale each value has.
    """

    signs: Tensor | None
    codes: Tensor
    scales: Tensor
    minima: Tensor | None
    scale_of: Tensor

    def stored(self, bits: int) -> Tensor:
        """Signs, codes, scales, minima, those that there are."""
        parts = [pack_bits(self.codes, bits), as_bytes(self.scales)]
        if self.minima is not None:
            parts.append(as_bytes(self.minima))
        return torch.cat(parts if self.signs is None else [write_bitmap(self.signs), *parts])


def code_values(values: Tensor, mask: Tensor, action: Prune, layer: Layer) -> CodedValues:
    """Scales and nearest codes of kept values float32 [k], whose places are marked in bool [rows, columns]."""
    how = action.values
    assert isinstance(how, Quantize), "only it has codes"
    signs = None
    if action.signs == "apart":
        signs, values = values >= 0, values.abs()
    if action.scale_per_row:
        return _per_row(signs, values, mask.sum(1), how)
    shape = action.values_layer(layer)
    matrix = values.view(shape.rows, shape.columns)
    encoded = encode(matrix, how)
    _, groups = how.scale_shape(shape)
    slots = torch.zeros_like(matrix, dtype=torch.int64)
    if how.granularity != "tensor":
        size = how.group_size or shape.columns
        slots += torch.arange(shape.columns, device=values.device).div_(size, rounding_mode="floor")
        slots += groups * torch.arange(shape.rows, device=values.device).unsqueeze(1)
    minima = None if encoded.minima is None else encoded.minima.reshape(-1)
    return CodedValues(signs, encoded.codes.view(-1), encoded.scales.reshape(-1), minima, slots.view(-1))


def _per_row(signs: Tensor | None, values: Tensor, counts: Tensor, how: Quantize) -> CodedValues:
    """Rows of equal length are quantised together; a row without kept weights has scale 0 (and minimum 0)."""
    starts = counts.cumsum(0) - counts
    codes = torch.empty_like(values, dtype=torch.uint8)
    scales = torch.zeros(len(counts), dtype=scale_dtype(how), device=values.device)
    minima = torch.zeros_like(scales) if how.scheme == "asymmetric" else None
    for count in sorted(set(counts.tolist())):
        rows = (counts == count).nonzero().view(-1)
        if count:
            at = starts[rows].unsqueeze(1) + torch.arange(count, device=values.device)
            encoded = encode(values[at], how)
            codes[at] = encoded.codes
            scales[rows] = encoded.scales[:, 0]
            if minima is not None and encoded.minima is not None:
                minima[rows] = encoded.minima[:, 0]
    return CodedValues(signs, codes, scales, minima, torch.repeat_interleave(counts))


def restore_per_row(buffer: Tensor, mask: Tensor, kept: int, action: Prune) -> Tensor:
    """float32 [rows, columns], 0 where nothing was kept, of codes with a scale per row of the weight; no signs yet.

    ``kept``: how many places the mask marks.
    """
    how = action.values
    assert isinstance(how, Quantize), "only it has codes"
    dtype, at = scale_dtype(how), -(-kept * how.bits // 8)
    numbers = as_numbers(buffer[at:], dtype).view(-1, mask.shape[0], 1)
    # In their places the codes are a dense matrix, whose decoding takes no more room than the matrix itself.
    codes = torch.zeros_like(mask, dtype=torch.uint8).masked_scatter_(mask, unpack_bits(buffer[:at], how.bits, kept))
    matrix = decode(Encoded(codes, numbers[0], numbers[1] if how.scheme == "asymmetric" else None), how)
    return matrix.masked_fill_(~mask, 0.0)
