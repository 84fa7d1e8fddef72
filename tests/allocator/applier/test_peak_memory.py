"""A packed model's forward needs its packed bytes, one layer's full weight and its activations: nothing more."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from allocator.actions import Layer, parse
from allocator.applier import apply_, pack, packing, units, unpack
from allocator.applier.kinds import quantize
from allocator.engine import WITHOUT, _native
from allocator.testing.live_bytes import LiveBytes

ACTIONS: dict[str, dict[str, Any]] = {
    **{f"{b} bits": {"kind": "quantize", "bits": b} for b in (1, 3, 8)},
    "4 bits in groups": {"kind": "quantize", "bits": 4, "granularity": "group", "group_size": 16},
    "5 bits, minima": {"kind": "quantize", "bits": 5, "scheme": "asymmetric", "granularity": "tensor"},
    "half": {"kind": "keep", "dtype": "float16"},
    "bfloat16": {"kind": "keep", "dtype": "bfloat16"},
}
LINEAR = nn.Sequential(nn.Linear(300, 500), nn.ReLU(), nn.Linear(500, 400), nn.ReLU(), nn.Linear(400, 30))
CONVOLUTIONS = nn.Sequential(
    nn.Conv2d(8, 40, 3), nn.ReLU(), nn.Conv2d(40, 120, 3), nn.ReLU(), nn.Flatten(), nn.Linear(120 * 16, 20)
)
MODELS = {"linear": (LINEAR, (2, 300)), "convolutions": (CONVOLUTIONS, (2, 8, 8, 8))}


def peak(model: nn.Module, x: Tensor) -> int:
    with torch.no_grad(), LiveBytes() as live:
        model(x)
    return live.peak


def test_the_count_is_right_on_a_case_by_hand() -> None:
    x = torch.zeros(1000)
    with LiveBytes() as live:
        y = x + 1  # 4000
        y = y * 2  # 8000, then 4000 again
        view = y.view(10, 100)[3:]
        del y
        torch.zeros(250)  # 5000
        z = view.double()  # 4000 + 5600
        x.add_(1)
    assert live.peak == 9600
    assert z.shape == (7, 100)


@pytest.mark.skipif(_native is None, reason="without the C extension torch decodes in chunks: see the next test")
@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_one_full_weight_and_the_activations(
    name: str, action: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WITHOUT, raising=False)
    model, shape = MODELS[name]
    x = torch.randn(shape)
    found = units(model)
    largest = max(4 * unit.layer.weights for unit in found)
    activations = peak(model, x)
    assert 0 < activations < largest / 4, "the activations would hide what is looked for"
    packed = apply_(copy.deepcopy(model), {unit.name: {"action": action} for unit in found}, packed=True)
    assert largest <= peak(packed, x) <= largest + activations


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_torch_alone_needs_a_chunk_more(action: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WITHOUT, "numpy")
    monkeypatch.setattr(quantize, "_CHUNK", 2048)
    monkeypatch.setattr(packing, "_CHUNK", 2048)
    layer, made = Layer("linear", (500, 400)), parse(action)
    buffer = pack(torch.randn(500, 400), made, layer)
    numbers = 2 * 4 * 500 * 25  # scales of groups of 16 and what float32 makes of them
    with LiveBytes() as live:
        unpack(buffer, made, layer)
    assert live.peak <= 4 * layer.weights + numbers + 8 * 8 * 400 * 3
    assert 8 * 8 * 400 * 3 + numbers < layer.weights, "a matrix of codes would not be seen"
