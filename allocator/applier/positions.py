"""Which of n places are marked, as a stream of bytes: a bitmap or Elias–Fano coding, whichever is shorter.

While a graph is recorded nothing can be looked at: streams are then read unchecked, by as many places as are stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions.positions import EliasFano, cheapest_form
from allocator.applier.kernels import at_once, readable
from allocator.applier.packing import pack_bits, unpack_bits
from allocator.errors import ActionError

_CHUNK = 1 << 18


def write_mask(mask: Tensor) -> Tensor:
    """uint8 stream of a bool mask [n] of which at least one place is marked, in the form of `cheapest_form`."""
    n, k = mask.numel(), int(mask.sum())
    form, _ = cheapest_form(n, k)
    if form == "nothing":
        return torch.empty(0, dtype=torch.uint8, device=mask.device)
    if form == "bitmap":
        return write_bitmap(mask)
    return write_rising((mask if form == "marked" else ~mask).nonzero().view(-1), n)


def read_mask(stream: Tensor, n: int, k: int) -> Tensor:
    """The bool mask [n] with k marked places that a stream stands for; ActionError when it cannot be one."""
    form, _ = cheapest_form(n, k)
    if form == "nothing":
        return torch.ones(n, dtype=torch.bool, device=stream.device)
    if form == "bitmap":
        return read_bitmap(stream, n, k)
    mask = torch.full((n,), form == "unmarked", dtype=torch.bool, device=stream.device)
    mask[read_rising(stream, n, k if form == "marked" else n - k)] = form == "marked"
    return mask


def write_bitmap(mask: Tensor) -> Tensor:
    """A bit for each place of a bool mask, lowest bit of a byte first."""
    return pack_bits(mask.view(torch.uint8), 1)


def read_bitmap(stream: Tensor, n: int, k: int) -> Tensor:
    """The bool mask [n] of a bitmap; ActionError unless k places of it are marked."""
    mask = unpack_bits(stream, 1, n).view(torch.bool)
    if readable(mask) and int(mask.sum()) != k:
        raise ActionError(f"a buffer marks {int(mask.sum())} of {n} places where {k} are stored; it is damaged")
    return mask


def write_rising(numbers: Tensor, n: int) -> Tensor:
    """Elias–Fano stream of rising numbers below n, int64 [k]: low bits, then high parts in unary."""
    code = EliasFano(n, numbers.numel())
    high = torch.zeros(code.high_bits, dtype=torch.uint8, device=numbers.device)
    high[(numbers >> code.low_bits) + torch.arange(code.k, device=numbers.device)] = 1
    return torch.cat([_write_low(numbers, code.low_bits), pack_bits(high, 1)])


def read_rising(stream: Tensor, n: int, k: int) -> Tensor:
    """The k rising numbers below n of a stream; ActionError when there are none such."""
    code = EliasFano(n, k)
    high = unpack_bits(stream[code.low_bytes :], 1, code.high_bits)
    checked = readable(high)
    ones = (high.nonzero() if checked else torch.nonzero_static(high, size=k)).view(-1)
    if ones.numel() == k:
        numbers = ones.sub_(torch.arange(k, device=stream.device)).bitwise_left_shift_(code.low_bits)
        numbers.add_(_read_low(stream[: code.low_bytes], code.low_bits, k))
        if not checked or (int(numbers[-1]) < n and bool((numbers.diff() > 0).all())):
            return numbers
    raise ActionError(f"a buffer holds no {k} rising places below {n}; it is damaged")


def _write_low(numbers: Tensor, bits: int) -> Tensor:
    """The low bits of each number as one stream, number i from bit i·bits on."""
    if bits <= 8:
        return pack_bits((numbers & ((1 << bits) - 1)).to(torch.uint8), bits) if bits else numbers.new_empty(0).byte()
    places = torch.arange(bits, device=numbers.device)
    return pack_bits(((numbers.unsqueeze(1) >> places) & 1).to(torch.uint8), 1)


def _read_low(stream: Tensor, bits: int, k: int) -> Tensor:
    if bits == 0:
        return torch.zeros(1, dtype=torch.int64, device=stream.device)
    if bits <= 8:
        return unpack_bits(stream, bits, k)
    # So many bits mean fewer numbers than one in 256 places: a number's bits apart take no room that counts.
    places = torch.arange(bits, device=stream.device)
    return (unpack_bits(stream, 1, k * bits).view(k, bits).to(torch.int64) << places).sum(1)


def write_places(mask: Tensor, block: int) -> Tensor:
    """The place within its block of each marked weight of bool [rows, columns], row by row, as one stream."""
    places = mask.nonzero()[:, 1].remainder_(block).to(torch.uint8)
    return pack_bits(places, (block - 1).bit_length())


def read_places(stream: Tensor, shape: tuple[int, int], keep: int, block: int) -> Tensor:
    """The mask bool [rows, columns] of a stream of places; ActionError when they do not rise within their blocks.

    Args:
        stream: of the places.
        shape: rows, columns.
        keep: marked weights of each whole block; a shorter last one of m weights has ceil(keep·m/block).
        block: weights of a block.
    """
    rows, columns = shape
    of_row = columns // block * keep + -(-keep * (columns % block) // block)
    places = unpack_bits(stream, (block - 1).bit_length(), rows * of_row).view(rows, of_row)
    starts = torch.arange(of_row, device=stream.device).div_(keep, rounding_mode="floor").mul_(block)
    mask = torch.zeros(shape, dtype=torch.bool, device=stream.device)
    # Whole numbers of 64 bits for all places at once would take more than the weight.
    step = max(1, at_once(_CHUNK, stream) // columns)
    for row in range(0, rows, step):
        found = starts + places[row : row + step]
        if readable(found) and (int(found.max()) >= columns or not bool((found.diff() > 0).all())):
            raise ActionError("a buffer holds places that do not rise within their blocks; it is damaged")
        mask[row : row + step].scatter_(1, found, True)
    return mask
