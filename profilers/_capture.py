"""A forward pass whose layers, when the backward pass comes by, say what arrives at their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from allocator.errors import UsageError
from profilers._plan import Target
from profilers._project import Call

Arrival = Callable[[Target, Call, Tensor], None]
"""Called with the gradient of every call's output, layer by layer, as the backward pass reaches it.

It must hold none of the tensors that the forward pass made, the logits least of all: their graph holds it, and a ring
through that graph is never found by Python's collector, so that all of it would stay in memory.
"""


@dataclass(eq=False)
class Capture:
    """What one captured forward pass leaves behind.

    Attributes:
        leaves: tensors from which all captured outputs descend: differentiate with respect to these.
        calls: how often each target was called.
    """

    leaves: list[Tensor] = field(default_factory=list)
    calls: dict[Target, int] = field(default_factory=dict)

    def backward(self, logits: Tensor, cotangent: Tensor, *, again: bool = False) -> None:
        """Send a cotangent on the logits back; no ``.grad`` is written. ``again``: another will follow."""
        gradients(logits, self.leaves, cotangent, again=again)


def gradients(
    logits: Tensor, inputs: Sequence[Tensor], cotangent: Tensor, *, again: bool = False
) -> tuple[Tensor | None, ...]:
    """The cotangent sent back to the inputs, None for an input that the logits do not depend on.

    Raises:
        UsageError: the logits depend on none of them.
    """
    if not logits.requires_grad:
        raise UsageError(
            "no gradient reaches the layers from the logits: the forward pass cuts it (detach, no_grad, inference "
            "mode). Remove that, or use the profiler kl, which needs none"
        )
    return torch.autograd.grad(logits, inputs, cotangent, retain_graph=again, allow_unused=True)


@contextmanager
def captured(targets: Sequence[Target], arrival: Arrival) -> Iterator[Capture]:
    """Hook the targets' modules; run the forward pass inside, the backward passes after (projections run layers again).

    Layer outputs get a tensor hook, not the modules a backward hook: those break on activations that work in place,
    while a tensor hook set before such an activation still receives the gradient of the value it was set on.
    """
    owner: Mapping[Module, Target] = {module: target for target in targets for module in target.modules}
    capture = Capture()

    def after(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> object:
        target = owner[module]
        if not args and "input" in kwargs:  # torch's own name for it
            args, kwargs = (kwargs["input"],), {name: value for name, value in kwargs.items() if name != "input"}
        if not args or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
            raise UsageError(
                f"layer {target.name} is called with keywords other than input, or returns no tensor: call it as "
                "layer(x), or skip it with a rule of the space"
            )
        if not torch.is_grad_enabled() or output.is_inference():
            raise UsageError(
                f"layer {target.name} runs under torch.no_grad or inference mode, so no gradient can reach it: remove "
                "that from the forward pass, or use the profiler kl, which needs no gradients"
            )
        call = Call(module, args[0].detach().clone(), (args[1:], kwargs))
        capture.calls[target] = capture.calls.get(target, 0) + 1
        replaced = None
        if not output.requires_grad:
            leaf = output.detach().requires_grad_()
            capture.leaves.append(leaf)
            output = replaced = leaf.clone()  # not the leaf itself: what follows may work in place
        register: Callable[[Callable[[Tensor], None]], object] = output.register_hook
        register(lambda gradient: arrival(target, call, gradient.detach()))
        return replaced

    handles = [module.register_forward_hook(after, with_kwargs=True) for module in owner]
    try:
        yield capture
    finally:
        for handle in handles:
            handle.remove()
