"""What a model's checkpoint holds besides its groups, and how many bytes that takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from allocator.applier.layers import Unit, memory
from allocator.applier.modules import PACKED, is_packed
from allocator.applier.opening import Opening
from allocator.applier.tensor_file import LENGTH_BYTES, NAMES, Described, header_text, padded
from allocator.errors import AllocatorError


@dataclass(frozen=True)
class Inventory:
    """The state of a model around some units.

    Attributes:
        outside: key to tensor of everything stored as it is, by falling item size, as the file has them; tensors
            under several keys appear once.
        aliases: the other keys of a shared tensor, to the key that stores it; those of units too.
    """

    outside: Mapping[str, Tensor]
    aliases: Mapping[str, str]

    @property
    def metadata(self) -> dict[str, str]:
        """What the file's header says beyond the tensors."""
        return {"aliases": json.dumps(self.aliases, separators=(",", ":"), sort_keys=True)} if self.aliases else {}


def weight_key(module_name: str) -> str:
    """Key of a module's weight in the state dict."""
    return f"{module_name}.weight" if module_name else "weight"


def take_inventory(model: nn.Module, units: Iterable[Unit]) -> Inventory:
    """Everything in the model's state_dict() that is not a unit's weight; non-persistent buffers are not in it.

    Attention with a part among the units is opened for it, other attention has the keys that it has when closed.

    Raises:
        AllocatorError: state that is no tensor, or of a dtype that the file cannot hold.
    """
    units = tuple(units)
    with Opening(model) as opening:
        opening.narrow(name for unit in units for name in unit.modules)
        state = {_file_key(model, key): tensor for key, tensor in model.state_dict(keep_vars=True).items()}
    stored = {_identity(unit.weight): weight_key(unit.modules[0]) for unit in units}
    grouped = set(stored.values())
    outside: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor) or tensor.dtype not in NAMES:
            what = f"dtype {tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise AllocatorError(
                f"state {key!r} is of {what}, which a checkpoint cannot hold; keep it out of the state"
            )
        owner = stored.setdefault(_identity(tensor), key)
        if owner != key:
            aliases[key] = owner
        elif key not in grouped:
            outside[key] = tensor
    ordered = sorted(outside.items(), key=lambda item: -item[1].dtype.itemsize)
    return Inventory(dict(ordered), aliases)


def _file_key(model: nn.Module, key: str) -> str:
    """Key of a state in the file: a packed buffer has that of the weight."""
    name, _, last = key.rpartition(".")
    return weight_key(name) if last == PACKED and is_packed(model.get_submodule(name)) else key


def outside_bytes(model: nn.Module, units: Iterable[Unit]) -> int:
    """The `offset` of a problem: bytes of the checkpoint that no choice changes.

    Norms, biases, buffers, layers that are in no unit, and the header, whose length is fixed beforehand (`compress`
    pads it). So offset + Σ stored_bytes is the exact size of model.safetensors, as long as the groups together take
    no more than float32 would; beyond that the header can be a few bytes longer.

    Args:
        model: the model before compression.
        units: those that the problem's groups cover.
    """
    units = tuple(units)
    inventory = take_inventory(model, units)
    held = sum(describe(key, tensor).bytes for key, tensor in inventory.outside.items())
    return LENGTH_BYTES + header_bytes(inventory, units) + held


def header_bytes(inventory: Inventory, units: Iterable[Unit]) -> int:
    """Length of the header in its widest form: the longest dtype, shape and offsets that each group may come to.

    Outside tensors of 4 bytes a number or more lie before every group, so their offsets are known.
    """
    units = tuple(units)
    outside = [describe(key, tensor) for key, tensor in inventory.outside.items()]
    total = sum(described.bytes for described in outside) + sum(4 * unit.layer.weights for unit in units)
    entries, at = [], 0
    for described in outside:
        span = (at, at + described.bytes) if described.dtype.itemsize >= 4 else (total, total)
        entries.append((described.name, NAMES[described.dtype], described.shape, span))
        at += described.bytes
    for unit in units:
        shape, stream = unit.layer.weight_shape, (4 * unit.layer.weights,)
        widest = max(shape, stream, key=lambda s: len(str(list(s)).replace(" ", "")))
        entries.append((weight_key(unit.modules[0]), "BF16", widest, (total, total)))
    return padded(len(header_text(entries, inventory.metadata).encode()))


def describe(key: str, tensor: Tensor) -> Described:
    """The file's entry for a tensor that is stored as it is."""
    return Described(key, tensor.dtype, tuple(tensor.shape))


def _identity(tensor: Tensor) -> object:
    return memory(tensor), tuple(tensor.shape), tensor.stride(), tensor.dtype
