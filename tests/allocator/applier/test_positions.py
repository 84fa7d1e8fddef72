"""Places as streams of bytes, against coders that write bit by bit."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.actions.positions import EliasFano, cheapest_form
from allocator.applier.positions import (
    read_bitmap,
    read_mask,
    read_places,
    read_rising,
    write_bitmap,
    write_mask,
    write_places,
    write_rising,
)
from allocator.errors import ActionError


def to_bytes(bits: list[int]) -> list[int]:
    return [sum(bit << i for i, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8)]


def elias_fano(numbers: list[int], n: int) -> list[int]:
    """Low bits as they are; then for each number zeros up to its high part and a one."""
    low = math.floor(math.log2(n / len(numbers)))
    bits = [(number >> i) & 1 for number in numbers for i in range(low)]
    unary, high = [], 0
    for number in numbers:
        unary += [0] * ((number >> low) - high) + [1]
        high = number >> low
    unary += [0] * (((n - 1) >> low) - high)
    return to_bytes(bits) + to_bytes(unary)


@st.composite
def rising(draw: st.DrawFn) -> tuple[list[int], int]:
    n = draw(st.integers(1, 5000))
    k = draw(st.one_of(st.just(1), st.just(n), st.integers(1, n)))
    return sorted(random.Random(draw(st.integers(0, 2**31))).sample(range(n), k)), n


@given(rising())
@settings(max_examples=300, deadline=None)
def test_rising_numbers_are_written_as_bit_by_bit_and_come_back(case: tuple[list[int], int]) -> None:
    numbers, n = case
    stream = write_rising(torch.tensor(numbers), n)
    assert stream.tolist() == elias_fano(numbers, n)
    assert read_rising(stream, n, len(numbers)).tolist() == numbers


@given(rising())
@settings(max_examples=300, deadline=None)
def test_masks_come_back_and_have_the_length_that_sizes_say(case: tuple[list[int], int]) -> None:
    marked, n = case
    mask = torch.zeros(n, dtype=torch.bool)
    mask[marked] = True
    stream = write_mask(mask)
    form, length = cheapest_form(n, len(marked))
    assert stream.shape == (length,)
    rest = sorted(set(range(n)) - set(marked))
    wanted = {"nothing": list, "bitmap": lambda: to_bytes(mask.int().tolist()), "marked": lambda: elias_fano(marked, n)}
    wanted["unmarked"] = lambda: elias_fano(rest, n)
    assert stream.tolist() == wanted[form]()
    assert torch.equal(read_mask(stream, n, len(marked)), mask)


@pytest.mark.parametrize("n", [2**20 + 3, 10**12])
def test_few_numbers_among_many(n: int) -> None:
    numbers = torch.tensor([0, 5, n // 3, n - 2, n - 1])
    stream = write_rising(numbers, n)
    assert stream.tolist() == elias_fano(numbers.tolist(), n)
    assert torch.equal(read_rising(stream, n, 5), numbers)


@pytest.mark.parametrize(("columns", "keep", "block"), [(12, 2, 4), (13, 2, 4), (15, 2, 4), (3, 1, 5), (9, 3, 5)])
def test_places_within_blocks(columns: int, keep: int, block: int) -> None:
    draw, rows, bits = random.Random(0), 5, math.ceil(math.log2(block))
    mask, stream = torch.zeros(rows, columns, dtype=torch.bool), []
    for row in range(rows):
        for start in range(0, columns, block):
            size = min(block, columns - start)
            for place in sorted(draw.sample(range(size), math.ceil(keep * size / block))):
                mask[row, start + place] = True
                stream += [(place >> i) & 1 for i in range(bits)]
    assert write_places(mask, block).tolist() == to_bytes(stream)
    assert torch.equal(read_places(write_places(mask, block), (rows, columns), keep, block), mask)


def test_2_of_4_is_what_sparse_matrix_units_read() -> None:
    mask = torch.tensor([[1, 0, 0, 1, 0, 1, 1, 0]], dtype=torch.bool)
    assert write_places(mask, 4).tolist() == [0b10_01_11_00]


def test_damaged_streams_are_refused() -> None:
    with pytest.raises(ActionError, match="marks 4 of 8 places where 3 are stored"):
        read_bitmap(write_bitmap(torch.tensor([1, 0, 1, 0, 1, 0, 1, 0], dtype=torch.bool)), 8, 3)
    stream = write_rising(torch.tensor([3, 400, 900]), 1000)
    for at in range(EliasFano(1000, 3).low_bytes, len(stream)):
        wrong = stream.clone()
        wrong[at] ^= 255
        with pytest.raises(ActionError, match="no 3 rising places below 1000"):
            read_rising(wrong, 1000, 3)
    for places in ([0, 0], [3, 1]):
        with pytest.raises(ActionError, match="do not rise within their blocks"):
            read_places(torch.tensor([places[0] | places[1] << 2], dtype=torch.uint8), (1, 4), 2, 4)
    with pytest.raises(ActionError, match="do not rise within their blocks"):
        read_places(torch.tensor([0b10], dtype=torch.uint8), (1, 1), 2, 4)
