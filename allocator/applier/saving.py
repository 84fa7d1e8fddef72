"""A packed model written as it is: the checkpoint of what runs, after whatever was done to it since it was packed."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from allocator.actions import Action, Keep, parse
from allocator.applier.apply import leaves_alone
from allocator.applier.checkpoint import (
    MODEL_FILE,
    SOLUTION_FILE,
    CheckpointInfo,
    kept,
    origin,
    save_solution,
    stored_as,
    write_model,
)
from allocator.applier.description import description
from allocator.applier.layers import ROOT, Unit, units
from allocator.applier.opening import Opening
from allocator.applier.packed_units import packed_units
from allocator.applier.plan import HasActions, PlainSolution, Step, actions_and_modules, modules_of
from allocator.errors import ActionError


def save_compressed(
    model: nn.Module,
    directory: str | PathLike[str],
    solution: HasActions | PlainSolution | None = None,
    *,
    describe_itself: bool = True,
    provenance: Mapping[str, Any] | None = None,
) -> CheckpointInfo:
    """Write a packed model (`apply_` with packed=True, `load_compressed`): its buffers and all other state as they are.

    The checkpoint has the form that `compress` gives it, loads with `load_compressed` to the same bits, and has the
    same bytes where nothing has changed since and solution and provenance are the same. The model is not changed.

    Args:
        model: in memory; layers that a solution leaves alone (`keep float32`) are plain.
        directory: as in `compress`.
        solution: the one that it was packed by, for the names of its groups and for solution.json; None: each packed
            weight is a group of its own, named by its first module, and layers that were left alone are in none.
        describe_itself: as in `compress`.
        provenance: as in `compress`.

    Raises:
        ActionError: no weight is packed; a solution by which the model was not packed.
        AllocatorError: state that no tensor file can hold.
    """
    with Opening(model) as opening:
        steps = _steps(model, solution)
        opening.narrow(modules_of(steps))
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        said = description(steps, {**origin(solution), **(provenance or {})}) if describe_itself else {}
        size, described = write_model(model, steps, folder / MODEL_FILE, said, _payload)
    save_solution(_plain(steps) if solution is None else solution, folder / SOLUTION_FILE)
    return CheckpointInfo(folder, size, described)


def _steps(model: nn.Module, solution: HasActions | PlainSolution | None) -> tuple[Step, ...]:
    """What was done to every packed weight, and to those that a solution leaves alone; `Unit.weight` is the buffer."""
    packed = {
        one.name: Step(one.name, Unit(one.name, one.names, one.layer, one.buffer), one.action)
        for one in packed_units(model)
    }
    if not packed:
        raise ActionError(
            "no weight of the model is packed: apply_ the solution with packed=True, or write a float model with "
            "compress"
        )
    if solution is None:
        return tuple(packed.values())
    by_module = {name: step.unit for step in packed.values() for name in step.unit.modules}
    by_module |= {name: unit for unit in units(model) for name in unit.modules}
    actions, modules = actions_and_modules(solution)
    steps: dict[str, Step] = {}
    for group, described in actions.items():
        action = parse(described)
        for name in modules[group]:
            unit = _unit(model, group, name, by_module)
            step = steps.setdefault(unit.name, Step(group, unit, action))
            _check(step, group, packed.get(unit.name), action)
    missed = [name for name in packed if name not in steps]
    if missed:
        raise ActionError(f"module {missed[0]!r} is packed, but no group of the solution names it ({len(missed)} such)")
    return tuple(steps.values())


def _unit(model: nn.Module, group: str, name: str, by_module: Mapping[str, Unit]) -> Unit:
    found = by_module.get("" if name == ROOT else name)
    if found is not None:
        return found
    try:  # perhaps the second name of a module that is registered twice
        module = model.get_submodule(name)
    except AttributeError as error:
        raise ActionError(f"group {group!r}: the model has no module {name!r}") from error
    for known, unit in by_module.items():
        if model.get_submodule(known) is module:
            return unit
    raise ActionError(f"group {group!r}: module {name!r} has no weight that actions reach")


def _check(step: Step, group: str, packed: Step | None, action: Action) -> None:
    """Raise ActionError unless the model is as the step says."""
    if step.group != group:
        raise ActionError(f"weight of {', '.join(step.unit.modules)} belongs to groups {step.group!r} and {group!r}")
    if packed is None and not leaves_alone(step):
        raise ActionError(f"group {group!r}: module {step.unit.name!r} is not packed; apply_ it with packed=True")
    if packed is not None and packed.action != action:
        raise ActionError(
            f"group {group!r}: module {step.unit.name!r} is packed by {packed.action.to_json()}, not {action.to_json()}"
        )


def _payload(step: Step) -> Tensor:
    held = step.unit.weight.detach()
    if not isinstance(step.action, Keep):
        return held
    if held.dtype != torch.uint8:
        return kept(step, step.action)
    need = stored_as("", step.action, step.unit.layer)
    return held.view(need.dtype).reshape(need.shape)


def _plain(steps: tuple[Step, ...]) -> PlainSolution:
    return {step.group: {"action": step.action.to_json(), "modules": list(step.unit.modules)} for step in steps}
