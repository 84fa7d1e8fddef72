"""Programs: what unpacks a weight as a graph, bit for bit; the file, what is in it and what is refused; calls."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from allocator.actions import Layer, parse
from allocator.applier import Call, apply_, export_program, load_program, pack, recorded_call, unpack
from allocator.applier.kinds.quantize import QuantizeKind
from allocator.applier.packed_units import packed_units
from allocator.errors import ActionError, AllocatorError
from allocator.testing.actions import EXAMPLES, network, statistics

HALF = {"kind": "keep", "dtype": "float16"}
FOUR = {"kind": "quantize", "bits": 4}
LAYERS = (
    Layer("conv2d", (8, 10, 3, 3)),
    Layer("linear", (12, 10)),
    Layer("conv1d", (8, 3, 3), groups=2),
    Layer("conv1d", (10, 6, 3)),
    Layer("embedding", (11, 10)),
)
SPARSE: tuple[dict[str, Any], ...] = (
    {"kind": "prune", "pattern": "unstructured", "density": 0.02, "values": HALF},
    {"kind": "prune", "pattern": "unstructured", "density": 0.97, "values": {"kind": "quantize", "bits": 3}},
    {"kind": "prune", "pattern": "unstructured", "density": 0.4, "values": FOUR, "signs": "apart"},
    {"kind": "prune", "pattern": "n_m", "keep": 1, "block": 8, "values": HALF, "signs": "apart"},
    {"kind": "prune", "pattern": "n_m", "keep": 4, "block": 8, "values": FOUR},
)
NETWORK: dict[str, dict[str, Any]] = {
    "first": {"kind": "unify", "block": 3, "share": 0.5, "values": FOUR},
    "grouped": {"kind": "corrected", "action": {"kind": "quantize", "bits": 2}, "variance": True},
    "depthwise": SPARSE[2],
    "dilated": {"kind": "low_rank", "rank": 2, "left": HALF, "right": FOUR},
    "line": {"kind": "number_format", "format": "mxfp4"},
    "embed": {"kind": "quantize", "bits": 3},
    "mix": {"kind": "slim", "columns": {"of": 10, "kept": [1, 5, 8]}, "values": HALF},
}


def done(layer: Layer, described: Any) -> Iterator[tuple[Any, Tensor]]:
    """The action and the packed form of a weight, if the action can be done to the layer."""
    action = parse(described)
    try:
        action.check(layer)
        yield action, pack(torch.randn(layer.weight_shape), action, layer, statistics(layer))
    except ActionError:
        return


@pytest.mark.parametrize("described", [*(one for kind in EXAMPLES.values() for one in kind), *SPARSE], ids=str)
def test_every_kind_unpacks_in_a_graph_to_the_same_bits(described: Any) -> None:
    tried = 0
    for layer in LAYERS:
        for action, buffer in done(layer, described):
            traced = partial(unpack, action=action, layer=layer)
            graph = make_fx(traced, tracing_mode="fake", _allow_non_fake_inputs=True)(buffer)
            assert torch.equal(graph(buffer), unpack(buffer, action, layer))
            other = pack(-1.5 * torch.randn(layer.weight_shape), action, layer, statistics(layer, 1))
            assert torch.equal(graph(other), unpack(other, action, layer)), "the graph has numbers of the first weight"
            constants = [value for value in vars(graph).values() if isinstance(value, Tensor)]
            assert sum(value.numel() for value in constants) <= 256
            tried += 1
    assert tried


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, tuple[Tensor, Tensor], Path]:
    """A network packed by seven kinds, what it is run on, and its program."""
    model, inputs = network(0)
    tied = {"embed": ["embed", "head"]}
    solution = {name: {"action": action, "modules": tied.get(name, [name])} for name, action in NETWORK.items()}
    known = {"grouped": statistics(Layer("conv2d", (12, 2, 3, 3), groups=4))}
    apply_(model, solution, packed=True, statistics=known)
    path = tmp_path_factory.mktemp("programs") / "model.pt2"
    info = export_program(model, inputs, path)
    assert info == dataclasses.replace(info, path=path, bytes=path.stat().st_size, samples=None)
    return model, inputs, path


def test_a_program_gives_the_packed_model_s_outputs_bit_by_bit(mixed: Any) -> None:
    model, (x, ids), path = mixed
    program = load_program(path)
    with torch.no_grad():
        for count in (5, 2, 1):
            assert torch.equal(program(x[:count], ids[:count]), model(x[:count], ids[:count]))
        twice = (torch.cat([x, x]), torch.cat([ids, ids]))
        assert torch.equal(program(*twice), model(*twice))
    assert torch.equal(program(x, ids), model(x, ids))


def test_the_file_holds_packed_weights_once_and_no_inputs_or_paths(mixed: Any) -> None:
    model, _, path = mixed
    with zipfile.ZipFile(path) as archive:
        sizes = {name.split("/", 1)[1]: archive.getinfo(name).file_size for name in archive.namelist()}
        graph = archive.read(next(name for name in archive.namelist() if name.endswith("model.json"))).decode()
    state = {tensor.data_ptr(): tensor.nbytes for tensor in model.state_dict().values()}
    assert sum(size for name, size in sizes.items() if "/weight_" in name) == sum(state.values())
    assert sum(size for name, size in sizes.items() if "/tensor_" in name) <= 1024  # tables of values, kept channels
    assert sizes["data/sample_inputs/model.pt"] == 0
    assert "stack_trace" not in graph
    assert str(Path(__file__).parents[3]) not in graph


def test_neither_the_class_nor_this_package_is_needed(mixed: Any, tmp_path: Path) -> None:
    model, inputs, path = mixed
    torch.save({"inputs": inputs, "outputs": model(*inputs).detach()}, tmp_path / "case.pt")
    code = (
        "import sys, torch\n"
        "case = torch.load(sys.argv[1])\n"
        "program = torch.export.load(sys.argv[2]).module()\n"
        "assert torch.equal(program(*case['inputs']), case['outputs'])\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'allocator']\n"
    )
    words = [sys.executable, "-I", "-c", code, str(tmp_path / "case.pt"), str(path)]
    subprocess.run(words, check=True, cwd=tmp_path, timeout=120, capture_output=True)


def test_the_model_is_left_as_it_was_and_equal_programs_are_equal_bytes(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout())
    apply_(model, {"0": {"action": FOUR}}, packed=True)
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for name in ("one", "two"):
        export_program(model, torch.randn(3, 6), tmp_path / f"{name}.pt2")
    assert (tmp_path / "one.pt2").read_bytes() == (tmp_path / "two.pt2").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.pt2", "two.pt2"]
    assert all(module.training for module in model.modules())
    assert not model._forward_hooks
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    x = torch.randn(2, 6)
    assert torch.equal(load_program(tmp_path / "one.pt2")(x), model.eval()(x))


class Named(NamedTuple):
    logits: Tensor
    size: int


@dataclasses.dataclass
class Answer(OrderedDict[str, Any]):
    logits: Any = None
    cache: Any = None
    hidden: Any = None

    def __post_init__(self) -> None:
        self.update(logits=self.logits, cache=self.cache, hidden=self.hidden)


class Calls(nn.Module):
    """Takes arguments by position and by name, and gives what it is told to."""

    def __init__(self, give: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear, self.give = nn.Linear(4, 3), give

    def forward(self, x: Tensor, more: Any = None, *, bias: Tensor | None = None, twice: bool = False) -> Any:
        x = self.linear(x if more is None else x + more["other"][0])
        return self.give((2 * x if twice else x) if bias is None else x + bias)


X = torch.linspace(-1, 1, 12).view(3, 4)


@pytest.mark.parametrize(
    "example",
    [X, (X,), {"x": X, "bias": torch.ones(3, 3), "twice": False}, Call((X, {"other": [X, None]}), {"twice": True})],
)
def test_calls_of_every_form(example: Any, tmp_path: Path) -> None:
    model = Calls(lambda x: x)
    call = example if isinstance(example, Call) else None
    if call is None:
        call = Call((), example) if isinstance(example, dict) else Call(example if isinstance(example, tuple) else (X,))
    assert export_program(model, example, tmp_path / "model.pt2").samples is None
    found = load_program(tmp_path / "model.pt2")(*call.args, **call.kwargs)
    assert torch.equal(found, model(*call.args, **call.kwargs))


@pytest.mark.parametrize(
    "give",
    [
        lambda x: Named(x, 3),
        lambda x: Answer(x, object(), (x, x)),
        lambda x: SimpleNamespace(logits=x, cache=object()),
        lambda x: {"logits": x},
    ],
)
def test_outputs_become_plain(give: Any, tmp_path: Path) -> None:
    model = Calls(give)
    export_program(model, X, tmp_path / "model.pt2")
    found = load_program(tmp_path / "model.pt2")(X)
    assert type(found) is dict
    assert torch.equal(found["logits"], model.linear(X))
    assert set(found) <= {"logits", "hidden"}


def test_the_number_of_samples_is_said_where_it_is_fixed(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    assert export_program(model, X[:1], tmp_path / "one.pt2").samples == 1
    assert export_program(Calls(lambda x: x.reshape(len(x), 3)), X, tmp_path / "three.pt2").samples == 3
    with pytest.raises(RuntimeError, match="shape"):
        load_program(tmp_path / "three.pt2")(X[:2])


def test_a_call_is_recorded() -> None:
    model = Calls(lambda x: x)
    call = recorded_call(model, lambda: (model(X, bias=X[:, :3]), model(X)))
    assert call.args == (X,)
    assert list(call.kwargs) == ["bias"]
    assert not model._forward_pre_hooks
    with pytest.raises(AllocatorError, match="not called"):
        recorded_call(model, lambda: model.forward(X))


def test_what_cannot_be_traced_is_said(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    path = tmp_path / "model.pt2"
    with pytest.raises(AllocatorError, match="does not run on the example"):
        export_program(nn.Linear(5, 2), X, path)
    with pytest.raises(AllocatorError, match="cannot trace the model"):
        export_program(Calls(lambda x: x if x.sum() > 0 else -x), X, path)
    model = apply_(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), {"1": {"action": FOUR}}, packed=True)
    restore = QuantizeKind.restore

    def looks(self: Any, buffer: Tensor, action: Any, layer: Layer) -> Tensor:
        assert int(buffer[0]) >= 0
        return restore(self, buffer, action, layer)

    monkeypatch.setattr(QuantizeKind, "restore", looks)
    with pytest.raises(ActionError, match=r"module '1': what unpacks its action 'quantize' cannot be traced .* keep"):
        export_program(model, X, path)
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().err == ""


def changed(path: Path, out: Path, change: Callable[[str, bytes], bytes | None], more: dict[str, bytes]) -> Path:
    """A copy of an archive with other contents."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for member in source.infolist():
            content = change(member.filename, source.read(member))
            if content is not None:
                target.writestr(member.filename, content)
        for name, content in more.items():
            target.writestr(name, content)
    return out


def pickled(name: str, content: bytes) -> bytes:
    """Weights' description with every tensor pickled."""
    if not name.endswith("model_weights_config.json"):
        return content
    document = json.loads(content)
    for entry in document["config"].values():
        entry["use_pickle"] = True
    return json.dumps(document).encode()


def test_files_with_anything_that_would_be_unpickled_are_refused(mixed: Any, tmp_path: Path) -> None:
    path, out = mixed[2], tmp_path / "changed.pt2"
    code = pickle.dumps(print)
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]

    def same(name: str, content: bytes) -> bytes:
        return content

    load_program(changed(path, out, same, {}))
    extra = ["data/constants/custom_obj_0", "data/constants/opaque_obj_0", "data/weights/model.pt", "extra/x", "../x"]
    for name in extra:
        with pytest.raises(AllocatorError, match="has no place in a program"):
            load_program(changed(path, out, same, {f"{root}/{name}": code}))
    with pytest.raises(AllocatorError, match="is pickled"):
        load_program(changed(path, out, pickled, {}))
    with pytest.raises(AllocatorError, match="sample inputs"):
        load_program(changed(path, out, lambda name, c: code if "sample_inputs" in name else c, {}))
    with pytest.raises(AllocatorError, match=r"lacks 'models/model\.json'"):
        load_program(changed(path, out, lambda name, c: None if name.endswith("/model.json") else c, {}))
    with pytest.raises(AllocatorError, match="cannot read this program"):
        load_program(changed(path, out, lambda name, c: b"{}" if name.endswith("/model.json") else c, {}))


def test_files_that_are_none_are_refused(mixed: Any, tmp_path: Path) -> None:
    with pytest.raises(AllocatorError, match="cannot be read"):
        load_program(tmp_path / "missing.pt2")
    for content in (b"", b"PK\x03\x04 and so on", mixed[2].read_bytes()[:-100]):
        (tmp_path / "model.pt2").write_bytes(content)
        with pytest.raises(AllocatorError, match="is no program"):
            load_program(tmp_path / "model.pt2")


def test_packed_units_are_what_is_exported(mixed: Any) -> None:
    program = load_program(mixed[2])
    held = program.state_dict()
    for one in packed_units(mixed[0]):
        assert held[f"{one.name}.packed"].dtype == torch.uint8
        assert torch.equal(held[f"{one.name}.packed"], one.buffer)
