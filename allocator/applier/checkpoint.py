"""A compressed model on disk: `model.safetensors`, really small, beside the `solution.json` that explains it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from allocator.actions import Action, Keep, Layer, parse
from allocator.applier.apply import require_finite, require_ready
from allocator.applier.description import description
from allocator.applier.inventory import describe, header_bytes, take_inventory, weight_key
from allocator.applier.kinds.keep import KEEP_DTYPE, keep_values
from allocator.applier.opening import Opening
from allocator.applier.packed import pack
from allocator.applier.plan import HasActions, PlainSolution, Step, actions_and_modules, modules_of, plan
from allocator.applier.statistics import Statistics
from allocator.applier.tensor_file import (
    Described,
    header_text,
    padded,
    replacing,
    write,
)
from allocator.applier.weight import to_matrix
from allocator.progress import Progress, silent

MODEL_FILE = "model.safetensors"
SOLUTION_FILE = "solution.json"

_Model = TypeVar("_Model", bound=nn.Module)


@dataclass(frozen=True)
class CheckpointInfo:
    """Where a checkpoint lies, and how large it is.

    Attributes:
        path: its folder.
        bytes: of its model.safetensors.
        described: those of them in which the file describes itself; the rest is what the allocation's cost said.
    """

    path: Path
    bytes: int
    described: int


def compress(
    model: nn.Module,
    solution: HasActions | PlainSolution,
    directory: str | PathLike[str],
    statistics: Statistics | None = None,
    *,
    describe_itself: bool = True,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> CheckpointInfo:
    """Write the model as a solution compresses it; the model itself is not changed.

    Each weight of a group is one tensor under its own key (tied weights once): its packed buffer, or for `keep` its
    numbers. Everything else in the state dict is stored as it is. Attention of which the solution names a part has the
    keys `….q_proj.weight`, `….q_proj.bias` and so on in place of `….in_proj_weight` and `….in_proj_bias`.
    The file's header says what each tensor is (`allocator.applier.description`), so that it can be loaded, or read
    without the model's class (`load_weights`), on its own; the solution as a whole lies beside it.
    An existing checkpoint is replaced file by file, each only when the new one is complete.

    Args:
        model: in memory, not on the meta device.
        solution: as in `apply_`.
        directory: folder of the checkpoint; made if need be.
        statistics: see `apply_`.
        describe_itself: False leaves the description out, for a limit that holds to the byte: the file is then as long
            as the allocation's cost said, and `load_compressed` needs the solution beside it.
        provenance: what else the header should say, such as the command line; plain data without dates, so that equal
            runs write equal bytes.
        progress: told after every group.

    Raises:
        ActionError: see `plan`; a weight that is not finite, statistics that are missing.
        AllocatorError: state that no tensor file can hold.
    """
    with Opening(model) as opening:
        steps = plan(model, solution)
        require_finite(steps)
        require_ready(steps, statistics)
        opening.narrow(modules_of(steps))
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        said = description(steps, {**origin(solution), **(provenance or {})}) if describe_itself else {}
        done = count(1)

        def payload(step: Step) -> Tensor:
            made = _payload(statistics or {}, step)
            progress("compressing", next(done), len(steps))
            return made

        size, described = write_model(model, steps, folder / MODEL_FILE, said, payload)
    save_solution(solution, folder / SOLUTION_FILE)
    return CheckpointInfo(folder, size, described)


def origin(solution: Any) -> dict[str, Any]:
    """What a solution of the core says of itself: problem and solver; the solver's options are in solution.json."""
    found = {name: getattr(solution, name, None) for name in ("problem", "solver")}
    return {name: {k: v for k, v in value.items() if k != "options"} for name, value in found.items() if value}


def write_model(
    model: nn.Module,
    steps: tuple[Step, ...],
    path: Path,
    said: Mapping[str, str],
    payload: Callable[[Step], Tensor],
) -> tuple[int, int]:
    """Write the weights of the steps, each as ``payload`` gives it, and around them the rest of the model's state.

    ``said``: what the file says of itself, in its header. Returns the bytes of the file, and those of what is said.
    """
    units = [step.unit for step in steps]
    inventory = take_inventory(model, units)
    tensors: list[Any] = [(describe(key, t), partial(_itself, t)) for key, t in inventory.outside.items()]
    tensors += [(stored_as(key_of(step), step.action, step.unit.layer), partial(payload, step)) for step in steps]
    described = padded(len(header_text([], said).encode())) if said else 0
    metadata = {**inventory.metadata, **said}
    return write(path, tensors, metadata, header_bytes(inventory, units) + described), described


def key_of(step: Step) -> str:
    """Key of a weight in the file."""
    return weight_key(step.unit.modules[0])


def stored_as(key: str, action: Action, layer: Layer) -> Described:
    """The file's entry for a weight: its packed buffer, or for `keep` its numbers."""
    if isinstance(action, Keep):
        return Described(key, KEEP_DTYPE[action.dtype], layer.weight_shape)
    return Described(key, torch.uint8, (action.stored_bytes(layer),))


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def kept(step: Step, action: Keep) -> Tensor:
    """The numbers of a weight that is kept, as the file has them."""
    return keep_values(to_matrix(step.unit.weight, step.unit.layer), action).reshape(step.unit.layer.weight_shape)


def _payload(statistics: Statistics, step: Step) -> Tensor:
    weight, layer = step.unit.weight, step.unit.layer
    if isinstance(step.action, Keep):
        return kept(step, step.action)
    return pack(weight, step.action, layer, statistics.get(step.unit.name))


def save_solution(solution: Any, path: Path) -> None:
    """Write solution.json: by the solution's own means, or what a checkpoint is loaded by."""
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
