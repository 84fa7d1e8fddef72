"""A compressed model on disk: `model.safetensors`, really small, beside the `solution.json` that explains it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from allocator.actions import Action, Keep, Layer, parse
from allocator.applier.apply import leaves_alone, require_finite, require_statistics
from allocator.applier.inventory import Inventory, describe, header_bytes, take_inventory, weight_key
from allocator.applier.kinds.keep import KEEP_DTYPE, keep_values
from allocator.applier.modules import install_packed
from allocator.applier.opening import Opening
from allocator.applier.packed import pack
from allocator.applier.plan import HasActions, PlainSolution, Step, actions_and_modules, modules_of, plan
from allocator.applier.statistics import Statistics
from allocator.applier.tensor_file import Described, Header, read_header, read_tensor, replacing, write
from allocator.applier.weight import to_matrix
from allocator.errors import AllocatorError

MODEL_FILE = "model.safetensors"
SOLUTION_FILE = "solution.json"

_Model = TypeVar("_Model", bound=nn.Module)


@dataclass(frozen=True)
class CheckpointInfo:
    """Where a checkpoint lies (its folder), and the bytes of its model.safetensors."""

    path: Path
    bytes: int


def compress(
    model: nn.Module,
    solution: HasActions | PlainSolution,
    directory: str | PathLike[str],
    statistics: Statistics | None = None,
) -> CheckpointInfo:
    """Write the model as a solution compresses it; the model itself is not changed.

    Each weight of a group is one tensor under its own key (tied weights once): its packed buffer, or for `keep` its
    numbers. Everything else in the state dict is stored as it is. Attention of which the solution names a part has the
    keys `….q_proj.weight`, `….q_proj.bias` and so on in place of `….in_proj_weight` and `….in_proj_bias`.
    An existing checkpoint is replaced file by file, each only when the new one is complete.
    ``statistics``: see `apply_`.

    Raises:
        ActionError: see `plan`; a weight that is not finite, statistics that are missing.
        AllocatorError: state that no tensor file can hold.
    """
    with Opening(model) as opening:
        steps = plan(model, solution)
        require_finite(steps)
        require_statistics(steps, statistics)
        opening.narrow(modules_of(steps))
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        size = _write(model, steps, folder / MODEL_FILE, statistics or {})
    _save_solution(solution, folder / SOLUTION_FILE)
    return CheckpointInfo(folder, size)


def load_compressed(model: _Model, directory: str | PathLike[str]) -> _Model:
    """Fill a freshly made model, of the class that was compressed, from a checkpoint; its layers stay packed.

    Every name, dtype and size is checked against the model and the actions before memory is taken or the model is
    touched. Nothing is ever unpickled.

    Raises:
        AllocatorError: files that are missing, cut short, contradictory, or of another model; the text says which.
    """
    folder = Path(directory)
    with Opening(model) as opening:
        steps = plan(model, _load_solution(folder / SOLUTION_FILE))
        opening.narrow(modules_of(steps))
        _fill(model, steps, folder / MODEL_FILE, opening)
    return model


def _write(model: nn.Module, steps: tuple[Step, ...], path: Path, statistics: Statistics) -> int:
    units = [step.unit for step in steps]
    inventory = take_inventory(model, units)
    tensors: list[Any] = [(describe(key, t), partial(_itself, t)) for key, t in inventory.outside.items()]
    tensors += [
        (_stored(_key(step), step.action, step.unit.layer), partial(_payload, step, statistics)) for step in steps
    ]
    return write(path, tensors, inventory.metadata, header_bytes(inventory, units))


def _fill(model: nn.Module, steps: tuple[Step, ...], path: Path, opening: Opening) -> None:
    inventory = take_inventory(model, [step.unit for step in steps])
    header = read_header(path)
    aliases = _aliases(header, path)
    wanted = [describe(key, tensor) for key, tensor in inventory.outside.items()]
    wanted += [_stored(_key(step), step.action, step.unit.layer) for step in steps]
    _match(wanted, header, aliases, path)
    _require_memory(inventory, steps)
    opening.stay()
    with torch.no_grad():
        for key, tensor in inventory.outside.items():
            tensor.copy_(read_tensor(path, header, aliases.get(key, key)))
        for source, sharing in _by_source(steps, aliases).items():
            _install(model, sharing, read_tensor(path, header, source))


def _key(step: Step) -> str:
    return weight_key(step.unit.modules[0])


def _stored(key: str, action: Action, layer: Layer) -> Described:
    if isinstance(action, Keep):
        return Described(key, KEEP_DTYPE[action.dtype], layer.weight_shape)
    return Described(key, torch.uint8, (action.stored_bytes(layer),))


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _payload(step: Step, statistics: Statistics) -> Tensor:
    weight, layer = step.unit.weight, step.unit.layer
    if isinstance(step.action, Keep):
        return keep_values(to_matrix(weight, layer), step.action).reshape(layer.weight_shape)
    return pack(weight, step.action, layer, statistics.get(step.unit.name))


def _save_solution(solution: Any, path: Path) -> None:
    with replacing(path) as aside:
        if hasattr(solution, "save"):
            solution.save(aside)
            return
        actions, modules = actions_and_modules(solution)
        document = {
            "format": "allocation-solution",
            "version": 1,
            "actions": {group: parse(action).to_json() for group, action in actions.items()},
            "modules": modules,
        }
        aside.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _load_solution(path: Path) -> PlainSolution:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AllocatorError(
            f"{path}: cannot be read ({error.strerror}); give the folder that `compress` wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise AllocatorError(f"{path}: no valid JSON ({error}); the file is damaged") from error
    if (
        not isinstance(document, dict)
        or document.get("format") != "allocation-solution"
        or document.get("version") != 1
    ):
        raise AllocatorError(f'{path}: not a solution of version 1 (format "allocation-solution", version 1)')
    actions, modules = document.get("actions"), document.get("modules", {})
    if not isinstance(actions, dict) or not isinstance(modules, dict):
        raise AllocatorError(f"{path}: lacks the actions and modules by which a checkpoint is loaded")
    return {group: {"action": action, "modules": modules.get(group, [group])} for group, action in actions.items()}


def _aliases(header: Header, path: Path) -> dict[str, str]:
    try:
        aliases = json.loads(header.metadata.get("aliases", "{}"))
    except (ValueError, RecursionError) as error:
        raise AllocatorError(f"{path}: aliases are no valid JSON ({error}); the file is damaged") from error
    if not isinstance(aliases, dict) or not all(isinstance(v, str) and v in header.tensors for v in aliases.values()):
        raise AllocatorError(f"{path}: aliases name tensors that the file lacks; the file is damaged")
    return aliases


def _match(wanted: list[Described], header: Header, aliases: dict[str, str], path: Path) -> None:
    """Raise AllocatorError unless the file holds exactly what the model and the actions call for."""
    used = set()
    for need in wanted:
        source = aliases.get(need.name, need.name)
        held = header.tensors.get(source)
        if held is None:
            raise AllocatorError(f"{path}: tensor {need.name!r} is missing; was the checkpoint made from this model?")
        if (held.dtype, held.shape) != (need.dtype, need.shape):
            raise AllocatorError(
                f"{path}: tensor {source!r} is {held.dtype} {list(held.shape)}, but the model and its action call for "
                f"{need.dtype} {list(need.shape)}; load it into a model like the one that was compressed"
            )
        used.add(source)
    extra = sorted(set(header.tensors) - used)
    if extra:
        raise AllocatorError(f"{path}: tensor {extra[0]!r} has no place in the model ({len(extra)} such)")


def _require_memory(inventory: Inventory, steps: tuple[Step, ...]) -> None:
    targets = {**inventory.outside, **{_key(step): step.unit.weight for step in steps}}
    for key, tensor in targets.items():
        if tensor.is_meta:
            raise AllocatorError(
                f"{key!r} is on the meta device; give the model memory first: model.to_empty(device=…)"
            )


def _by_source(steps: tuple[Step, ...], aliases: dict[str, str]) -> dict[str, list[Step]]:
    """Steps by the tensor that feeds them: several when the fresh model has not tied what the saved one had."""
    found: dict[str, list[Step]] = {}
    for step in steps:
        found.setdefault(aliases.get(_key(step), _key(step)), []).append(step)
    return found


def _install(model: nn.Module, sharing: list[Step], stored: Tensor) -> None:
    first = sharing[0]
    if leaves_alone(first):
        for step in sharing:
            step.unit.weight.copy_(stored)
        return
    buffer = stored.reshape(-1).view(torch.uint8).to(first.unit.weight.device)
    modules = [model.get_submodule(name) for step in sharing for name in step.unit.modules]
    install_packed(modules, buffer, first.action, first.unit.layer)
