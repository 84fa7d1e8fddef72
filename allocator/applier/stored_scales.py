"""Scales as they are stored: rounded to a dtype, or to a power of two."""

from __future__ import annotations

import torch
from torch import Tensor

_HALF = torch.finfo(torch.float16)
_HALF_STEP = _HALF.smallest_normal * _HALF.eps
_MANTISSA_BITS = 23
_LEAST_POWER = 1 << (_MANTISSA_BITS - 1)  # the bits of 2^−127, a subnormal float32


def narrow(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Nearest number of the dtype, by way of float32 as torch's own cast goes; saturated at the dtype's range."""
    limit = torch.finfo(dtype).max
    return value.clamp(-limit, limit).to(torch.float32).to(dtype)


def narrow_reach(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The same for a scale that must reach the largest weight: away from zero among float16's subnormals.

    Their spacing 2^−24 is coarse beside the value: rounding down could clip the largest weight by a third, or to zero.
    """
    if dtype == torch.float16:
        out = torch.ceil(value.abs() / _HALF_STEP).copysign(value) * _HALF_STEP
        value = torch.where(value.abs() < _HALF.smallest_normal, out, value)
    return narrow(value, dtype)


def power_below(value: Tensor) -> Tensor:
    """int32 e with 2^(e−127) the largest power of two ≤ value, float32 ≥ 0; 0 for what lies below 2^−126."""
    return value.contiguous().view(torch.int32) >> _MANTISSA_BITS


def power(e: Tensor) -> Tensor:
    """float32 2^(e−127) of bytes e below 255: the scale E8M0."""
    bits = e.to(torch.int32) << _MANTISSA_BITS
    return torch.where(e == 0, _LEAST_POWER, bits).view(torch.float32)
