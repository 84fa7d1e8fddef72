"""Stored numbers multiplied row by row."""

from __future__ import annotations

import torch
from torch import Tensor


def rows_times(numbers: Tensor, gain: Tensor) -> Tensor:
    """numbers [rows, n] times gain [rows]: the nearest of their dtype by way of float32, saturated at its range."""
    limit = torch.finfo(numbers.dtype).max
    product = numbers.double() * gain.to(numbers.device, torch.float64).unsqueeze(1)
    return product.clamp_(-limit, limit).to(torch.float32).to(numbers.dtype)
