"""The bit stream against Python's own big integers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.applier.packing import _CHUNK, pack_bits, packed_bytes, unpack_bits
from allocator.engine import WITHOUT


@given(st.integers(1, 8).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, 2**b - 1), max_size=70))))
@settings(max_examples=200, deadline=None)
def test_the_stream_is_the_little_endian_number_of_all_codes(case: tuple[int, list[int]]) -> None:
    bits, codes = case
    stream = pack_bits(torch.tensor(codes, dtype=torch.uint8), bits)
    number = sum(code << (i * bits) for i, code in enumerate(codes))
    assert bytes(stream.tolist()) == number.to_bytes(-(-len(codes) * bits // 8), "little")
    assert unpack_bits(stream, bits, len(codes)).tolist() == codes


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("way", ["C", "torch"])
def test_across_chunks(bits: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WITHOUT, "numpy" if way == "torch" else "")
    codes = torch.randint(0, 2**bits, (2 * _CHUNK + 3,), dtype=torch.uint8)
    stream = pack_bits(codes, bits)
    assert stream.numel() == packed_bytes(codes.numel(), bits)
    assert torch.equal(unpack_bits(stream, bits, codes.numel()), codes)
    at = (_CHUNK - 8) * bits // 8
    assert torch.equal(stream[at : at + 2 * bits], pack_bits(codes[_CHUNK - 8 : _CHUNK + 8], bits))


def test_a_stream_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="10 codes of 3 bits are 4 bytes, not 5"):
        unpack_bits(torch.zeros(5, dtype=torch.uint8), 3, 10)
