"""A forward pass without gradients that hands over the inputs and outputs of every layer as it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Module

from allocator.errors import UsageError
from allocator.tasks.batches import count, take
from allocator.tasks.protocol import Batch
from profilers._calibration import batches
from profilers._plan import Plan, Target
from profilers._project import Call

Seen = Callable[[Target, Call, Tensor], None]
"""Called with each call of a layer and its output; both belong to the network: read them at once, write nothing."""

Rows = Literal["runs", "whole", "mixed"]
"""Rows fall into equal runs, one per sample; a whole batch is one sample; or samples have to be run one by one."""

SAME = 1e-3
"""Of an output's norm: what running two samples together may change of each, by rounding."""


def watched(plan: Plan, targets: Sequence[Target], batch: Batch, seen: Seen) -> Tensor:
    """Logits of the batch; ``seen`` may run the layers again, which is not reported.

    Raises:
        UsageError: a layer is called with keywords only, or returns no tensor.
    """
    owner: Mapping[Module, Target] = {module: target for target in targets for module in target.modules}
    busy = False

    def after(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        nonlocal busy
        if busy:
            return
        target = owner[module]
        if not args or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
            raise UsageError(
                f"layer {target.name} is called with keywords only, or returns no tensor: call it as layer(x), or "
                "skip it with a rule of the space"
            )
        busy = True
        try:
            seen(target, Call(module, args[0], (args[1:], kwargs)), output)
        finally:
            busy = False

    handles = [module.register_forward_hook(after, with_kwargs=True) for module in owner]
    try:
        with torch.no_grad():
            return plan.workload.task.logits(plan.workload.model, batch)
    finally:
        for handle in handles:
            handle.remove()


def rows_by_sample(plan: Plan) -> Rows:
    """How rows of layers and samples belong together; tried on two samples, forward only.

    Two samples run together have to give every layer the rows that each gives alone, one after the other. A layer
    that works on (time, sample), or a position table shared by the batch, does not.
    """
    several = next((batch for batch in batches(plan) if count(batch) > 1), None)
    if several is None:
        return "runs"
    together, samples = _outputs(plan, take(several, 0, 2))
    if samples == 1:
        return "whole"
    first, second = (_outputs(plan, take(several, i, i + 1))[0] for i in (0, 1))
    stacked = all(
        len(together[target]) == len(first[target]) == len(second[target])
        and all(map(_stacked, together[target], first[target], second[target]))
        for target in plan.targets
    )
    return "runs" if stacked else "mixed"


def _outputs(plan: Plan, batch: Batch) -> tuple[dict[Target, list[Tensor]], int]:
    found: dict[Target, list[Tensor]] = {target: [] for target in plan.targets}
    logits = watched(plan, plan.targets, batch, lambda target, _, output: found[target].append(output.clone()))
    return found, len(logits)


def _stacked(both: Tensor, first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape or both.shape != (2 * len(first), *first.shape[1:]):
        return False
    return all(
        bool((part - alone).norm() <= SAME * alone.norm())
        for part, alone in ((both[: len(first)], first), (both[len(first) :], second))
    )
