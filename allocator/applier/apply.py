"""Do to a model in memory what an allocation says."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from allocator.actions import Keep, LowRank
from allocator.applier.approximate import Approximator, to_matrix
from allocator.applier.modules import install_factors, install_packed
from allocator.applier.opening import Opening
from allocator.applier.packed import pack
from allocator.applier.plan import HasActions, PlainSolution, Step, modules_of, plan
from allocator.errors import ActionError

_Model = TypeVar("_Model", bound=nn.Module)


def apply_(model: _Model, solution: HasActions | PlainSolution, packed: bool = False) -> _Model:
    """Compress the layers of a model in place, as a solution says, and return it.

    Either way the outputs are the same, bit for bit: `packed` keeps each weight as its stored bytes and unpacks it
    at every forward; otherwise weights are overwritten by what they become (tied ones stay tied, `low_rank` becomes
    two plain layers). `keep float32` leaves a float32 layer as it is. Layers outside the solution are untouched.
    Attention of which it changes a part stays open: its `q_proj`, `k_proj`, `v_proj` and `out_proj` are then layers.

    Args:
        model: any module; its own classes, hooks and mode are kept.
        solution: a Solution, anything with `.actions` and `.modules`, or {group: {"action": …, "modules": […]}}.
        packed: store the weights in their small form.

    Raises:
        ActionError: see `plan`; also a weight that is not finite. Nothing has been changed then.
    """
    with Opening(model) as opening:
        steps = plan(model, solution)
        require_finite(steps)
        opening.narrow(modules_of(step for step in steps if not leaves_alone(step)))
        opening.stay()
        for step in steps:
            _do(model, step, packed)
    return model


def require_finite(steps: tuple[Step, ...]) -> None:
    """Raise ActionError, naming group and module, when a weight holds NaN or infinity."""
    for step in steps:
        try:
            to_matrix(step.unit.weight, step.unit.layer)
        except ActionError as error:
            raise ActionError(f"group {step.group!r}: module {step.unit.name!r}: {error}") from error


def leaves_alone(step: Step) -> bool:
    """Whether the weight is what the step makes of it already: `keep float32` of anything but float64."""
    return step.action == Keep(dtype="float32") and step.unit.weight.dtype != torch.float64


@torch.no_grad()
def _do(model: nn.Module, step: Step, packed: bool) -> None:
    weight, layer, action = step.unit.weight, step.unit.layer, step.action
    if leaves_alone(step):
        return
    modules = [model.get_submodule(name) for name in step.unit.modules]
    if packed:
        install_packed(modules, pack(weight, action, layer), action, layer)
    elif isinstance(action, LowRank):
        left, right = Approximator(weight, layer).factors(action)
        install_factors(modules, left.to(weight.dtype), right.to(weight.dtype), action, layer)
    else:
        weight.copy_(Approximator(weight, layer).approximate(action))
