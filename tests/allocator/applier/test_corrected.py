"""Outputs after a correction against those of the float layer, on the data that made the statistics."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from allocator.actions import Corrected, Keep, Layer, LowRank, Quantize, parse
from allocator.applier import Approximator, LayerStatistics, apply_, compress, load_compressed, pack, units
from allocator.errors import ActionError
from allocator.space import Rule, Space

HALF = {"kind": "keep", "dtype": "float16"}
INSIDE: dict[str, dict[str, Any]] = {
    "2 bits": {"kind": "quantize", "bits": 2},
    "3 bits asymmetric in groups": {
        "kind": "quantize", "bits": 3, "scheme": "asymmetric", "granularity": "group", "group_size": 4,
    },
    "compensated": {"kind": "quantize", "bits": 2, "method": "gptq"},
    "half": HALF,
    "rank": {"kind": "low_rank", "rank": 2, "left": HALF, "right": {"kind": "quantize", "bits": 6}},
}  # fmt: skip


def inputs_of(module: nn.Module, x: Tensor) -> Tensor:
    """[groups, positions of all samples, columns], window by window, written with unfold."""
    if isinstance(module, nn.Linear):
        return x.double().reshape(1, -1, x.shape[-1])
    assert isinstance(module, nn.Conv2d)
    found = functional.unfold(x.double(), module.kernel_size, module.dilation, module.padding, module.stride)
    return found.view(len(x), module.groups, -1, found.shape[-1]).permute(1, 0, 3, 2).flatten(1, 2)


def known_of(module: nn.Module, x: Tensor) -> LayerStatistics:
    seen = inputs_of(module, x)
    return LayerStatistics(input_moment=seen.transpose(1, 2) @ seen / seen.shape[1], input_mean=seen.mean(1))


MODULES = {
    "linear": (lambda: nn.Linear(12, 7), (50, 12)),
    "linear on sequences": (lambda: nn.Linear(12, 7, bias=False), (6, 9, 12)),
    "convolution": (lambda: nn.Conv2d(3, 6, 3, stride=2, padding=1), (5, 3, 9, 8)),
    "groups": (lambda: nn.Conv2d(8, 12, (3, 2), groups=4, bias=False), (5, 8, 7, 6)),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("inside", INSIDE.values(), ids=INSIDE)
@pytest.mark.parametrize(("make", "shape"), MODULES.values(), ids=MODULES)
def test_outputs_have_the_moments_of_the_float_layer(
    make: Any, shape: tuple[int, ...], inside: dict[str, Any], variance: bool, packed: bool
) -> None:
    model = nn.Sequential(make())
    x = torch.randn(shape).relu() + 0.3 * torch.randn(shape[-1])
    known = known_of(model[0], x)
    action = {"kind": "corrected", "action": inside, "variance": variance}
    made = apply_(copy.deepcopy(model), {"0": {"action": action}}, packed=packed, statistics={"0": known})
    bare = apply_(copy.deepcopy(model), {"0": {"action": inside}}, packed=packed, statistics={"0": known})
    channel = -1 if isinstance(model[0], nn.Linear) else 1
    was, now, without = (
        run(x).detach().double().movedim(channel, 0).flatten(1) for run in (model, made, bare)
    )  # [rows, positions]
    close = 2e-3 * (was.mean(1) - without.mean(1)).abs() + 2e-3 * now.std(1) * variance + 1e-5
    assert ((now.mean(1) - was.mean(1)).abs() <= close).all()
    if inside is not HALF:
        assert ((without.mean(1) - was.mean(1)).abs() > 5 * close).float().mean() > 0.5
    if variance:
        torch.testing.assert_close(now.std(1), was.std(1), rtol=2e-3, atol=1e-5)
    if packed:
        unit = units(model)[0]
        assert made[0].packed.numel() == parse(action).stored_bytes(unit.layer)


def test_numbers_stand_behind_the_action_one_for_each_row() -> None:
    weight, layer = torch.randn(3, 5), Layer("linear", (3, 5))
    x = torch.randn(40, 5, dtype=torch.float64) + 1
    known = LayerStatistics(input_moment=(x.t() @ x / 40).unsqueeze(0), input_mean=x.mean(0, keepdim=True))
    inside = Quantize(bits=2)
    buffer = pack(weight, Corrected(action=inside, variance=True), layer, known)
    at = inside.stored_bytes(layer)
    assert torch.equal(buffer[:at], pack(weight, inside, layer))
    shift, gain = buffer[at:].clone().view(torch.float16).view(2, 3).double()
    made = Approximator(weight, layer).approximate(inside).double()
    was, now = x @ weight.double().t(), x @ made.t()
    torch.testing.assert_close(gain, was.std(0) / now.std(0), rtol=1e-3, atol=0)
    torch.testing.assert_close(shift, was.mean(0) - gain * now.mean(0), rtol=1e-3, atol=1e-6)


def test_outputs_that_do_not_vary_are_shifted_only() -> None:
    weight = torch.randn(4, 6)
    weight[1] = 0
    mean = torch.rand(1, 6, dtype=torch.float64) + 1
    known = LayerStatistics(input_moment=mean.transpose(0, 1) @ mean.unsqueeze(0), input_mean=mean)
    action = Corrected(action=Quantize(bits=2), variance=True)
    approximator = Approximator(weight, Layer("linear", (4, 6)), known)
    assert torch.equal(approximator.approximate(action), approximator.approximate(action.action))
    shift = approximator.shift(action)
    assert shift is not None
    assert shift[1] == 0
    assert shift.isfinite().all()


@pytest.mark.parametrize("inside", [INSIDE["2 bits"], INSIDE["rank"]], ids=["quantize", "low_rank"])
@pytest.mark.parametrize("variance", [False, True])
def test_checkpoints_go_round(inside: dict[str, Any], variance: bool, tmp_path: Any) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.Flatten(), nn.Linear(6 * 16, 5)).eval()

    model, x = make(), torch.randn(4, 3, 6, 6).relu()
    known = {"0": known_of(model[0], x), "2": known_of(model[2], model[:2](x).detach())}
    action = {"kind": "corrected", "action": inside, "variance": variance}
    solution = {name: {"action": action} for name in known}
    compress(model, solution, tmp_path, known)
    loaded = load_compressed(make(), tmp_path)
    assert torch.equal(loaded(x), apply_(model, solution, statistics=known)(x))


def test_modules_that_share_a_bias_are_shifted_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight, model[2].bias = model[0].weight, model[0].bias
    x = torch.randn(30, 4)
    known = {"0": known_of(model[0], x)}
    solution = {"0": {"action": {"kind": "corrected", "action": INSIDE["2 bits"]}, "modules": ["0", "2"]}}
    plain, packed = (apply_(copy.deepcopy(model), solution, packed=p, statistics=known) for p in (False, True))
    assert plain[0].bias is plain[2].bias
    assert torch.equal(plain(x), packed(x))
    assert not torch.equal(plain[0].bias, model[0].bias)


def test_a_bias_that_another_layer_has_too_stays_its_own() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].bias = model[0].bias
    before = model[1].bias.clone()
    known = {"0": known_of(model[0], torch.randn(30, 4))}
    apply_(model, {"0": {"action": {"kind": "corrected", "action": INSIDE["2 bits"]}}}, statistics=known)
    assert torch.equal(model[1].bias, before)
    assert not torch.equal(model[0].bias, before)


def test_a_weight_that_is_looked_up_somewhere_is_not_corrected() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(9, 4), "head": nn.Linear(4, 9, bias=False)})
    model["head"].weight = model["embed"].weight
    action = {"kind": "corrected", "action": INSIDE["2 bits"]}
    with pytest.raises(ActionError, match="group 'head': module 'embed': an embedding looks rows up"):
        apply_(model, {"head": {"action": action, "modules": ["embed", "head"]}})


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (None, "input mean, which was not given"),
        (LayerStatistics(input_mean=torch.zeros(1, 4)), "input moment, which was not given"),
        (LayerStatistics(input_mean=torch.zeros(4)), r"has shape \(4,\), but .* calls for \(1, 4\)"),
        (LayerStatistics(input_mean=torch.full((1, 4), torch.inf)), "infinity"),
    ],
)
def test_statistics_that_cannot_be_are_refused(known: LayerStatistics | None, said: str) -> None:
    with pytest.raises(ActionError, match=said):
        pack(torch.randn(4, 4), Corrected(action=Quantize(bits=4), variance=True), Layer("linear", (4, 4)), known)


def test_a_menu_resolves_what_is_corrected_and_leaves_embeddings_out() -> None:
    inside: list[dict[str, Any]] = [
        {"kind": "quantize", "bits": 3},
        {"kind": "quantize", "bits": 3, "granularity": "group", "group_size": 64},
        {"kind": "low_rank", "fraction": 0.25},
        {"kind": "low_rank", "fraction": 1},
    ]
    choices = (
        *({"kind": "corrected", "action": one, "variance": one["kind"] == "low_rank"} for one in inside),
        {"kind": "quantize", "bits": 2, "method": "gptq"},
        {"kind": "keep", "dtype": "float32"},
    )
    space = Space((Rule(choices=choices),))
    menu = space.menu(["fc"], Layer("linear", (20, 40)))
    assert menu is not None
    assert [item.name for item in menu] == [
        "int3_shift", "int3_g64_shift", "rank5_int8_shift_gain", "int2_gptq", "keep",
    ]  # fmt: skip
    assert menu[2].label == "rank25%_shift_gain"
    assert menu[1].action == Corrected(action=Quantize(bits=3))
    assert menu[2].action == Corrected(
        action=LowRank(rank=5, left=Quantize(bits=8), right=Quantize(bits=8)), variance=True
    )
    looked_up = space.menu(["embed"], Layer("embedding", (20, 40)))
    assert looked_up is not None
    assert [item.action for item in looked_up] == [Keep()]
    with pytest.raises(ActionError, match="'action' is missing"):
        Space((Rule(choices=({"kind": "corrected"},)),)).menu(["fc"], Layer("linear", (20, 40)))
