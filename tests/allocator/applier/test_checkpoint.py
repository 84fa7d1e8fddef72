"""Checkpoints: as small as predicted, the same outputs after loading, and nothing taken on trust."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from allocator.actions import parse
from allocator.applier import LayerStatistics, apply_, compress, load_compressed, outside_bytes, units
from allocator.applier.opening import Opening
from allocator.errors import ActionError, AllocatorError

FULL = {"kind": "keep", "dtype": "float32"}
HALF = {"kind": "keep", "dtype": "float16"}
Make = Callable[[], nn.Module]
MadeUp = Callable[[nn.Module], dict[str, LayerStatistics]]


def mixed(model: nn.Module, seed: int, only_bits: int | None = None, measured: bool = False) -> dict[str, Any]:
    """A random allocation: every layer its own action."""
    draw = random.Random(seed)
    chosen: dict[str, Any] = {}
    for unit in units(model):
        choices: list[dict[str, Any]] = [{"kind": "quantize", "bits": b} for b in (1, 2, 3, 4, 8)]
        choices += [HALF, {"kind": "keep", "dtype": "bfloat16"}, FULL]
        choices.append({"kind": "quantize", "bits": 5, "scheme": "asymmetric", "granularity": "group", "group_size": 3})
        values = {"kind": "number_format", "format": "nf4", "granularity": "group", "group_size": 8, "method": "mse"}
        choices.append({"kind": "unify", "block": 3, "share": 0.4, "values": values})
        for name in ("nf4", "fp8_e4m3", "fp8_e5m2", "ternary"):
            choices.append({"kind": "number_format", "format": name, "granularity": "channel"})
        choices.append({"kind": "number_format", "format": "mxfp4"})
        choices.append({"kind": "prune", "pattern": "unstructured", "density": 0.2, "values": HALF})
        bits = {"kind": "quantize", "bits": 2, "scheme": "asymmetric"}
        choices.append({"kind": "prune", "pattern": "n_m", "keep": 1, "block": 4, "values": bits, "signs": "apart"})
        if unit.layer.kind != "embedding":
            kept = {"of": unit.layer.rows, "kept": list(range(0, unit.layer.rows, 2))}
            choices.append({"kind": "slim", "rows": kept, "values": {"kind": "quantize", "bits": 4}})
        if unit.layer.groups == 1:
            choices.append({"kind": "low_rank", "rank": 2, "left": HALF, "right": {"kind": "quantize", "bits": 6}})
        for tensor in (
            {"kind": "tucker2", "rank_out": 3, "rank_in": 2, "parts": {"kind": "quantize", "bits": 6}},
            {"kind": "cp", "rank": 3, "first": HALF, "core": HALF, "last": {"kind": "quantize", "bits": 6}},
            {"kind": "tt", "ranks": [3, 2], "parts": HALF},
            {"kind": "tt", "ranks": [3, 2, 2], "parts": HALF},
        ):
            with contextlib.suppress(ActionError):
                parse(tensor).check(unit.layer)
                choices.append(tensor)
        if measured and "embed" not in unit.modules:
            inside = [choice for choice in choices if choice != FULL and choice["kind"] != "slim"]
            choices = [{"kind": "corrected", "action": one, "variance": draw.random() < 0.5} for one in inside]
            choices.append({"kind": "quantize", "bits": 3, "method": "gptq"})
        action = draw.choice(choices) if only_bits is None else {"kind": "quantize", "bits": only_bits}
        chosen[unit.name] = {"action": action, "modules": list(unit.modules)}
    return chosen


def predicted(model: nn.Module, solution: dict[str, Any]) -> int:
    stored = sum(parse(solution[u.name]["action"]).stored_bytes(u.layer) for u in units(model))
    return stored + outside_bytes(model, units(model))


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["convolutions", "language_model"])
def test_loading_gives_the_outputs_of_applying(
    name: str,
    seed: int,
    measured: bool,
    request: pytest.FixtureRequest,
    images: Tensor,
    ids: Tensor,
    tmp_path: Path,
    made_up: MadeUp,
) -> None:
    make: Make = request.getfixturevalue(name)
    x = images if name == "convolutions" else ids
    model = make()
    if name == "convolutions":
        model(x)  # so that the norm has running state to store
    model.eval()
    solution = mixed(model, seed, measured=measured)
    known = made_up(model) if measured else None
    before = copy.deepcopy(model.state_dict())
    info = compress(model, solution, tmp_path / "new" / "folder", known)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert info.bytes == (info.path / "model.safetensors").stat().st_size
    assert info.bytes - info.described == predicted(model, solution)
    loaded = load_compressed(make(), info.path).eval()
    assert torch.equal(loaded(x), apply_(model, solution, statistics=known)(x))


def test_each_group_is_one_tensor_under_its_own_key(language_model: Make, tmp_path: Path) -> None:
    model = language_model()
    solution = mixed(model, 0) | {
        "embed": {"action": {"kind": "quantize", "bits": 3}, "modules": ["embed", "head"]},
        "block.linear1": {"action": HALF},
    }
    compress(model, solution, tmp_path)
    held = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert "head.weight" not in held
    assert "mask" not in held
    assert held["embed.weight"].shape == (-(-17 * 8 * 3 // 8) + 17 * 2,)
    assert torch.equal(held["block.linear1.weight"], model.block.linear1.weight.half())
    with Opening(model):
        assert set(held) == {n for n, _ in model.named_parameters()}
    loaded = load_compressed(language_model(), tmp_path)
    assert loaded.embed.packed is loaded.head.packed


def test_a_model_that_is_tied_only_after_construction_is_tied_by_loading(tmp_path: Path, ids: Tensor) -> None:
    def make() -> nn.Module:
        return nn.ModuleDict({"a": nn.Embedding(17, 4), "b": nn.Linear(4, 17, bias=False), "n": nn.LayerNorm(4)})

    model = make()
    model["b"].weight = model["a"].weight
    solution = {"ab": {"action": {"kind": "quantize", "bits": 4}, "modules": ["a", "b"]}}
    compress(model, solution, tmp_path)
    loaded = load_compressed(make(), tmp_path)
    assert loaded["a"].packed is loaded["b"].packed
    apply_(model, solution)
    assert torch.equal(loaded["b"](loaded["a"](ids)), model["b"](model["a"](ids)))


class SharedState(nn.Module):
    """A buffer under two names, a layer under two names, a buffer that is not stored."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = self.one
        self.register_buffer("table", torch.randn(50, 2))
        self.register_buffer("same_table", self.table)
        self.register_buffer("scratch", torch.zeros(1000), persistent=False)
        self.register_buffer("column", torch.randn(50, 2)[:, 1])


def test_shared_state_is_stored_once(tmp_path: Path) -> None:
    model = SharedState()
    solution = {"one": {"action": {"kind": "quantize", "bits": 4}}}
    info = compress(model, solution, tmp_path)
    assert info.bytes - info.described == predicted(model, solution)
    held = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert set(held) == {"one.weight", "one.bias", "table", "column"}
    loaded = load_compressed(SharedState(), tmp_path)
    for key in ("table", "same_table", "column"):
        assert torch.equal(getattr(loaded, key), getattr(model, key))


def small_net() -> nn.Module:
    """35 thousand weights in eight layers with norms: where a header still shows in the size."""
    widths = [3, 16, 16, 16, 32, 32, 32]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 160), nn.Linear(160, 10))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, None])
def test_the_predicted_size_is_the_size_of_the_file(bits: int | None, tmp_path: Path) -> None:
    model = small_net()
    assert 30_000 < sum(u.layer.weights for u in units(model)) < 40_000
    for seed in range(6 if bits is None else 1):
        solution = mixed(model, seed, bits)
        info = compress(model, solution, tmp_path)
        assert info.bytes - info.described == predicted(model, solution)


def test_actions_larger_than_float32_miss_the_prediction_by_a_few_bytes(tmp_path: Path) -> None:
    model = small_net()
    action = {"kind": "quantize", "bits": 8, "scheme": "asymmetric", "granularity": "group", "group_size": 1,
              "scale_dtype": "float32"}  # fmt: skip
    solution = {u.name: {"action": action} for u in units(model)}
    info = compress(model, solution, tmp_path)
    assert 0 <= info.bytes - info.described - predicted(model, solution) < 0.001 * info.bytes


def test_some_layers_may_stay_out_of_the_solution(convolutions: Make, images: Tensor, tmp_path: Path) -> None:
    model = convolutions().eval()
    solution = {"line": {"action": {"kind": "quantize", "bits": 2}}}
    info = compress(model, solution, tmp_path)
    covered = [u for u in units(model) if u.name == "line"]
    stored = parse(solution["line"]["action"]).stored_bytes(covered[0].layer)
    assert info.bytes - info.described == stored + outside_bytes(model, covered)
    loaded = load_compressed(convolutions(), tmp_path).eval()
    assert torch.equal(loaded(images), apply_(model, solution)(images))


class SavesItself:
    """A Solution with its own `save`, as the core's."""

    def __init__(self, plain: dict[str, Any]) -> None:
        self.actions = {group: entry["action"] for group, entry in plain.items()}
        self.modules = {group: entry["modules"] for group, entry in plain.items()}

    def save(self, path: Path) -> None:
        document = {"format": "allocation-solution", "version": 1, "status": "optimal", "loss": 0.5}
        path.write_text(json.dumps(document | {"actions": self.actions, "modules": self.modules}))


def test_a_solution_that_saves_itself_is_stored_whole(convolutions: Make, tmp_path: Path) -> None:
    compress(convolutions(), SavesItself(mixed(convolutions(), 1)), tmp_path)
    assert json.loads((tmp_path / "solution.json").read_text())["status"] == "optimal"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "solution.json"]
    load_compressed(convolutions(), tmp_path)


def test_the_same_input_gives_the_same_bytes(convolutions: Make, tmp_path: Path) -> None:
    model = convolutions()
    for folder in ("a", "b"):
        compress(model, mixed(model, 3), tmp_path / folder)
    for file in ("model.safetensors", "solution.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _rewrite(
    change: Callable[[dict[str, Tensor]], Any], metadata: dict[str, str] | None = None
) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        held = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}
        change(held)
        safetensors.torch.save_file(held, path, metadata=metadata)

    return spoil


def _solution(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "solution.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_truncate, "cut short or damaged"),
        (_rewrite(lambda held: held.pop("line.weight")), "'line.weight' is missing"),
        (_rewrite(lambda held: held.pop("norm.running_mean")), "'norm.running_mean' is missing"),
        (_rewrite(lambda held: held.update(extra=torch.ones(1))), "'extra' has no place"),
        (_rewrite(lambda held: held.update({"line.weight": held["line.weight"][1:]})), "'line.weight' is .* call for"),
        (_rewrite(lambda held: held.update({"head.bias": torch.ones(6)})), "'head.bias' is .* call for"),
        (_rewrite(lambda held: held.update({"head.bias": torch.ones(5).double()})), "'head.bias' is .* call for"),
        (_rewrite(len, {"aliases": "[1"}), "aliases are no valid JSON"),
        (_rewrite(len, {"aliases": '{"a": "b"}'}), "aliases name tensors"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read"),
        (lambda folder: (folder / "solution.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "solution.json").write_bytes(b"\x80\x04pickle"), "no valid JSON"),
        (lambda folder: (folder / "solution.json").write_text("[" * 200_000), "no valid JSON"),
        (_solution(version=2), "version 1"),
        (_solution(actions=None), "lacks the actions"),
        (_solution(modules={"line": 3}), "modules must be a list"),
        (_solution(actions={"line": {"kind": "quantize", "bits": 7}}), "call for"),
        (_solution(actions={"line": "os.system"}), 'object with a "kind"'),
    ],
)
def test_bad_checkpoints_are_refused_before_the_model_is_touched(
    convolutions: Make, tmp_path: Path, spoil: Callable[[Path], Any], said: str
) -> None:
    model = convolutions()
    three = {u.name: {"action": {"kind": "quantize", "bits": 3}} for u in units(model)}
    compress(model, three, tmp_path, describe_itself=False)
    spoil(tmp_path)
    fresh = convolutions()
    before = copy.deepcopy(fresh.state_dict())
    with pytest.raises(AllocatorError, match=said):
        load_compressed(fresh, tmp_path)
    assert all(torch.equal(before[key], value) for key, value in fresh.state_dict().items())
    assert list(before) == list(fresh.state_dict())


def test_a_model_without_memory_is_refused_by_name(convolutions: Make, tmp_path: Path) -> None:
    compress(convolutions(), mixed(convolutions(), 0), tmp_path)
    with torch.device("meta"):
        fresh = convolutions()
    with pytest.raises(AllocatorError, match="to_empty"):
        load_compressed(fresh, tmp_path)


class WithExtraState(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"steps": 3}

    def set_extra_state(self, state: dict[str, int]) -> None: ...


def test_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AllocatorError, match=r"'0\._extra_state' is of dict"):
        compress(nn.Sequential(WithExtraState(2, 2)), {"0": {"action": HALF}}, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_folder_one_too_high_is_told_where_the_checkpoint_may_be(tmp_path: Path) -> None:
    compress(nn.Linear(3, 2), {}, tmp_path / "run" / "checkpoint")
    with pytest.raises(AllocatorError, match=r"compress` wrote, which may be .*run/checkpoint"):
        load_compressed(nn.Linear(3, 2), tmp_path / "run")
    with pytest.raises(AllocatorError, match=r"compress` wrote$"):
        load_compressed(nn.Linear(3, 2), tmp_path)
