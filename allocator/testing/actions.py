"""What every kind of action has to do, whoever wrote it: checks for one weight, and for networks as a whole.

`EXAMPLES` has actions of every kind of this package. A third party's kind passes the same checks with its own.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from allocator.actions import Action, Layer, parse, statistics_of
from allocator.applier import (
    Approximator,
    LayerStatistics,
    Unit,
    apply_,
    compress,
    load_compressed,
    load_weights,
    outside_bytes,
    pack,
    units,
    unpack,
)
from allocator.applier.opening import Opening
from allocator.applier.plan import require_doable
from allocator.errors import ActionError

_HALF: Mapping[str, Any] = {"kind": "keep", "dtype": "float16"}
_FOUR: Mapping[str, Any] = {"kind": "quantize", "bits": 4}
_GROUPS: Mapping[str, Any] = {"granularity": "group", "group_size": 5}
_ASYMMETRIC: Mapping[str, Any] = {"kind": "quantize", "bits": 2, "scheme": "asymmetric"}

EXAMPLES: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "keep": ({"kind": "keep"}, _HALF, {"kind": "keep", "dtype": "bfloat16"}),
    "quantize": (
        *({"kind": "quantize", "bits": bits} for bits in (1, 3, 8)),
        {**_ASYMMETRIC, **_GROUPS, "method": "mse"},
        {**_FOUR, "granularity": "tensor", "method": "aciq"},
        {**_FOUR, "method": "gptq"},
        {**_ASYMMETRIC, "method": "gptq"},
        {**_FOUR, "rounding": "ceil", "scale_dtype": "float32"},
    ),
    "number_format": (
        *({"kind": "number_format", "format": name, "granularity": "channel"} for name in ("nf4", "fp8_e4m3")),
        {"kind": "number_format", "format": "fp8_e5m2", "granularity": "tensor"},
        {"kind": "number_format", "format": "mxfp4", "method": "mse"},
        {"kind": "number_format", "format": "ternary", "weighting": "input"},
    ),
    "low_rank": (
        {"kind": "low_rank", "rank": 1, "left": _HALF, "right": _FOUR},
        {"kind": "low_rank", "rank": 2, "left": _HALF, "right": _HALF, "weighting": "input"},
        {"kind": "low_rank", "rank": 1, "left": _HALF, "right": _HALF, "weighting": "fisher"},
    ),
    "tucker2": ({"kind": "tucker2", "rank_out": 3, "rank_in": 2, "parts": _HALF},),
    "cp": (
        {"kind": "cp", "rank": 2, "parts": _HALF},
        {"kind": "cp", "rank": 3, "kernel": "whole", "parts": _FOUR, "weighting": "input"},
    ),
    "tt": ({"kind": "tt", "ranks": [3, 2, 2], "parts": _HALF}, {"kind": "tt", "ranks": [2, 2], "parts": _HALF}),
    "prune": (
        {"kind": "prune", "pattern": "unstructured", "density": 0.3, "values": _FOUR},
        {"kind": "prune", "pattern": "n_m", "keep": 2, "block": 4, "values": _HALF, "compensate": True},
    ),
    "slim": (
        {"kind": "slim", "rows": {"of": 8, "kept": [0, 2, 3, 6]}, "values": _FOUR},
        {"kind": "slim", "rows": {"of": 12, "kept": [1, 5]}, "values": _HALF},
        {"kind": "slim", "columns": {"of": 10, "kept": [1, 5, 8]}, "values": _HALF, "weighting": "input"},
    ),
    "unify": ({"kind": "unify", "block": 3, "share": 0.5, "values": _FOUR},),
    "corrected": (
        {"kind": "corrected", "action": {**_ASYMMETRIC, "method": "gptq"}, "variance": True},
        {"kind": "corrected", "action": {"kind": "low_rank", "rank": 1, "left": _HALF, "right": _HALF}},
    ),
}
"""Kind to actions of it that differ in what is stored or in how it is found."""


class Padded(nn.Conv2d):
    """A convolution with a forward of its own, which pads at one end."""

    def forward(self, x: Tensor) -> Tensor:
        """As large as what it is given, for a kernel of 2×2."""
        return functional.conv2d(functional.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class Network(nn.Module):
    """Strided, grouped, depthwise, dilated, one-dimensional convolutions, linear layers, a norm, a tied embedding.

    One of the convolutions has a forward of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.padded = Padded(8, 8, 2)
        self.grouped = nn.Conv2d(8, 12, 3, groups=4, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, (3, 1), groups=12)
        self.dilated = nn.Conv2d(12, 6, (1, 3), dilation=2, padding_mode="circular", padding=(0, 2))
        self.line = nn.Conv1d(6, 10, 3, stride=2, padding=2)
        self.embed = nn.Embedding(11, 10)
        self.mix = nn.Linear(10, 10)
        self.head = nn.Linear(10, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        """Images [N, 3, H, W] and a symbol for each [N] to logits [N, 11]."""
        x = torch.relu(self.padded(torch.relu(self.first(x))))
        x = torch.relu(self.norm(self.grouped(x)))
        x = torch.relu(self.line(torch.relu(self.dilated(self.depthwise(x))).flatten(2)))
        found: Tensor = self.head(self.mix(x.mean(-1) + self.embed(ids)))
        return found


def network(seed: int = 0) -> tuple[Network, tuple[Tensor, Tensor]]:
    """A network of its own random weights and running statistics, in eval mode, and what it is run on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Network()
        x, ids = torch.randn(5, 3, 12, 9), torch.randint(11, (5,))
        model.train()
        model(x, ids)
    return model.eval(), (x, ids)


def statistics(layer: Layer, seed: int = 0) -> LayerStatistics:
    """Of random inputs and outputs."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(layer.groups, 30, layer.columns, generator=draw) + 0.5
    return LayerStatistics(x.transpose(1, 2) @ x / 30, x.mean(1), torch.rand(layer.rows, generator=draw) + 0.1)


def check_weight(action: Action, weight: Tensor, layer: Layer) -> None:
    """One weight: as many bytes as the cost says; what comes back is what was scored, bit by bit; nothing else changes.

    Raises:
        AssertionError: something is wrong; the text says what.
        ActionError: the action cannot be done to the layer.
    """
    known, before = statistics(layer), weight.clone()
    buffer = pack(weight, action, layer, known)
    predicted = action.stored_bytes(layer)
    _require(
        buffer.dtype == torch.uint8 and buffer.shape == (predicted,), f"{predicted} bytes said, {buffer.shape} there"
    )
    _require(torch.equal(buffer, pack(weight, action, layer, known)), "equal weights give other bytes")
    approximator = Approximator(weight, layer, known)
    made = approximator.approximate(action)
    _require(made.shape == weight.shape and made.dtype == weight.dtype, f"comes back as {made.dtype} {made.shape}")
    _require(bool(made.isfinite().all()), "comes back with numbers that are none")
    _require(torch.equal(made, unpack(buffer, action, layer, weight.dtype)), "what is stored is not what is scored")
    _require(torch.equal(weight, before), "the weight was written to")
    _require(made.data_ptr() != weight.data_ptr(), "what comes back is the weight itself")
    again = parse(action.to_json())
    _require(again == action and again.to_json() == action.to_json(), "its JSON does not read back")
    for wrong in (buffer[:-1], torch.cat([buffer, buffer[:1]])):
        try:
            unpack(wrong, action, layer)
        except ActionError:
            continue
        raise AssertionError(f"a buffer of {len(wrong)} bytes in place of {predicted} is taken")


def done_to(model: nn.Module, action: Action) -> Iterator[Unit]:
    """The stored weights that an action can be done to."""
    with Opening(model):
        for unit in units(model):
            try:
                require_doable(model, unit, action)
            except ActionError:
                continue
            yield unit


def check_network(action: Action, seed: int = 0) -> int:
    """Every layer of `Network` that the action can be done to; how many those are.

    In memory, packed, and read back from disk the outputs are the same bit by bit; the file is as long as was said;
    tied weights stay tied; the model that was compressed is as before; `keep` in float32 changes no output; and a
    solution that cannot be done leaves everything as it was.

    Raises:
        AssertionError: something is wrong; the text says what.
    """
    model, inputs = network(seed)
    covered = list(done_to(model, action))
    solution: dict[str, Any] = {
        unit.name: {"action": action.to_json(), "modules": list(unit.modules)} for unit in covered
    }
    if not solution:
        return 0
    known = {unit.name: statistics(unit.layer) for unit in covered if statistics_of(action)}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    plain, packed = (apply_(copy.deepcopy(model), solution, way, known) for way in (False, True))
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        wanted = plain(*inputs)
        _require(torch.equal(packed(*inputs), wanted), "the packed network gives other outputs")
        info = compress(model, solution, folder, known)
        size = sum(action.stored_bytes(unit.layer) for unit in covered) + outside_bytes(model, covered)
        _require(info.bytes - info.described == size, f"{size} bytes said, {info.bytes - info.described} on disk")
        _require(info.bytes == (Path(folder) / "model.safetensors").stat().st_size, "the length of the file is another")
        loaded = load_compressed(network(seed + 1)[0], folder)
        _require(torch.equal(loaded(*inputs), wanted), "the network that is read back gives other outputs")
        held = load_weights(folder)
        for unit in covered:
            made = Approximator(unit.weight, unit.layer, known.get(unit.name)).approximate(action)
            _require(torch.equal(held[f"{unit.modules[0]}.weight"].float(), made), "weights read alone are others")
        if action.to_json() == {"kind": "keep", "dtype": "float32"}:
            _require(torch.equal(wanted, model(*inputs)), "keeping changes outputs")
        tied = loaded.get_parameter("embed.packed" if hasattr(loaded.embed, "packed") else "embed.weight")
        _require(any(tied is other for other in loaded.head.parameters()), "a tied weight is stored twice")
    _require_same(model, before, "compressing changed the model")
    impossible = {"first": {"action": {"kind": "quantize", "bits": 4, "granularity": "group", "group_size": 10**6}}}
    for way in (False, True):
        try:
            apply_(model, solution | impossible, way, known)
        except ActionError:
            _require_same(model, before, "a solution that cannot be done changed the model")
            continue
        raise AssertionError("a solution that cannot be done is taken")
    return len(covered)


def _require_same(model: nn.Module, before: Mapping[str, Tensor], said: str) -> None:
    after = model.state_dict()
    _require(list(after) == list(before) and all(torch.equal(after[key], was) for key, was in before.items()), said)


def _require(holds: bool, said: str) -> None:
    if not holds:
        raise AssertionError(said)
