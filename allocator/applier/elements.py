"""The values of the number formats and their codes: rounding a number to the nearest one, and back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from allocator.applier.kernels import at_once

_CHUNK = 1 << 16  # numbers looked up at a time: their temporaries stay in the cache, and small beside the matrix


class Elements(ABC):
    """The values of one format.

    Attributes:
        largest: the largest value, which a scale by max|w| gives to the largest weight.
    """

    largest: float

    @abstractmethod
    def codes(self, x: Tensor) -> Tensor:
        """uint8, the shape of x: codes of the nearest values to finite float32 numbers."""

    @abstractmethod
    def values(self, codes: Tensor) -> Tensor:
        """float32, the shape of codes: the values of codes."""


class Float8(Elements):
    """A floating-point format of torch; a code is its byte."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self.largest = torch.finfo(dtype).max

    def codes(self, x: Tensor) -> Tensor:
        """To nearest even, saturating."""
        return x.clamp(-self.largest, self.largest).to(self._dtype).view(torch.uint8)

    def values(self, codes: Tensor) -> Tensor:
        """The bytes read as numbers."""
        return codes.contiguous().view(self._dtype).to(torch.float32)


class Trits(Elements):
    """−1, 0 and 1, codes 0, 1 and 2; ±½ go to 0."""

    largest = 1.0

    def codes(self, x: Tensor) -> Tensor:
        """1 beyond ½."""
        return (x > 0.5).to(torch.uint8).add_(1).sub_((x < -0.5).view(torch.uint8))

    def values(self, codes: Tensor) -> Tensor:
        """Code − 1."""
        return codes.to(torch.float32).sub_(1)


class Codebook(Elements):
    """Any rising values; halfway between two, the one with the even code is taken.

    A number's cell, one of equal width, tells how many boundaries between values lie in the cells below, and the only
    one, if any, in its own: one look-up and one comparison whatever the number of values. The cell is a rising function
    even as it is rounded, so that the codes are exact.

    Args:
        values: rising.
        codes: of the values, different and below 2^bits.
        bits: of a code.
    """

    def __init__(self, values: Sequence[float], codes: Sequence[int], bits: int) -> None:
        self.largest = float(values[-1])
        rising = torch.tensor(values, dtype=torch.float32)
        halfway = (rising[1:].double() + rising[:-1].double()) / 2
        nearest = halfway.to(torch.float32)
        upper_is_even = torch.tensor([code % 2 == 0 for code in codes[1:]])
        over = (nearest > halfway) | ((nearest == halfway) & upper_is_even)
        # The largest number that goes to the lower value.
        self._boundaries = torch.where(over, nearest.nextafter(torch.tensor(-math.inf)), nearest)
        self._values = torch.zeros(2**bits).scatter_(0, torch.tensor(codes), rising)
        self._low = float(self._boundaries[0])
        span = float(self._boundaries[-1]) - self._low
        self._cells = 1
        self._per_unit = 0.0
        while len(set(self._cell(self._boundaries).tolist())) < len(codes) - 1:
            self._cells *= 2
            self._per_unit = self._cells / span
        cells = self._cell(self._boundaries).long()
        self._boundary = torch.full((self._cells + 1,), math.inf).scatter_(0, cells, self._boundaries)
        first = torch.bucketize(torch.arange(self._cells + 1), cells)  # boundaries in the cells below
        by_rank = torch.tensor(codes, dtype=torch.uint8)
        self._lower = by_rank[first]
        # Modulo 256, as uint8 adds: a sum is several times faster than a choice between two.
        self._step = by_rank[(first + 1).clamp_max(len(codes) - 1)] - self._lower

    def _cell(self, x: Tensor) -> Tensor:
        return ((x - self._low) * self._per_unit).clamp_(0, self._cells).to(torch.int32)

    def codes(self, x: Tensor) -> Tensor:
        """Codes of the nearest values."""
        flat = x.reshape(-1)
        out = torch.empty_like(flat, dtype=torch.uint8)
        boundary, lower, step = (table.to(x.device) for table in (self._boundary, self._lower, self._step))
        for start in range(0, flat.numel(), _CHUNK):
            part = flat[start : start + _CHUNK]
            cell = self._cell(part)
            above = (part > boundary.index_select(0, cell)).view(torch.uint8)
            torch.add(
                lower.index_select(0, cell), above.mul_(step.index_select(0, cell)), out=out[start : start + _CHUNK]
            )
        return out.view(x.shape)

    def values(self, codes: Tensor) -> Tensor:
        """Values of the codes; 0 for a code that has none."""
        flat = codes.reshape(-1)
        out = torch.empty_like(flat, dtype=torch.float32)
        values = self._values.to(codes.device)
        step = at_once(_CHUNK, codes)
        for start in range(0, flat.numel(), step):
            part = flat[start : start + step].to(torch.int32)
            torch.index_select(values, 0, part, out=out[start : start + step])
        return out.view(codes.shape)


# Appendix E of QLoRA. They are quantiles of the normal distribution, eight above zero and seven below, at equal steps
# of probability from 1/2 to .9677083, divided by the largest; a test works them out.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

ELEMENTS: Mapping[str, Elements] = {
    "nf4": Codebook(NF4, range(16), 4),
    "fp8_e4m3": Float8(torch.float8_e4m3fn),
    "fp8_e5m2": Float8(torch.float8_e5m2),
    "mxfp4": Codebook([-v for v in _E2M1[:0:-1]] + list(_E2M1), [*range(15, 8, -1), *range(8)], 4),
    "ternary": Trits(),
}
"""By the name that `NumberFormat` gives the format."""
