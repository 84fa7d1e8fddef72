"""Stored bytes, MACs and bit operations against hand-worked and loop-counted numbers."""

from __future__ import annotations

import math

import pytest

from allocator.actions import (
    Corrected,
    Keep,
    Kept,
    Layer,
    LowRank,
    NumberFormat,
    Prune,
    Quantize,
    Slim,
    Unify,
    statistics_of,
)
from allocator.actions.positions import EliasFano, cheapest_form
from allocator.errors import ActionError

CONV = Layer("conv2d", (64, 3, 3, 3), positions=1024)


@pytest.mark.parametrize(("bits", "expected"), [(2, 560), (4, 992), (8, 1856)])
def test_stored_bytes_of_a_first_convolution(bits: int, expected: int) -> None:
    assert Quantize(bits=bits).stored_bytes(CONV) == expected


def test_keep_stores_each_number() -> None:
    assert [Keep(dtype=d).stored_bytes(CONV) for d in ("float32", "float16", "bfloat16")] == [6912, 3456, 3456]


def test_low_rank_stores_both_factors() -> None:
    half = Keep(dtype="float16")
    assert LowRank(rank=16, left=half, right=half).stored_bytes(Layer("conv2d", (64, 64, 3, 3))) == 20480


def test_bits_of_the_factors_count() -> None:
    layer = Layer("linear", (20, 30), positions=7)
    action = LowRank(rank=5, left=Quantize(bits=3), right=Quantize(bits=8, granularity="tensor"))
    assert action.stored_bytes(layer) == (math.ceil(20 * 5 * 3 / 8) + 20 * 2) + (5 * 30 + 2)
    assert action.macs(layer) == 7 * 5 * (20 + 30)
    assert action.bops(layer) == 7 * 5 * (20 * 3 + 30 * 8) * 32


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("group_size", [1, 4, 9, 10])
@pytest.mark.parametrize("scale_dtype", ["float16", "float32"])
def test_groups_run_along_a_row_and_the_last_is_ragged(scheme: str, group_size: int, scale_dtype: str) -> None:
    layer = Layer("linear", (3, 10))
    action = Quantize(bits=3, scheme=scheme, granularity="group", group_size=group_size, scale_dtype=scale_dtype)
    scales = sum(1 for _ in range(3) for start in range(0, 10, group_size) if start < 10)
    numbers = scales * (2 if scheme == "asymmetric" else 1)
    assert action.stored_bytes(layer) == math.ceil(3 * 10 * 3 / 8) + numbers * (2 if scale_dtype == "float16" else 4)


def test_corrections_are_two_bytes_a_row_each_and_multiply_nothing() -> None:
    for action in (Quantize(bits=3), LowRank(rank=4, left=Keep(dtype="float16"), right=Quantize(bits=8))):
        shift, both = Corrected(action=action), Corrected(action=action, variance=True)
        assert [one.stored_bytes(CONV) - action.stored_bytes(CONV) for one in (shift, both)] == [2 * 64, 4 * 64]
        assert both.macs(CONV) == action.macs(CONV)
        assert both.bops(CONV, 8) == action.bops(CONV, 8)


def test_what_a_correction_needs_to_know() -> None:
    assert statistics_of(Corrected(action=Quantize(bits=3))) == {"input_mean"}
    assert statistics_of(Corrected(action=Quantize(bits=3), variance=True)) == {"input_mean", "input_moment"}
    assert statistics_of(Corrected(action=Quantize(bits=3, method="gptq"))) == {"input_mean", "input_moment"}
    assert [statistics_of(Quantize(bits=3, method=m)) for m in ("mse", "gptq")] == [set(), {"input_moment"}]


def test_codes_are_one_stream_for_the_whole_tensor() -> None:
    assert Quantize(bits=3, granularity="tensor").stored_bytes(Layer("linear", (5, 5))) == math.ceil(75 / 8) + 2


@pytest.mark.parametrize(
    ("action", "stored", "bits"),
    [
        (NumberFormat(format="nf4"), 5 * 70 // 2 + 5 * 2 * 2, 4),
        (NumberFormat(format="nf4", group_size=7, scale_dtype="float32"), 5 * 70 // 2 + 5 * 10 * 4, 4),
        (NumberFormat(format="fp8_e4m3"), 350 + 5 * 2, 8),
        (NumberFormat(format="fp8_e5m2", granularity="tensor", scale_dtype="float32"), 350 + 4, 8),
        (NumberFormat(format="mxfp4"), 175 + 5 * 3, 4),
        (NumberFormat(format="ternary"), 70 + 5 * 2, 2),
        (NumberFormat(format="ternary", granularity="group", group_size=64), 70 + 5 * 2 * 2, 2),
    ],
)
def test_number_formats_store_codes_and_scales(action: NumberFormat, stored: int, bits: int) -> None:
    layer = Layer("linear", (5, 70), positions=3)
    assert action.stored_bytes(layer) == stored
    assert (action.macs(layer), action.bops(layer, 16)) == (1050, 1050 * bits * 16)


def test_an_odd_number_of_codes_fills_its_last_byte() -> None:
    layer = Layer("linear", (3, 7))
    assert NumberFormat(format="mxfp4").stored_bytes(layer) == 11 + 3
    assert NumberFormat(format="ternary", granularity="tensor").stored_bytes(layer) == 5 + 2


@pytest.mark.parametrize(("share", "unified"), [(0.01, 0), (0.5, 4), (0.7, 6), (1, 9)])
def test_unified_blocks_take_a_bit_in_the_map_a_magnitude_and_signs(share: float, unified: int) -> None:
    layer = Layer("linear", (3, 20), positions=2)  # three blocks of six in each row, and two weights over
    values = Quantize(bits=4, granularity="group", group_size=5)
    action = Unify(block=6, share=share, values=values)
    rest = 60 - 6 * unified
    assert (action.blocks(layer), action.unified(layer)) == (9, unified)
    other = math.ceil(rest * 4 / 8) + 2 * math.ceil(rest / 5)
    assert action.stored_bytes(layer) == 2 + 2 * unified + math.ceil(6 * unified / 8) + other
    assert (action.macs(layer), action.bops(layer)) == (120, 2 * 32 * (unified * (6 + 16) + rest * 4))
    assert action.bops(Layer("embedding", (3, 20))) == 0


def test_slim_stores_maps_and_what_remains() -> None:
    layer = Layer("conv2d", (20, 10, 3, 3), positions=49)
    rows, columns = Kept(20, (0, 3, 19)), Kept(10, (1, 2, 5, 9))
    four = Quantize(bits=4)
    both = Slim(rows=rows, columns=columns, values=four)
    assert both.stored_bytes(layer) == 3 + 2 + (3 * 36 * 4 // 8 + 3 * 2)
    assert (both.macs(layer), both.bops(layer, 16)) == (3 * 36 * 49, 3 * 36 * 49 * 4 * 16)
    assert Slim(rows=rows, values=Keep()).stored_bytes(layer) == 3 + 3 * 90 * 4
    assert Slim(columns=columns, values=four).stored_bytes(layer) == 2 + (20 * 36 * 4 // 8 + 20 * 2)
    flattened = Slim(columns=columns, values=Keep(dtype="float16"))  # 10 channels of 7 places each
    assert flattened.stored_bytes(Layer("linear", (5, 70))) == 2 + 5 * 28 * 2
    depthwise = Layer("conv2d", (20, 1, 3, 3), groups=20)
    assert Slim(rows=rows, values=four).stored_bytes(depthwise) == 3 + (14 + 3 * 2)


def test_depthwise_macs_count_the_weights_that_there_are() -> None:
    layer = Layer("conv2d", (32, 1, 3, 3), groups=32, positions=49)
    assert layer.macs == 32 * 9 * 49
    assert Quantize(bits=4).bops(layer, activation_bits=8) == 32 * 9 * 49 * 4 * 8


def test_an_embedding_looks_up_and_a_factored_one_projects() -> None:
    layer = Layer("embedding", (1000, 64), positions=10)
    assert Quantize(bits=4).macs(layer) == Keep().macs(layer) == 0
    assert LowRank(rank=8, left=Keep(), right=Keep()).macs(layer) == 10 * 8 * 64


def test_at_changes_only_the_positions() -> None:
    assert CONV.at(1) == Layer("conv2d", (64, 3, 3, 3), positions=1)


FOUR, HALF = Quantize(bits=4), Keep(dtype="float16")


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        # 60 of 600: l = 3, low bits 60·3/8 → 23 bytes, high bits 60 + (599 >> 3) = 134 → 17 bytes.
        (Prune(pattern="unstructured", density=0.1, values=HALF), 23 + 17 + 60 * 2),
        # 300 of 600: a bitmap of 75 bytes; a scale per row of the weight for granularity channel, one for tensor.
        (Prune(pattern="unstructured", density=0.5, values=FOUR), 75 + 150 + 20 * 2),
        (Prune(pattern="unstructured", density=0.5, values=Quantize(bits=4, granularity="tensor")), 75 + 150 + 2),
        (Prune(pattern="unstructured", density=0.5, values=Quantize(bits=4, scheme="asymmetric")), 75 + 150 + 20 * 4),
        (Prune(pattern="unstructured", density=0.5, values=FOUR, signs="apart"), 75 + 38 + 150 + 20 * 2),
        # Groups run over the kept weights as one row: 300 / 32 → 10 scales.
        (Prune(pattern="unstructured", density=0.5, values=Quantize(bits=4, granularity="group", group_size=32)),
         75 + 150 + 10 * 2),
        # 540 of 600: Elias–Fano of the 60 dropped.
        (Prune(pattern="unstructured", density=0.9, values=HALF), 23 + 17 + 540 * 2),
        (Prune(pattern="unstructured", density=1, values=HALF), 600 * 2),
        (Prune(pattern="unstructured", density=1e-9, values=HALF), EliasFano(600, 1).bytes + 2),
        # Rows of 30: seven blocks of 4 keep 2 each, the last two weights ceil(2·2/4) = 1: 15 of a row, 300 · 2 bits.
        (Prune(pattern="n_m", keep=2, block=4, values=FOUR), 75 + 150 + 20 * 2),
        (Prune(pattern="n_m", keep=2, block=4, values=Quantize(bits=4, granularity="group", group_size=4)),
         75 + 150 + 20 * 4 * 2),
        # Three blocks of 8 keep 1, the last six ceil(6/8) = 1: 80 · 3 bits.
        (Prune(pattern="n_m", keep=1, block=8, values=HALF), 30 + 80 * 2),
        # 4 of 8 in 3 bits each are more than a bit for each weight; the last six keep 3.
        (Prune(pattern="n_m", keep=4, block=8, values=HALF), 75 + 20 * 15 * 2),
    ],
)  # fmt: skip
def test_pruned_weights_store_places_signs_and_values(action: Prune, expected: int) -> None:
    assert action.stored_bytes(Layer("linear", (20, 30))) == expected


def test_pruned_weights_multiply_as_a_sparse_runtime_would() -> None:
    action = Prune(pattern="unstructured", density=0.25, values=FOUR, signs="apart")
    assert action.macs(Layer("conv2d", (8, 4, 3, 3), positions=49)) == 72 * 49
    assert action.bops(Layer("conv2d", (8, 4, 3, 3), positions=49), activation_bits=8) == 72 * 49 * 5 * 8
    assert action.macs(Layer("embedding", (8, 4), positions=49)) == 0


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 1000, 4097])
def test_the_shortest_form_of_places_is_taken(n: int) -> None:
    for k in {1, 2, n // 10, n // 4, n // 2, n - 1, n} & set(range(1, n + 1)):
        low = next(x for x in range(40, -1, -1) if k << x <= n)  # floor(log2(n/k))

        def coded(count: int, low: int) -> int:
            return math.ceil(count * low / 8) + math.ceil((count + (n - 1) // 2**low) / 8)

        code = EliasFano(n, k)
        assert (code.low_bits, code.bytes) == (low, coded(k, low))
        sizes = [math.ceil(n / 8), code.bytes] + ([EliasFano(n, n - k).bytes] if k < n else [0])
        assert cheapest_form(n, k)[1] == min(sizes)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Layer("linear", (3,)), r"\(3,\)"),
        (lambda: Layer("linear", (3, 0)), r"\(3, 0\)"),
        (lambda: Layer("conv4d", (3, 3, 1, 1, 1)), "conv3d"),  # type: ignore[arg-type]  # what is refused
        (lambda: Layer("linear", (3, 3), groups=0), "groups"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(make: object, said: str) -> None:
    assert callable(make)
    with pytest.raises(ActionError, match=said):
        make()
