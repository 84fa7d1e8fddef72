"""Gains per row folded into stored forms: exact for powers of two, within the rounding of scales for others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from allocator.actions import Action, Layer, parse
from allocator.applier import LayerStatistics, apply_, pack, unpack
from allocator.applier.packed import rescale
from allocator.applier.packed_units import packed_units
from allocator.applier.scaled import RowGains, running
from allocator.errors import ActionError

HALF = {"kind": "keep", "dtype": "float16"}
NF4 = {"kind": "number_format", "format": "nf4", "group_size": 4}
SCALABLE: dict[str, dict[str, Any]] = {
    "1 bit": {"kind": "quantize", "bits": 1},
    "3 bits": {"kind": "quantize", "bits": 3, "method": "mse"},
    "4 bits asymmetric in groups": {
        "kind": "quantize", "bits": 4, "scheme": "asymmetric", "granularity": "group", "group_size": 5,
    },
    "5 bits asymmetric": {"kind": "quantize", "bits": 5, "scheme": "asymmetric", "scale_dtype": "float32"},
    "float32": {"kind": "keep", "dtype": "float32"},
    "half": HALF,
    "bfloat16": {"kind": "keep", "dtype": "bfloat16"},
    "nf4": NF4,
    "fp8": {"kind": "number_format", "format": "fp8_e4m3", "method": "mse"},
    "ternary": {"kind": "number_format", "format": "ternary"},
    "rank": {"kind": "low_rank", "rank": 3, "left": HALF, "right": {"kind": "quantize", "bits": 6}},
    "rank nf4": {"kind": "low_rank", "rank": 3, "left": {**NF4, "group_size": 2}, "right": HALF},
    "unify": {"kind": "unify", "block": 4, "share": 1.0, "values": HALF},
    "unify some": {"kind": "unify", "block": 3, "share": 0.5, "values": HALF},
    "prune": {"kind": "prune", "pattern": "unstructured", "density": 0.6, "values": HALF},
    "prune 4 bits": {
        "kind": "prune", "pattern": "unstructured", "density": 0.6, "signs": "apart",
        "values": {"kind": "quantize", "bits": 4, "scheme": "asymmetric"},
    },
    "prune 2 of 4": {
        "kind": "prune", "pattern": "n_m", "keep": 2, "block": 4, "values": {"kind": "quantize", "bits": 3},
    },
}  # fmt: skip
RIGID: dict[str, dict[str, Any]] = {
    "one scale": {"kind": "quantize", "bits": 4, "granularity": "tensor"},
    "one scale of nf4": {"kind": "number_format", "format": "nf4", "granularity": "tensor"},
    "mxfp4": {"kind": "number_format", "format": "mxfp4"},
    "rank": {"kind": "low_rank", "rank": 2, "left": {"kind": "number_format", "format": "mxfp4"}, "right": HALF},
    "unify": {"kind": "unify", "block": 4, "share": 0.5, "values": {"kind": "quantize", "bits": 4}},
}
SHAPES = {"linear": (7, 12), "conv2d": (6, 3, 2, 2), "embedding": (9, 12)}


def packed(action: Action, kind: str) -> tuple[Tensor, Layer]:
    layer = Layer(kind, SHAPES[kind])
    weight = torch.randn(layer.weight_shape, generator=torch.Generator().manual_seed(3))
    return pack(weight, action, layer), layer


def columns(gain: Tensor, layer: Layer) -> Tensor:
    return gain.view(-1, *[1] * (len(layer.weight_shape) - 1))


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("described", SCALABLE.values(), ids=SCALABLE)
def test_powers_of_two_are_exact_and_signs_too(described: dict[str, Any], kind: str) -> None:
    action = parse(described)
    buffer, layer = packed(action, kind)
    gain = torch.tensor([2.0 ** (row % 5 - 2) * (-1 if row % 3 == 1 else 1) for row in range(layer.rows)])
    made = rescale(buffer, action, layer, gain)
    assert made is not None
    assert made.dtype == torch.uint8
    assert made.shape == buffer.shape
    assert torch.equal(unpack(made, action, layer), columns(gain, layer) * unpack(buffer, action, layer))
    same = rescale(buffer, action, layer, torch.ones(layer.rows, dtype=torch.float64))
    assert same is not None
    assert torch.equal(same, buffer)


@pytest.mark.parametrize("described", SCALABLE.values(), ids=SCALABLE)
def test_other_gains_are_exact_but_for_the_rounding_of_what_is_stored(described: dict[str, Any]) -> None:
    action = parse(described)
    buffer, layer = packed(action, "linear")
    gain = torch.rand(layer.rows, generator=torch.Generator().manual_seed(1)) * 3 + 0.1
    made = rescale(buffer, action, layer, gain)
    assert made is not None
    wanted = gain.unsqueeze(1) * unpack(buffer, action, layer)
    # Half a unit in the last of 8 (bfloat16) or 11 bits, of the largest number that takes part in an entry.
    bound = (2.0**-9 if described.get("dtype") == "bfloat16" else 2.0**-11) * wanted.abs().amax(1, keepdim=True) * 4
    assert bool(((unpack(made, action, layer) - wanted).abs() <= bound).all())


def test_a_row_of_quantised_codes_against_numbers_worked_out_one_by_one() -> None:
    layer, action = Layer("linear", (2, 3)), parse({"kind": "quantize", "bits": 3, "scheme": "asymmetric"})
    buffer = pack(torch.tensor([[0.1, 0.4, 0.73], [-1.0, 0.2, 5.0]]), action, layer)
    made = rescale(buffer, action, layer, torch.tensor([0.3, 1.7]))
    assert made is not None
    codes = -(-2 * 3 * 3 // 8)
    assert torch.equal(made[:codes], buffer[:codes])
    old, new = (each[codes:].clone().view(torch.float16).tolist() for each in (buffer, made))
    gains = torch.tensor([0.3, 1.7]).tolist() * 2
    assert new == [torch.tensor(number * gain).half().item() for number, gain in zip(old, gains, strict=True)]


@pytest.mark.parametrize("described", RIGID.values(), ids=RIGID)
def test_what_has_no_such_form_says_so(described: dict[str, Any]) -> None:
    action = parse(described)
    buffer, layer = packed(action, "linear")
    assert rescale(buffer, action, layer, torch.ones(layer.rows)) is None


def test_a_single_row_has_its_scale_to_itself() -> None:
    layer, action = Layer("linear", (1, 4)), parse({"kind": "quantize", "bits": 4, "granularity": "tensor"})
    buffer = pack(torch.tensor([[1.0, -2.0, 0.5, 7.0]]), action, layer)
    made = rescale(buffer, action, layer, torch.tensor([2.0]))
    assert made is not None
    assert torch.equal(unpack(made, action, layer), 2 * unpack(buffer, action, layer))


def test_scales_beyond_their_range_are_the_largest_there_is() -> None:
    layer, action = Layer("linear", (1, 2)), parse({"kind": "quantize", "bits": 4})
    made = rescale(pack(torch.tensor([[7e3, -7e3]]), action, layer), action, layer, torch.tensor([1e6]))
    assert made is not None
    assert unpack(made, action, layer).tolist() == [[7 * 65504.0, -7 * 65504.0]]


def test_a_buffer_of_another_size_is_refused() -> None:
    action = parse({"kind": "quantize", "bits": 4})
    buffer, layer = packed(action, "linear")
    with pytest.raises(ActionError, match="stored as uint8"):
        rescale(buffer[:-1], action, layer, torch.ones(layer.rows))


THROUGH_PARTS: dict[str, dict[str, Any]] = {
    "tucker2": {"kind": "tucker2", "rank_out": 3, "rank_in": 2, "parts": HALF},
    "corrected": {"kind": "corrected", "action": SCALABLE["3 bits"]},
    "corrected with variance": {"kind": "corrected", "action": RIGID["mxfp4"], "variance": True},
    "corrected in parts": {"kind": "corrected", "action": SCALABLE["rank"]},
    "corrected in parts with variance": {"kind": "corrected", "action": RIGID["rank"], "variance": True},
}


@pytest.mark.parametrize("described", THROUGH_PARTS.values(), ids=THROUGH_PARTS)
def test_gains_go_through_what_is_inside_and_shifts_stay(described: dict[str, Any]) -> None:
    action, layer = parse(described), Layer("conv2d", SHAPES["conv2d"])
    draw = torch.Generator().manual_seed(3)
    weight, x = torch.randn(layer.weight_shape, generator=draw), torch.randn(40, 12, generator=draw) + 1
    known = LayerStatistics(input_mean=x.mean(0).view(1, 12), input_moment=(x.T @ x / 40).view(1, 12, 12))
    conv = nn.Conv2d(3, 6, 2)
    with torch.no_grad():
        conv.weight.copy_(weight)
    model = apply_(nn.Sequential(conv), {"0": {"action": described}}, packed=True, statistics={"0": known})
    [packed] = packed_units(model)
    gain = torch.tensor([2.0 ** (row % 3 - 1) for row in range(6)])
    made = rescale(packed.buffer.detach(), action, layer, gain)
    assert made is not None
    wanted = gain.view(-1, 1, 1, 1) * unpack(packed.buffer.detach(), action, layer)
    assert torch.allclose(unpack(made, action, layer), wanted, rtol=1e-6)
    gains = RowGains(packed, scalable=True)
    images = torch.randn(2, 3, 5, 5, generator=draw)
    with torch.no_grad():
        gains.log.copy_(gain.log())
        with running([gains]):
            meanwhile = model(images)
        packed.buffer.copy_(made)
        assert torch.allclose(model(images), meanwhile, rtol=1e-4, atol=1e-5)
