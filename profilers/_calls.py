"""What a layer is given in a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import Module

from allocator.tasks.protocol import Batch, Task


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One call: the module's place among those watched, and its arguments, tensors copied."""

    module: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def calls_of(task: Task, model: Module, batch: Batch, modules: Sequence[Module]) -> list[LayerCall]:
    """Every call of these modules while the batch runs, in order; copies, as later layers may write into inputs."""
    found: list[LayerCall] = []
    handles = []
    for place, module in enumerate(modules):

        def before(_: Module, args: tuple[Any, ...], kwargs: dict[str, Any], place: int = place) -> None:
            copied = {key: _copy(value) for key, value in kwargs.items()}
            found.append(LayerCall(place, tuple(map(_copy, args)), copied))

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
    try:
        task.logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
