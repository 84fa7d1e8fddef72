"""Do to a model in memory what an allocation says."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from allocator.actions import Keep, statistics_of
from allocator.applier.approximate import Approximator
from allocator.applier.kinds import kind_of
from allocator.applier.modules import add_shift, in_parts, install_packed, install_parts
from allocator.applier.opening import Opening
from allocator.applier.plan import HasActions, PlainSolution, Step, modules_of, plan
from allocator.applier.statistics import Statistics, require
from allocator.applier.weight import to_matrix
from allocator.errors import ActionError
from allocator.progress import Progress, silent, told

_Model = TypeVar("_Model", bound=nn.Module)


def apply_(
    model: _Model,
    solution: HasActions | PlainSolution,
    packed: bool = False,
    statistics: Statistics | None = None,
    *,
    progress: Progress = silent,
) -> _Model:
    """Compress the layers of a model in place, as a solution says, and return it.

    Either way the outputs are the same, bit for bit: `packed` keeps each weight as its stored bytes and unpacks it
    at every forward; otherwise weights are overwritten by what they become (tied ones stay tied, a factored one such as
    `low_rank` becomes several plain layers). `keep float32` leaves a float32 layer as it is. Layers outside the
    solution are untouched.
    Attention of which it changes a part stays open: its `q_proj`, `k_proj`, `v_proj` and `out_proj` are then layers.

    Args:
        model: any module; its own classes, hooks and mode are kept.
        solution: a Solution, anything with `.actions` and `.modules`, or {group: {"action": …, "modules": […]}}.
        packed: store the weights in their small form.
        statistics: of the layers' inputs and outputs, for actions that need them (`allocator.layer_statistics`).
        progress: told after every group.

    Raises:
        ActionError: see `plan`; also a weight that is not finite, statistics that are missing. Nothing has been changed
            then.
        UnavailableError: an action is worked out by a library that is not installed. Nothing has been changed either.
    """
    with Opening(model) as opening:
        steps = plan(model, solution)
        require_finite(steps)
        require_ready(steps, statistics)
        opening.narrow(modules_of(step for step in steps if not leaves_alone(step)))
        opening.stay()
        for step in told(progress, "compressing", steps):
            _do(model, step, packed, statistics)
    return model


def require_finite(steps: tuple[Step, ...]) -> None:
    """Raise ActionError, naming group and module, when a weight holds NaN or infinity."""
    for step in steps:
        try:
            to_matrix(step.unit.weight, step.unit.layer)
        except ActionError as error:
            raise ActionError(f"group {step.group!r}: module {step.unit.name!r}: {error}") from error


def require_ready(steps: tuple[Step, ...], statistics: Statistics | None) -> None:
    """Raise ActionError, naming the group, when an action needs statistics of a layer that are not there.

    UnavailableError when it is worked out by a library that is not installed.
    """
    for step in steps:
        kind_of(step.action).ready()
        for name in sorted(statistics_of(step.action)):
            try:
                require((statistics or {}).get(step.unit.name), name, step.action)
            except ActionError as error:
                raise ActionError(f"group {step.group!r}: {error}") from error


def leaves_alone(step: Step) -> bool:
    """Whether the weight is what the step makes of it already: `keep float32` of anything but float64."""
    return step.action == Keep(dtype="float32") and step.unit.weight.dtype != torch.float64


@torch.no_grad()
def _do(model: nn.Module, step: Step, packed: bool, statistics: Statistics | None) -> None:
    weight, layer, action = step.unit.weight, step.unit.layer, step.action
    if leaves_alone(step):
        return
    modules = [model.get_submodule(name) for name in step.unit.modules]
    made = Approximator(weight, layer, (statistics or {}).get(step.unit.name))
    if packed:
        install_packed(modules, made.pack(action), action, layer)
        return
    if in_parts(modules, action):
        parts = {name: part.to(weight.dtype) for name, part in made.parts(action).items()}
        install_parts(modules, parts, action, layer)
        return
    weight.copy_(made.approximate(action))
    shift = made.shift(action)
    if shift is not None:
        add_shift(modules, shift)
