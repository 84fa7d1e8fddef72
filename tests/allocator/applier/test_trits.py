"""Trits: five to a byte, and back."""

from __future__ import annotations

import pytest
import torch

from allocator.applier import trits


def test_the_layout_by_hand() -> None:
    digits = torch.tensor([2, 0, 1, 2, 0, 2], dtype=torch.uint8)
    assert trits.pack_trits(digits).tolist() == [2 + 1 * 9 + 2 * 27, 2]


@pytest.mark.parametrize("n", [1, 4, 5, 6, 49, 1000])
def test_digits_come_back(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trits, "_CHUNK", 7)
    digits = torch.randint(0, 3, (n,), dtype=torch.uint8)
    stream = trits.pack_trits(digits)
    assert stream.shape == (-(-n // 5),)
    assert int(stream.max()) < 243
    assert torch.equal(trits.unpack_trits(stream, n), digits)


def test_no_byte_is_an_error() -> None:
    found = trits.unpack_trits(torch.arange(256, dtype=torch.uint8), 1280).view(256, 5)
    assert int(found.max()) == 2
    assert torch.equal(found.long() @ torch.tensor([1, 3, 9, 27, 81]), torch.arange(256) % 243)
