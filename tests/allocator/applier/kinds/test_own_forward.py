"""Layers whose class has a forward of its own, run part by part: against the product, from every side, in threads."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from allocator.actions import Corrected, parse
from allocator.applier import LayerStatistics, apply_, compress, load_compressed, units
from allocator.applier.kinds import FactoredKind, kind_of
from allocator.applier.packed import rescale
from allocator.applier.packed_units import packed_units
from allocator.applier.scaled import RowGains, running


class Same(nn.Conv2d):
    """As ports of EfficientNet have it; its input has a name of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.static_padding = nn.ZeroPad2d((0, 1, 1, 2))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.static_padding(pixels)
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Squashed(nn.Linear):
    """A matrix on squashed inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(torch.tanh(x), self.weight, self.bias)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Same(3, 8, 3, stride=2)
        self.grouped = Same(8, 12, (2, 3), groups=4, bias=False)
        self.dilated = Same(12, 6, 2, dilation=2)
        self.head = Squashed(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(pixels=torch.relu(self.first(x))))
        return self.head(self.dilated(x).mean((2, 3)))


FULL = {"kind": "keep", "dtype": "float32"}
BITS = {"kind": "quantize", "bits": 6}
RANK = {"kind": "low_rank", "rank": 2, "left": BITS, "right": FULL}
TUCKER = {"kind": "tucker2", "rank_out": 3, "rank_in": 2, "parts": BITS}
ACTIONS: dict[str, dict[str, Any]] = {
    "low_rank": RANK,
    "tucker2": TUCKER,
    "corrected low_rank": {"kind": "corrected", "action": RANK},
    "corrected low_rank with variance": {"kind": "corrected", "action": RANK, "variance": True},
    "corrected tucker2": {"kind": "corrected", "action": TUCKER},
}
Statistics = dict[str, LayerStatistics]


def case(action: dict[str, Any]) -> tuple[Network, dict[str, Any], Statistics, Tensor]:
    """A network, the action on all layers that have a shape for it, random statistics, images."""
    draw = torch.Generator().manual_seed(5)
    model = Network().eval()
    named = ["first", "dilated"] if "tucker2" in str(action) else ["first", "grouped", "dilated", "head"]
    known = {}
    for unit in units(model):
        x = torch.randn(unit.layer.groups, 40, unit.layer.columns, generator=draw) + 0.5
        known[unit.name] = LayerStatistics(input_moment=x.transpose(1, 2) @ x / 40, input_mean=x.mean(1))
    return model, {name: {"action": action} for name in named}, known, torch.randn(2, 3, 9, 11, generator=draw)


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_in_memory_packed_and_loaded_are_the_same_bit_by_bit(action: dict[str, Any], tmp_path: Path) -> None:
    model, solution, known, x = case(action)
    plain, packed = (apply_(copy.deepcopy(model), solution, way, known) for way in (False, True))
    wanted = plain(x)
    assert torch.equal(packed(x), wanted)
    assert isinstance(packed.first, Same)
    assert not torch.equal(wanted, model(x))
    compress(model, solution, tmp_path, known)
    assert torch.equal(load_compressed(Network().eval(), tmp_path)(x), wanted)


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_the_outputs_are_those_of_the_product(action: dict[str, Any]) -> None:
    model, solution, known, x = case(action)
    plain = apply_(copy.deepcopy(model), solution, False, known).double()
    by_hand, done = model.double(), parse(action)
    kind = kind_of(done)
    assert isinstance(kind, FactoredKind)
    shapes = {unit.name: unit.layer for unit in units(by_hand)}
    for name in solution:
        layer, parts = by_hand.get_submodule(name), plain.get_submodule(name).parts()
        if isinstance(done, Corrected):
            shift = parts[-2 if done.variance else -1].flatten()
            layer.bias = nn.Parameter(shift if layer.bias is None else layer.bias + shift)
        layer.weight.data = kind.product(parts, done, shapes[name]).view(shapes[name].weight_shape)
    torch.testing.assert_close(plain(x.double()), by_hand(x.double()), rtol=1e-10, atol=1e-12)


def test_a_network_can_be_recovered_through_them() -> None:
    model, solution, known, x = case(ACTIONS["low_rank"])
    packed = apply_(model, solution, True, known)
    found = packed_units(packed)
    gains = [RowGains(one, scalable=True) for one in found]
    before = packed(x)
    with running(gains):
        assert torch.equal(packed(x), before)
        packed(x).square().sum().backward()
    for made in gains:
        assert made.log.grad.abs().sum() > 0
    gain = [torch.tensor([2.0 ** (row % 3 - 1) for row in range(one.layer.rows)]) for one in found]
    with running(gains), torch.no_grad():
        for made, size in zip(gains, gain, strict=True):
            made.log.copy_(size.log())
        meanwhile = packed(x)
    for one, size in zip(found, gain, strict=True):
        one.buffer.copy_(rescale(one.buffer.detach(), one.action, one.layer, size))
    torch.testing.assert_close(packed(x), meanwhile, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(packed(x), before, rtol=0.1)


def test_gradients_reach_the_parts_the_bias_and_the_input() -> None:
    model, solution, known, x = case(ACTIONS["low_rank"])
    plain = apply_(model, solution, False, known)
    plain(x.requires_grad_()).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert {name.partition(".")[2] for name, _ in plain.named_parameters()} == {"left", "right", "bias"}
    assert all(parameter.grad.abs().sum() > 0 for parameter in plain.parameters())


class Stopped(nn.Linear):
    """Waits in the middle of its forward."""

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight
        self.inside.set()
        assert self.go_on.wait(20)
        assert self.weight is kernel
        if x.isnan().any():
            raise ValueError("no numbers")
        return functional.linear(x, kernel, self.bias)


def stopped() -> Stopped:
    """A layer of rank 2 that is stopped as soon as it runs."""
    layer = Stopped(6, 5)
    layer.__class__ = Squashed  # events can be neither copied nor stopped at while it is tried
    apply_(nn.Sequential(layer), {"0": {"action": RANK}})
    made: Any = layer
    made.inside, made.go_on = threading.Event(), threading.Event()
    made.__class__ = type("InPartsStopped", (*type(layer).__bases__[:-1], Stopped), {})
    return made


def test_other_threads_see_the_product_meanwhile() -> None:
    layer, x, found = stopped(), torch.randn(3, 6), []
    thread = threading.Thread(target=lambda: found.append(layer(x)))
    thread.start()
    assert layer.inside.wait(20)
    assert layer.weight.shape == (5, 6)
    assert layer.bias is not None
    layer.go_on.set()
    thread.join(20)
    torch.testing.assert_close(found[0], functional.linear(x, layer.weight, layer.bias))


def test_nothing_stays_lent_when_a_forward_fails() -> None:
    layer = stopped()
    layer.go_on.set()
    with pytest.raises(ValueError, match="no numbers"):
        layer(torch.full((1, 6), torch.nan))
    assert layer.weight.shape == (5, 6)
    assert layer.bias is layer.get_parameter("bias")
