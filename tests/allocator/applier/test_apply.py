"""A model under a solution: packed and plain outputs agree bit for bit, and nothing is touched unless all can be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from allocator.actions import Layer, parse, statistics_of
from allocator.applier import Approximator, LayerStatistics, apply_, approximate, units
from allocator.applier.kinds import FactoredKind, kind_of
from allocator.applier.opening import Opening
from allocator.errors import ActionError

HALF = {"kind": "keep", "dtype": "float16"}
ACTIONS: dict[str, dict[str, Any]] = {
    "1 bit": {"kind": "quantize", "bits": 1},
    "3 bits": {"kind": "quantize", "bits": 3, "scheme": "asymmetric", "granularity": "tensor", "method": "mse"},
    "4 bits in groups": {"kind": "quantize", "bits": 4, "granularity": "group", "group_size": 5},
    "4 bits up": {"kind": "quantize", "bits": 4, "rounding": "ceil"},
    "half": HALF,
    "bfloat16": {"kind": "keep", "dtype": "bfloat16"},
    "full": {"kind": "keep", "dtype": "float32"},
    "fp8": {"kind": "number_format", "format": "fp8_e4m3"},
    "mxfp4": {"kind": "number_format", "format": "mxfp4", "method": "mse"},
    "nf4": {"kind": "number_format", "format": "nf4", "granularity": "channel", "method": "mse"},
    "picked": {"kind": "low_rank", "rank": 1, "components": [1], "left": HALF, "right": HALF},
    "tucker2": {"kind": "tucker2", "rank_out": 4, "rank_in": 2, "parts": {"kind": "quantize", "bits": 5}},
    "cp": {"kind": "cp", "rank": 3, "first": HALF, "core": {"kind": "quantize", "bits": 8}, "last": HALF},
    "cp_whole": {"kind": "cp", "rank": 3, "kernel": "whole", "parts": HALF},
    "tt": {"kind": "tt", "ranks": [3, 4, 2], "parts": HALF},
    "pruned": {"kind": "prune", "pattern": "unstructured", "density": 0.3, "values": {"kind": "quantize", "bits": 4}},
    "pruned blocks": {"kind": "prune", "pattern": "n_m", "keep": 2, "block": 4, "values": HALF, "signs": "apart"},
    "rank": {"kind": "low_rank", "rank": 2, "left": HALF, "right": {"kind": "quantize", "bits": 6}},
    "rank nf4": {
        "kind": "low_rank",
        "rank": 2,
        "left": {"kind": "number_format", "format": "ternary"},
        "right": {"kind": "number_format", "format": "nf4", "granularity": "channel"},
    },
    "ternary": {"kind": "number_format", "format": "ternary", "granularity": "group", "group_size": 7},
    "slim": {"kind": "slim", "values": {"kind": "quantize", "bits": 5}},
    "unify": {"kind": "unify", "block": 4, "share": 0.5, "values": {"kind": "number_format", "format": "mxfp4"}},
    "2 bits compensated": {"kind": "quantize", "bits": 2, "method": "gptq"},
}
ACTIONS["shifted"] = {"kind": "corrected", "action": ACTIONS["2 bits compensated"]}
ACTIONS["shifted and scaled"] = {"kind": "corrected", "action": ACTIONS["1 bit"], "variance": True}
ACTIONS["rank shifted"] = {"kind": "corrected", "action": ACTIONS["rank"]}
ACTIONS["rank shifted and scaled"] = {"kind": "corrected", "action": ACTIONS["rank"], "variance": True}
Make = Callable[[], nn.Module]
MadeUp = Callable[[nn.Module], dict[str, LayerStatistics]]


def slimmed(layer: Layer, values: dict[str, Any]) -> dict[str, Any]:
    """All rows but the first, and where there are no groups every other input channel."""
    action = {"kind": "slim", "values": values, "rows": {"of": layer.rows, "kept": list(range(1, layer.rows))}}
    inputs = layer.weight_shape[1]
    if layer.groups > 1 or inputs < 2:
        return action
    return action | {"columns": {"of": inputs, "kept": list(range(0, inputs, 2))}}


def everywhere(model: nn.Module, action: dict[str, Any]) -> dict[str, Any]:
    """The action on every layer that it can be done to."""
    chosen = {}
    for unit in units(model):
        looked_up = any(isinstance(model.get_submodule(name), nn.Embedding) for name in unit.modules if "." not in name)
        if action["kind"] == "slim":
            action = slimmed(unit.layer, action["values"])
        possible = feasible(action, unit.layer) and not (looked_up and statistics_of(parse(action)))
        chosen[unit.name] = {"action": action if possible else ACTIONS["3 bits"], "modules": unit.modules}
    return chosen


def feasible(action: dict[str, Any], layer: Layer) -> bool:
    try:
        parse(action).check(layer)
    except ActionError:
        return False
    return True


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
@pytest.mark.parametrize("name", ["convolutions", "language_model"])
def test_packed_and_plain_outputs_agree_bit_for_bit(
    action: dict[str, Any], name: str, request: pytest.FixtureRequest, images: Tensor, ids: Tensor, made_up: MadeUp
) -> None:
    model = request.getfixturevalue(name)().eval()
    known = made_up(model)
    x = images if name == "convolutions" else ids
    solution = everywhere(model, action)
    before = model(x)
    plain, packed = (apply_(copy.deepcopy(model), solution, packed=p, statistics=known) for p in (False, True))
    for context in (torch.enable_grad, torch.no_grad):
        with context():
            assert torch.equal(packed(x), plain(x))
    slim = action["kind"] == "slim"
    if slim or not isinstance(kind_of(parse(action)), FactoredKind):
        # The reference: overwrite the weights by hand, and add to the biases.
        with Opening(model), Opening(plain):
            for unit in units(model):
                done, module = parse(solution[unit.name]["action"]), model.get_submodule(unit.modules[0])
                made = Approximator(unit.weight, unit.layer, known[unit.name])
                weight, shift = made.approximate(done), made.shift(done)
                unit.weight.data.copy_(weight)
                if shift is not None:
                    module.bias = nn.Parameter(shift if module.bias is None else module.bias + shift)
            if slim:  # smaller layers: other sums of the same numbers
                torch.testing.assert_close(plain(x), model(x))
            else:
                assert torch.equal(plain(x), model(x))
    assert torch.equal(plain(x), before) == (action == ACTIONS["full"])


def test_low_rank_layers_compute_the_product(convolutions: Make, images: Tensor) -> None:
    model = convolutions().eval()
    solution = everywhere(model, {"kind": "low_rank", "rank": 3, "left": HALF, "right": HALF})
    factored = apply_(copy.deepcopy(model), solution)
    by_hand = copy.deepcopy(model)
    for unit in units(by_hand):
        unit.weight.data.copy_(approximate(unit.weight, parse(solution[unit.name]["action"]), unit.layer))
    torch.testing.assert_close(factored(images), by_hand(images))
    assert torch.equal(factored.first.weight, by_hand.first.weight)


def test_a_low_rank_embedding_looks_up_then_projects() -> None:
    model = nn.Embedding(11, 6, padding_idx=2)
    action = {"kind": "low_rank", "rank": 4, "left": HALF, "right": HALF}
    ids = torch.randint(0, 11, (3, 5))
    wanted = functional.embedding(ids, approximate(model.weight, parse(action), units(model)[0].layer))
    for packed in (False, True):
        got = apply_(copy.deepcopy(model), {"g": {"action": action, "modules": [""]}}, packed=packed)(ids)
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("action", [ACTIONS["3 bits"], ACTIONS["rank"]], ids=["3 bits", "rank"])
def test_tied_layers_stay_one_storage(language_model: Make, packed: bool, action: dict[str, Any]) -> None:
    model = apply_(language_model(), {"embed": {"action": action}}, packed=packed).to(torch.float64)
    names = ["packed"] if packed else (["left", "right"] if action["kind"] == "low_rank" else ["weight"])
    for name in names:
        assert getattr(model.embed, name) is getattr(model.head, name)
    twin = copy.deepcopy(model)
    assert getattr(twin.embed, names[0]) is getattr(twin.head, names[0])


def test_a_packed_model_holds_the_weight_only_as_bytes(convolutions: Make) -> None:
    model = apply_(convolutions(), everywhere(convolutions(), ACTIONS["4 bits in groups"]), packed=True)
    for unit in units(convolutions()):
        module = model.get_submodule(unit.name)
        held = [t for t in [*module.parameters(), *module.buffers()] if t is not getattr(module, "bias", None)]
        action = parse(ACTIONS["4 bits in groups"])
        assert sum(t.numel() * t.itemsize for t in held) == action.stored_bytes(unit.layer)
    assert units(model) == ()
    assert "packed" in {name.rpartition(".")[2] for name in model.state_dict()}


def test_a_packed_model_computes_in_the_dtype_that_it_is_moved_to(convolutions: Make, images: Tensor) -> None:
    model = convolutions().eval()
    packed = apply_(model, everywhere(model, ACTIONS["3 bits"]), packed=True)
    single = packed(images)
    double = packed.double()(images.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single)


def test_state_dict_of_a_packed_model_goes_round(convolutions: Make, images: Tensor) -> None:
    models = [convolutions().eval() for _ in range(2)]
    one, two = (apply_(m, everywhere(m, ACTIONS["rank"]), packed=True) for m in models)
    assert not torch.equal(one(images), two(images))
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(images), two(images))


def test_gradients_reach_the_input_and_the_factors(convolutions: Make, images: Tensor) -> None:
    x = images.requires_grad_()
    packed = apply_(convolutions().eval(), everywhere(convolutions(), ACTIONS["3 bits"]), packed=True)
    packed(x).sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    factored = apply_(convolutions().eval(), everywhere(convolutions(), ACTIONS["rank"]))
    factored(images).sum().backward()
    assert factored.head.left.grad is not None


class PaddedConv(nn.Conv2d):
    """A subclass with a forward of its own, as TensorFlow ports have."""

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(x, (0, 1, 0, 1))
        return functional.conv2d(x, self.weight, self.bias, self.stride)


def test_a_subclass_keeps_its_forward_when_quantised_and_refuses_layers_along_its_kernel() -> None:
    model = nn.Sequential(PaddedConv(3, 4, 2))
    x = torch.randn(2, 3, 5, 5)
    plain, packed = (apply_(copy.deepcopy(model), {"0": {"action": ACTIONS["1 bit"]}}, packed=p) for p in (False, True))
    assert packed(x).shape == (2, 4, 5, 5)
    assert torch.equal(plain(x), packed(x))
    assert isinstance(packed[0], PaddedConv)
    with pytest.raises(ActionError, match="group '0': module '0': PaddedConv has a forward of its own"):
        apply_(model, {"0": {"action": ACTIONS["cp"] | {"rank": 2}}})


def test_hooks_and_second_names_survive() -> None:
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    calls: list[int] = []
    layer.register_forward_hook(lambda *_: calls.append(1))
    apply_(model, {"g": {"action": ACTIONS["1 bit"], "modules": ["2"]}}, packed=True)(torch.randn(2, 3))
    assert calls == [1, 1]
    assert model[0] is model[2]


@dataclass
class FromTheCore:
    """What a Solution looks like from here."""

    actions: dict[str, Any]
    modules: dict[str, list[str]] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)


def test_a_solution_object_and_groups_of_several_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    wanted = [approximate(u.weight, parse(ACTIONS["1 bit"]), u.layer) for u in units(model)]
    apply_(model, FromTheCore({"both": ACTIONS["1 bit"]}, {"both": ["0", "1"]}))
    assert all(torch.equal(layer.weight, w) for layer, w in zip(model, wanted, strict=True))


def test_float64_weights_are_kept_as_float32() -> None:
    model = nn.Sequential(nn.Linear(3, 3)).double()
    x = torch.randn(2, 3).double()
    plain, packed = (apply_(copy.deepcopy(model), {"0": {"action": ACTIONS["full"]}}, packed=p) for p in (False, True))
    assert torch.equal(plain[0].weight, model[0].weight.float().double())
    assert torch.equal(plain(x), packed(x))


def _broken(model: nn.Module) -> nn.Module:
    model.get_submodule("head").weight.data[0, 0] = torch.nan
    return model


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"nowhere": {"action": HALF}}, "group 'nowhere': the model has no module 'nowhere'"),
        ({"g": {"action": HALF, "modules": ["norm"]}}, "group 'g': module 'norm' .* BatchNorm2d"),
        ({"head": {"action": {"kind": "fold"}}}, "group 'head': action kind 'fold' is unknown"),
        ({"head": {"action": {"kind": "quantize", "bits": 9}}}, "group 'head': .* bits"),
        ({"head": {"action": ACTIONS["rank"] | {"rank": 6}}}, "group 'head': module 'head': .* use at most 5"),
        ({"depthwise": {"action": ACTIONS["rank"]}}, "group 'depthwise': module 'depthwise': .* use at most 1"),
        ({"again": {"action": HALF, "modules": ["first"]}}, "group 'again': weight of first belongs to group 'first'"),
        ({"g": {"modules": ["head"]}}, "group 'g': expected"),
        ({"g": {"action": HALF, "modules": "head"}}, "group 'g': modules must be a list"),
        ({"head": {"action": ACTIONS["1 bit"]}}, "group 'head': module 'head': the weight holds NaN"),
    ],
)  # fmt: skip
def test_all_or_nothing(convolutions: Make, entry: dict[str, Any], said: str, packed: bool) -> None:
    model = convolutions()
    if "NaN" in said:
        _broken(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    kinds = [type(m) for m in model.modules()]
    with pytest.raises(ActionError, match=said):
        apply_(model, {"first": {"action": ACTIONS["1 bit"]}} | entry, packed=packed)
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) or "NaN" in said for key in before)
    assert torch.equal(before["first.weight"], after["first.weight"])
    assert kinds == [type(m) for m in model.modules()]


def test_a_choice_without_an_action_and_a_second_packing_are_refused(convolutions: Make) -> None:
    chosen = FromTheCore({"first": HALF}, {"head": ["head"]}), FromTheCore({"first": HALF}, choices={"head": "fast"})
    for solution in chosen:
        with pytest.raises(ActionError, match="group 'head': its choice carries no action"):
            apply_(convolutions(), solution)
    with pytest.raises(ActionError, match="the solution names no action"):
        apply_(convolutions(), FromTheCore({}))
    model = apply_(convolutions(), {"head": {"action": HALF}}, packed=True)
    with pytest.raises(ActionError, match="module 'head' is compressed already"):
        apply_(model, {"head": {"action": HALF}})


def test_an_uncovered_module_is_refused_with_its_reason(language_model: Make) -> None:
    with pytest.raises(
        ActionError, match=r"self_attn' is attention, which is four layers: name block.self_attn.q_proj"
    ):
        apply_(language_model(), {"g": {"action": HALF, "modules": ["block.self_attn"]}})
    with pytest.raises(ActionError, match=r"'0' cannot be compressed \(0.weight_ih_l0: recurrent"):
        apply_(nn.Sequential(nn.LSTM(2, 3)), {"0": {"action": HALF}})


@pytest.mark.parametrize("packed", [True, False])
def test_convolutions_of_volumes_are_layers_too(packed: bool) -> None:
    model, x = (
        nn.Sequential(nn.Conv3d(3, 8, (1, 3, 3), padding="same", padding_mode="circular")),
        torch.randn(2, 3, 4, 5, 5),
    )
    (unit,) = units(model)
    assert (unit.layer.kind, unit.layer.rows, unit.layer.columns) == ("conv3d", 8, 27)
    for action in (ACTIONS["rank"], ACTIONS["3 bits"]):
        by_hand = copy.deepcopy(model)
        by_hand[0].weight.data.copy_(approximate(unit.weight, parse(action), unit.layer))
        found = apply_(copy.deepcopy(model), {"0": {"action": action}}, packed=packed)(x)
        torch.testing.assert_close(found, by_hand(x), atol=1e-5, rtol=1e-5)
