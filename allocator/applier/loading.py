"""Checkpoints read back: into a model of the class that was compressed, or as plain tensors without it."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from allocator.applier.apply import leaves_alone
from allocator.applier.checkpoint import MODEL_FILE, SOLUTION_FILE, key_of, stored_as
from allocator.applier.description import Stored, provenance, stored
from allocator.applier.inventory import Inventory, describe, take_inventory
from allocator.applier.modules import install_packed
from allocator.applier.opening import Opening
from allocator.applier.packed import unpack
from allocator.applier.plan import PlainSolution, Step, modules_of, plan
from allocator.applier.tensor_file import Described, Header, read_header, read_tensor, unreadable
from allocator.errors import AllocatorError

_Model = TypeVar("_Model", bound=nn.Module)


def load_compressed(model: _Model, directory: str | PathLike[str]) -> _Model:
    """Fill a freshly made model, of the class that was compressed, from a checkpoint; its layers stay packed.

    Every name, dtype and size is checked against the model and the actions before memory is taken or the model is
    touched. Nothing is ever unpickled.

    Raises:
        AllocatorError: files that are missing, cut short, contradictory, or of another model; the text says which.
    """
    folder = Path(directory)
    header = read_header(folder / MODEL_FILE)
    with Opening(model) as opening:
        steps = plan(model, _allocation(folder, header))
        opening.narrow(modules_of(steps))
        _fill(model, steps, folder / MODEL_FILE, header, opening)
    return model


def load_allocation(directory: str | PathLike[str]) -> PlainSolution:
    """Action and modules of every group of a checkpoint: from its header, or else from the solution beside it.

    Raises:
        AllocatorError: files that are missing or damaged.
    """
    folder = Path(directory)
    return _allocation(folder, read_header(folder / MODEL_FILE))


def load_weights(directory: str | PathLike[str]) -> dict[str, Tensor]:
    """The state of a compressed model as plain tensors, by name, without its class: packed weights come unpacked.

    Keys that share a tensor get the same one. Nothing is ever unpickled.

    Raises:
        AllocatorError: a file that is missing, cut short, damaged, or does not describe itself.
    """
    path = Path(directory) / MODEL_FILE
    header = read_header(path)
    weights = stored(header, path)
    if weights is None:
        raise AllocatorError(
            f"{path}: its header does not say how weights are packed (describe_itself=False wrote it): load it into a "
            "model of its class with load_compressed"
        )
    found = {key: read_tensor(path, header, key) for key in header.tensors}
    for one in weights:
        held = header.tensors.get(one.key)
        need = stored_as(one.key, one.action, one.layer)
        if held != need:
            raise AllocatorError(
                f"{path}: tensor {one.key!r} is not what the header's allocation calls for; it is damaged"
            )
        if need.dtype == torch.uint8:
            found[one.key] = unpack(found[one.key], one.action, one.layer)
    return found | {alias: found[key] for alias, key in _aliases(header, path).items()}


def load_provenance(directory: str | PathLike[str]) -> dict[str, Any]:
    """Where a checkpoint is from, as its header says: versions, hashes, command; AllocatorError as `load_weights`."""
    path = Path(directory) / MODEL_FILE
    return provenance(read_header(path), path)


def _allocation(folder: Path, header: Header) -> PlainSolution:
    weights = stored(header, folder / MODEL_FILE)
    return _load_solution(folder / SOLUTION_FILE) if weights is None else _solution(weights)


def _solution(weights: tuple[Stored, ...]) -> PlainSolution:
    """The allocation by groups, as the header has it by weights."""
    groups: dict[str, dict[str, Any]] = {}
    for one in weights:
        entry = groups.setdefault(one.group, {"action": one.action.to_json(), "modules": []})
        entry["modules"] += one.modules
    return groups


def _fill(model: nn.Module, steps: tuple[Step, ...], path: Path, header: Header, opening: Opening) -> None:
    inventory = take_inventory(model, [step.unit for step in steps])
    aliases = _aliases(header, path)
    wanted = [describe(key, tensor) for key, tensor in inventory.outside.items()]
    wanted += [stored_as(key_of(step), step.action, step.unit.layer) for step in steps]
    _match(wanted, header, aliases, path)
    _require_memory(inventory, steps)
    opening.stay()
    with torch.no_grad():
        for key, tensor in inventory.outside.items():
            tensor.copy_(read_tensor(path, header, aliases.get(key, key)))
        for source, sharing in _by_source(steps, aliases).items():
            _install(model, sharing, read_tensor(path, header, source))


def _load_solution(path: Path) -> PlainSolution:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from error
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
    targets = {**inventory.outside, **{key_of(step): step.unit.weight for step in steps}}
    for key, tensor in targets.items():
        if tensor.is_meta:
            raise AllocatorError(
                f"{key!r} is on the meta device; give the model memory first: model.to_empty(device=…)"
            )


def _by_source(steps: tuple[Step, ...], aliases: dict[str, str]) -> dict[str, list[Step]]:
    """Steps by the tensor that feeds them: several when the fresh model has not tied what the saved one had."""
    found: dict[str, list[Step]] = {}
    for step in steps:
        found.setdefault(aliases.get(key_of(step), key_of(step)), []).append(step)
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
