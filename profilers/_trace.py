"""One hooked forward pass: which layers run, when, and how many outputs they compute of what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from allocator.tasks.protocol import Batch, Task


@dataclass
class Use:
    """What one module did in one forward pass.

    Attributes:
        starts: tick at which each call began; ticks count starts and ends of all watched modules.
        ends: tick at which each call ended.
        outputs: elements of all its output tensors together.
        inputs: elements of all its first arguments together.
    """

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    outputs: int = 0
    inputs: int = 0


def trace(task: Task, model: Module, batch: Batch, modules: Sequence[Module]) -> Mapping[Module, Use]:
    """Run the batch once, without gradients, and watch the modules; the model is expected to be in eval mode."""
    uses = {module: Use() for module in modules}
    tick = 0

    def before(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal tick
        uses[module].starts.append(tick)
        tick += 1
        given = next(iter((*args, *kwargs.values())), None)
        if isinstance(given, Tensor):
            uses[module].inputs += given.numel()

    def after(module: Module, args: object, output: object) -> None:
        nonlocal tick
        uses[module].ends.append(tick)
        tick += 1
        if isinstance(output, Tensor):
            uses[module].outputs += output.numel()

    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in uses]
    handles += [module.register_forward_hook(after) for module in uses]
    try:
        with torch.no_grad():
            task.logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return uses
