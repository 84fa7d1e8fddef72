"""Codes of 1 to 8 bits as one stream of bytes: code i fills bits i·b to i·b + b − 1, lowest bit of a byte first."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.applier.kernels import at_once, pack_codes, unpack_codes

_CHUNK = 1 << 18  # codes worked on at a time: the temporaries of a chunk stay in the cache
_LANES = ((8, 0x00FF00FF00FF00FF), (16, 0x0000FFFF0000FFFF), (32, 0x00000000FFFFFFFF))
_UNIT = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def packed_bytes(n: int, bits: int) -> int:
    """Length of the stream of n codes: ceil(n·bits/8)."""
    return -(-n * bits // 8)


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """The stream [packed_bytes(n, bits)] of uint8 codes [n], each below 2^bits; spare bits of the last byte are 0."""
    flat = codes.reshape(-1)
    if bits == 8:
        return flat.clone()
    stream = flat.new_empty(packed_bytes(flat.numel(), bits))
    if pack_codes(flat, bits, stream):
        return stream
    for start in range(0, flat.numel(), _CHUNK):
        chunk = flat[start : start + _CHUNK]
        at = start * bits // 8
        stream[at : at + packed_bytes(chunk.numel(), bits)] = _pack_chunk(chunk, bits)
    return stream


def unpack_bits(stream: Tensor, bits: int, n: int) -> Tensor:
    """The n uint8 codes of a stream of packed_bytes(n, bits) bytes."""
    if stream.numel() != packed_bytes(n, bits):
        raise ValueError(f"{n} codes of {bits} bits are {packed_bytes(n, bits)} bytes, not {stream.numel()}")
    if bits == 8:
        return stream.clone()
    codes = stream.new_empty(n)
    if unpack_codes(stream, bits, codes):
        return codes
    step = at_once(_CHUNK, stream)
    for start in range(0, n, step):
        stop = min(start + step, n)
        at = start * bits // 8
        codes[start:stop] = _unpack_chunk(stream[at : at + packed_bytes(stop - start, bits)], bits, stop - start)
    return codes


def unpack_rows(stream: Tensor, bits: int, rows: int, columns: int, index: Tensor) -> Tensor:
    """uint8 [n, columns]: the codes of rows index [n] of a stream of rows × columns; rows may begin within a byte."""
    if columns * bits % 8 == 0:
        taken = stream.view(rows, -1)[index].view(-1)
        return unpack_bits(taken, bits, len(index) * columns).view(-1, columns)
    words = -(-columns // 8)
    first = index * (columns * bits)
    at = (first // 8).unsqueeze(1) + torch.arange(words * bits + 1, device=stream.device)
    taken = stream[at.clamp_(max=stream.numel() - 1)].to(torch.int16)  # beyond the end lies nothing that is asked for
    moved = (taken[:, :-1] | taken[:, 1:] << 8) >> (first % 8).unsqueeze(1) & 255
    codes = unpack_bits(moved.to(torch.uint8).view(-1), bits, len(index) * words * 8)
    return codes.view(len(index), -1)[:, :columns]


# Eight codes are one 64-bit word with b live bits in each byte. Folding neighbours together three times
# (bytes into 16-bit lanes, those into 32-bit lanes, those into the word) leaves 8·b adjacent bits = b bytes.


def _pack_chunk(codes: Tensor, bits: int) -> Tensor:
    n = codes.numel()
    whole = -(-n // 8) * 8
    words = codes.new_zeros(whole)
    words[:n] = codes
    x = words.view(torch.int64)
    live = bits
    for lane, mask in _LANES:
        x = (x & mask) | ((x >> (lane - live)) & (mask << live))
        live *= 2
    unit = bits & -bits
    dense = x.view(_UNIT[unit]).view(-1, 8 // unit)[:, : bits // unit].contiguous()
    return dense.view(torch.uint8).view(-1)[: packed_bytes(n, bits)]


def _unpack_chunk(stream: Tensor, bits: int, n: int) -> Tensor:
    unit = bits & -bits
    count = -(-n // 8)
    dense = stream.new_zeros(count * bits)
    dense[: stream.numel()] = stream
    x = stream.new_zeros(count, 8)
    x.view(_UNIT[unit])[:, : bits // unit] = dense.view(_UNIT[unit]).view(count, -1)
    words = x.view(torch.int64).view(-1)
    live = 4 * bits
    for lane, mask in reversed(_LANES):
        low = (1 << live) - 1
        keep = low * (mask // ((1 << lane) - 1))
        words = (words & keep) | ((words & (keep << live)) << (lane - live))
        live //= 2
    return words.view(torch.uint8)[:n]
