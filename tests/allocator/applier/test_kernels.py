"""What the C kernels give is what torch gives, bit for bit: streams, scales, weights, single rows of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from allocator.actions import Layer, Quantize
from allocator.applier import kernels
from allocator.applier.codes import Encoded, decode
from allocator.applier.kinds.quantize import QuantizeKind
from allocator.applier.packing import pack_bits, unpack_bits
from allocator.applier.quantizer import encode
from allocator.applier.weight import Weight
from allocator.engine import WITHOUT, _native

pytestmark = pytest.mark.skipif(_native is None, reason="the C extension was not built, so that torch does everything")

KIND = QuantizeKind()


@pytest.fixture(autouse=True)
def with_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is said outside."""
    monkeypatch.delenv(WITHOUT, raising=False)


@contextmanager
def torch_alone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(WITHOUT, "numpy")
        yield


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """Bit for bit: −0 is not 0."""
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bytes(a), _bytes(b))


def _bytes(x: Tensor) -> Tensor:
    return x.contiguous().view(-1).view(torch.uint8)


def drawn(seed: int, rows: int, columns: int, shape: str) -> Tensor:
    """Weights that come close to what could go wrong: ties, zeros of both signs, sizes at the edges of the dtypes."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(rows, columns, generator=generator)
    if shape == "ties":
        return (8 * weights).round() / 2
    if shape == "zeros":
        return torch.where(weights > 1.5, weights, 0.0) * torch.where(weights < 0, -1.0, 1.0)
    if shape == "nothing":
        return torch.where(weights < 0, -0.0, 0.0)
    return weights * {"usual": 1.0, "small": 1e-7, "tiny": 1e-30, "large": 1e6, "huge": 1e30}[shape]


SHAPES = ("usual", "ties", "zeros", "nothing", "small", "tiny", "large", "huge")


@st.composite
def cases(draw: Any) -> tuple[Tensor, Quantize]:
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 70))
    granularity = draw(st.sampled_from(["tensor", "channel", "group"]))
    action = Quantize(
        bits=draw(st.integers(1, 8)),
        scheme=draw(st.sampled_from(["symmetric", "asymmetric"])),
        granularity=granularity,
        group_size=draw(st.integers(1, columns)) if granularity == "group" else None,
        scale_dtype=draw(st.sampled_from(["float16", "float32"])),
    )
    if action.directed:
        action = action.from_json(action.to_json() | {"rounding": draw(st.sampled_from(["nearest", "floor", "ceil"]))})
    return drawn(draw(st.integers(0, 2**31)), rows, columns, draw(st.sampled_from(SHAPES))), action


def check(matrix: Tensor, action: Quantize) -> None:
    layer = Layer("linear", tuple(matrix.shape))
    weight = Weight(matrix, layer)
    index = torch.randint(0, layer.rows, (2 * layer.rows - 1,), generator=torch.Generator().manual_seed(0))
    stored, encoded = KIND.store(weight, action), encode(matrix, action)
    restored, taken = KIND.restore(stored, action, layer), KIND.restore_rows(stored, action, layer, index)
    decoded = decode(encoded, action)
    with torch_alone():
        assert same(stored, KIND.store(weight, action))
        assert same(restored, KIND.restore(stored, action, layer))
        assert same(taken, KIND.restore_rows(stored, action, layer, index))
        plain = encode(matrix, action)
        assert same(encoded.codes, plain.codes)
        assert same(encoded.scales, plain.scales)
        assert same(encoded.minima, plain.minima)
        assert same(decoded, decode(plain, action))
    assert same(restored, decoded)
    assert same(taken, restored[index])


@given(cases())
@settings(max_examples=400, deadline=None)
def test_any_action_any_matrix(case: tuple[Tensor, Quantize]) -> None:
    check(*case)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_rows_longer_than_a_tile_that_begin_within_bytes(bits: int, scheme: str) -> None:
    matrix = drawn(bits, 3, 2 * 4096 + 13, "usual")
    for sharing in (
        {"granularity": "channel"},
        {"granularity": "tensor"},
        {"granularity": "group", "group_size": 1001},
    ):
        check(matrix, Quantize.from_json({"kind": "quantize", "bits": bits, "scheme": scheme} | sharing))


@given(st.integers(1, 7), st.integers(0, 300), st.integers(0, 2**31))
@settings(max_examples=200, deadline=None)
def test_streams(bits: int, n: int, seed: int) -> None:
    codes = torch.randint(0, 2**bits, (n,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    stream = pack_bits(codes, bits)
    with torch_alone():
        assert same(stream, pack_bits(codes, bits))
    assert same(unpack_bits(stream, bits, n), codes)


def test_every_half_is_read_as_torch_reads_it() -> None:
    halves = torch.arange(2**16).to(torch.int32).sub(2**15).to(torch.int16).view(torch.float16)
    halves = halves[~halves.isnan()].view(-1, 1)
    codes = torch.full((len(halves), 1), 128, dtype=torch.uint8)
    assert same(decode(Encoded(codes, halves, None), Quantize(bits=8)), halves.float())


def test_a_stream_and_scales_at_odd_addresses() -> None:
    layer, action = Layer("linear", (5, 7)), Quantize(bits=3, scheme="asymmetric")
    stored = KIND.store(Weight(drawn(0, 5, 7, "usual"), layer), action)
    moved = torch.cat([stored.new_zeros(1), stored])[1:]
    assert moved.data_ptr() % 2 == 1
    assert same(KIND.restore(moved, action, layer), KIND.restore(stored, action, layer))


def test_codes_that_do_not_lie_side_by_side_take_the_way_of_torch() -> None:
    encoded = encode(drawn(0, 6, 8, "usual"), Quantize(bits=4))
    apart = Encoded(encoded.codes.t().contiguous().t(), encoded.scales, None)
    assert same(decode(apart, Quantize(bits=4)).contiguous(), decode(encoded, Quantize(bits=4)))
    assert torch.equal(pack_bits(encoded.codes.t(), 4), pack_bits(encoded.codes.t().contiguous(), 4))


def test_the_kernels_keep_off_what_they_cannot_read() -> None:
    plain = torch.zeros(3)
    assert kernels.readable(plain)
    with FakeTensorMode() as mode:
        assert not kernels.readable(mode.from_tensor(plain))
    assert not kernels.readable(torch.zeros(3, device="meta"))
    seen = []
    torch.vmap(lambda x: (seen.append(kernels.readable(x)), x)[1])(torch.zeros(2, 3))
    assert seen == [False]
    with torch_alone():
        assert not kernels.pack_codes(torch.zeros(8, dtype=torch.uint8), 3, torch.zeros(3, dtype=torch.uint8))
    assert not kernels.pack_codes(torch.zeros(8, dtype=torch.int64), 3, torch.zeros(3, dtype=torch.uint8))


def test_memory_that_is_not_there_is_not_gone_through() -> None:
    action = Quantize(bits=4)
    encoded = encode(drawn(0, 6, 8, "usual"), action)
    for broken in (
        Encoded(encoded.codes, encoded.scales[:-1], None),
        Encoded(encoded.codes, encoded.scales.repeat(1, 2), None),
        Encoded(encoded.codes, encoded.scales.float(), None),
    ):
        with pytest.raises(ValueError, match="not as many"):
            decode(broken, action)
