"""Digits 0, 1, 2 as bytes, five to each (3⁵ = 243): digit i of a byte Σ t_i 3^i is the one at 5·byte + i."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.applier.kernels import at_once

_EACH = 5
_CHUNK = 1 << 16  # bytes worked on at a time


def pack_trits(digits: Tensor) -> Tensor:
    """uint8 [ceil(n/5)] of uint8 digits [n], each below 3; spare digits of the last byte are 0."""
    flat = digits.reshape(-1)
    stream = flat.new_empty(-(-flat.numel() // _EACH))
    for start in range(0, stream.numel(), _CHUNK):
        part = flat[_EACH * start : _EACH * (start + _CHUNK)]
        missing = -part.numel() % _EACH
        if missing:
            part = torch.cat([part, part.new_zeros(missing)])
        columns = part.view(-1, _EACH)
        packed = columns[:, _EACH - 1].clone()
        for place in range(_EACH - 2, -1, -1):
            packed.mul_(3).add_(columns[:, place])
        stream[start : start + _CHUNK] = packed
    return stream


def unpack_trits(stream: Tensor, n: int) -> Tensor:
    """The n uint8 digits of a stream of ceil(n/5) bytes; what is in bytes above 242 is of no account."""
    powers = torch.tensor([3**place for place in range(_EACH)], device=stream.device)
    table = (torch.arange(256, device=stream.device).unsqueeze(1) // powers % 3).to(torch.uint8)
    digits = stream.new_empty(stream.numel(), _EACH)
    step = at_once(_CHUNK, stream)
    for start in range(0, stream.numel(), step):
        part = stream[start : start + step].to(torch.int32)
        torch.index_select(table, 0, part, out=digits[start : start + step])
    return digits.view(-1)[:n]
