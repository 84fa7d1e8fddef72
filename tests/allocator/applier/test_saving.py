"""A packed model written as it is: the bytes that compress wrote, or those of what was changed since."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from allocator.applier import apply_, compress, load_compressed, load_provenance, save_compressed, units
from allocator.errors import ActionError

HALF = {"kind": "keep", "dtype": "float16"}
CYCLE: list[dict[str, Any]] = [
    {"kind": "quantize", "bits": 3},
    HALF,
    {"kind": "keep", "dtype": "float32"},
    {"kind": "number_format", "format": "mxfp4"},
    {"kind": "unify", "block": 3, "share": 0.4, "values": {"kind": "quantize", "bits": 4}},
    {"kind": "low_rank", "rank": 2, "left": HALF, "right": {"kind": "quantize", "bits": 6}},
    {"kind": "keep", "dtype": "bfloat16"},
]
Make = Callable[[], nn.Module]


def solution_of(model: nn.Module, shift: int) -> dict[str, Any]:
    chosen = {}
    for place, unit in enumerate(units(model)):
        action = CYCLE[(place + shift) % len(CYCLE)]
        if unit.layer.groups > 1 and action["kind"] == "low_rank":
            action = CYCLE[0]
        chosen[f"group {place}"] = {"action": action, "modules": list(unit.modules)}
    return chosen


@pytest.mark.parametrize("shift", range(len(CYCLE)))
@pytest.mark.parametrize("name", ["convolutions", "language_model"])
@pytest.mark.parametrize("describe_itself", [True, False])
def test_what_was_not_changed_gives_the_bytes_that_it_was_read_from(
    name: str, shift: int, describe_itself: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    make: Make = request.getfixturevalue(name)
    model = make()
    solution = solution_of(model, shift)
    first = compress(
        model, solution, tmp_path / "first", describe_itself=describe_itself, provenance={"command": "here"}
    )
    loaded = load_compressed(make(), first.path)
    applied = apply_(copy.deepcopy(model), solution, packed=True)
    for place, packed in enumerate((loaded, applied)):
        state = copy.deepcopy(packed.state_dict())
        again = save_compressed(
            packed, tmp_path / f"again {place}", solution, describe_itself=describe_itself,
            provenance={"command": "here"},
        )  # fmt: skip
        assert (again.bytes, again.described) == (first.bytes, first.described)
        for file in ("model.safetensors", "solution.json"):
            assert (again.path / file).read_bytes() == (first.path / file).read_bytes()
        assert all(torch.equal(value, packed.state_dict()[key]) for key, value in state.items())


def test_a_changed_model_without_its_solution_is_read_back_with_its_changes(
    language_model: Make, ids: Tensor, tmp_path: Path
) -> None:
    model = language_model().eval()
    packed = apply_(copy.deepcopy(model), solution_of(model, 0), packed=True)
    with torch.no_grad():
        for parameter in packed.parameters():
            if parameter.is_floating_point():
                parameter.add_(0.125)
        packed.embed.packed[-1] += 1  # the highest byte of the last scale
    info = save_compressed(packed, tmp_path, provenance={"recovery": {"steps": 3}})
    loaded = load_compressed(language_model(), tmp_path).eval()
    assert torch.equal(loaded(ids), packed(ids))
    assert not torch.equal(loaded(ids), model(ids))
    assert loaded.embed.packed is loaded.head.packed
    assert load_provenance(tmp_path)["recovery"] == {"steps": 3}
    assert info.bytes == (tmp_path / "model.safetensors").stat().st_size


class Twice(nn.Module):
    """A layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = self.one


@pytest.mark.parametrize("names", [["one"], ["two"], ["one", "two"]])
def test_a_layer_under_two_names_is_stored_once(names: list[str], tmp_path: Path) -> None:
    solution = {"both": {"action": {"kind": "quantize", "bits": 4}, "modules": names}}
    model = Twice()
    compress(model, solution, tmp_path / "first")
    packed = apply_(copy.deepcopy(model), solution, packed=True)
    save_compressed(packed, tmp_path / "again", solution)
    first, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "again"))
    assert first == again


def test_the_model_itself_as_a_layer(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    packed = apply_(copy.deepcopy(model), {"(root)": {"action": {"kind": "quantize", "bits": 4}}}, packed=True)
    save_compressed(packed, tmp_path)
    assert torch.equal(load_compressed(nn.Linear(4, 3), tmp_path).weight, packed.weight)


@pytest.mark.parametrize(
    ("solution", "told"),
    [
        ({"a": {"action": {"kind": "quantize", "bits": 3}, "modules": ["0"]}}, "is packed by .*'bits': 4"),
        ({"a": {"action": HALF, "modules": ["1"]}}, "'1' is not packed"),
        ({"a": {"action": CYCLE[2], "modules": ["1"]}}, "'0' is packed, but no group"),
        ({"a": {"action": HALF, "modules": ["none"]}}, "no module 'none'"),
        ({"a": {"action": HALF, "modules": ["2"]}}, "no weight that actions reach"),
        ({name: {"action": {"kind": "quantize", "bits": 4}, "modules": ["0"]} for name in "ab"}, "groups 'a' and 'b'"),
    ],
)
def test_a_solution_of_another_model_is_refused(solution: dict[str, Any], told: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU())
    apply_(model, {"0": {"action": {"kind": "quantize", "bits": 4}}}, packed=True)
    with pytest.raises(ActionError, match=told):
        save_compressed(model, tmp_path / "out", solution)
    assert not (tmp_path / "out").exists()


def test_a_float_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ActionError, match="no weight of the model is packed"):
        save_compressed(nn.Linear(3, 3), tmp_path)
