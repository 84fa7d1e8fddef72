"""Checkpoints that describe themselves: read without the class, loaded without the solution, refused when damaged."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from allocator.actions import parse
from allocator.applier import (
    apply_,
    approximate,
    compress,
    load_compressed,
    load_provenance,
    load_weights,
    outside_bytes,
    units,
)
from allocator.errors import AllocatorError

Make = Callable[[], nn.Module]
ACTIONS: list[dict[str, Any]] = [
    {"kind": "quantize", "bits": 3},
    {"kind": "keep", "dtype": "float16"},
    {"kind": "low_rank", "rank": 1, "left": {"kind": "keep"}, "right": {"kind": "quantize", "bits": 8}},
]


def solution_of(model: nn.Module) -> dict[str, Any]:
    return {
        f"group {unit.name}": {"action": ACTIONS[place % 3], "modules": list(unit.modules)}
        for place, unit in enumerate(units(model))
    }


@pytest.mark.parametrize("name", ["convolutions", "language_model"])
def test_weights_are_read_without_the_class(
    name: str, request: pytest.FixtureRequest, images: Tensor, ids: Tensor, tmp_path: Path
) -> None:
    make: Make = request.getfixturevalue(name)
    model = make()
    model(images if name == "convolutions" else ids)
    model.eval()
    solution = solution_of(model)
    info = compress(model, solution, tmp_path)
    held = load_weights(tmp_path)
    for unit, entry in zip(units(model), solution.values(), strict=True):
        wanted = approximate(unit.weight, parse(entry["action"]), unit.layer)
        for module in unit.modules:
            assert torch.equal(held[f"{module}.weight"].float(), wanted), module
    plain = {key: value for key, value in model.state_dict().items() if not key.endswith("weight")}
    assert all(torch.equal(held[key], value) for key, value in plain.items() if key in held)
    assert 0 < info.described < 3000


def test_the_file_alone_is_enough(convolutions: Make, images: Tensor, tmp_path: Path) -> None:
    model = convolutions()
    model(images)
    model.eval()
    solution = solution_of(model)
    compress(model, solution, tmp_path)
    (tmp_path / "solution.json").unlink()
    loaded = load_compressed(convolutions(), tmp_path).eval()
    assert torch.equal(loaded(images), apply_(model, solution)(images))


def test_without_a_description_the_file_is_as_long_as_was_said(convolutions: Make, tmp_path: Path) -> None:
    model = convolutions()
    solution = solution_of(model)
    info = compress(model, solution, tmp_path, describe_itself=False)
    stored = sum(parse(e["action"]).stored_bytes(u.layer) for u, e in zip(units(model), solution.values(), strict=True))
    assert (tmp_path / "model.safetensors").stat().st_size == info.bytes == stored + outside_bytes(model, units(model))
    assert info.described == 0
    load_compressed(convolutions(), tmp_path)
    with pytest.raises(AllocatorError, match="load_compressed"):
        load_weights(tmp_path)
    assert load_provenance(tmp_path) == {}


def test_any_reader_of_safetensors_gets_the_description(convolutions: Make, tmp_path: Path) -> None:
    compress(convolutions(), solution_of(convolutions()), tmp_path, provenance={"command": "x"})
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as file:
        said = file.metadata()
    assert said["format"] == "allocation-checkpoint"
    assert json.loads(said["provenance"])["command"] == "x" == load_provenance(tmp_path)["command"]
    assert set(json.loads(said["provenance"])["versions"]) == {"compression-allocator", "torch"}
    document = json.loads(zlib.decompress(base64.b64decode(said["allocation"])))
    assert document["weights"]["line.weight"][0] == "group line"
    assert len(document["actions"]) == 3


def _encoded(document: Any) -> str:
    return base64.b64encode(zlib.compress(json.dumps(document).encode())).decode()


BROKEN = [500, 4, 3]
WEIGHT = ["g", 0, ["line"], "conv1d", [5, 4, 3], 1]


@pytest.mark.parametrize(
    ("allocation", "said"),
    [
        ("%%%", "cannot be read"),
        (base64.b64encode(b"no zlib").decode(), "cannot be read"),
        (_encoded([]), "cannot be read"),
        (_encoded({"actions": [], "weights": {"line.weight": WEIGHT}}), "cannot be read"),
        (_encoded({"actions": [ACTIONS[0]], "weights": {"line.weight": WEIGHT[:5]}}), "cannot be read"),
        (_encoded({"actions": [ACTIONS[0]], "weights": {"line.weight": [*WEIGHT[:4], "5", 1]}}), "cannot be read"),
        (_encoded({"actions": [{"kind": "os.system"}], "weights": {}}), "an action of its header .*os.system"),
        (_encoded({"actions": [ACTIONS[0]], "weights": {"line.weight": [*WEIGHT[:4], BROKEN, 1]}}), "calls for; it is"),
        (_encoded({"actions": [ACTIONS[0]], "weights": {"none.weight": WEIGHT}}), "calls for; it is"),
    ],
)  # fmt: skip
def test_damaged_descriptions_are_refused(convolutions: Make, tmp_path: Path, allocation: str, said: str) -> None:
    compress(convolutions(), solution_of(convolutions()), tmp_path)
    path = tmp_path / "model.safetensors"
    held = safetensors.torch.load_file(path)
    safetensors.torch.save_file(held, path, metadata={"allocation": allocation, "provenance": "["})
    with pytest.raises(AllocatorError, match=said):
        load_weights(tmp_path)
    with pytest.raises(AllocatorError, match="provenance"):
        load_provenance(tmp_path)


def test_a_description_that_would_fill_the_memory_is_refused(
    convolutions: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress(convolutions(), solution_of(convolutions()), tmp_path)
    monkeypatch.setattr("allocator.applier.description.LARGEST", 100)
    with pytest.raises(AllocatorError, match="too long"):
        load_weights(tmp_path)
