"""A weight replaced for a moment, and put back bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from torch.nn import Module

from profilers._patches import CONVOLUTIONS


@contextmanager
def switched(
    weight: Tensor, other: Tensor, shift: Tensor | None = None, modules: Sequence[Module] = ()
) -> Iterator[None]:
    """Write ``other`` into the weight's own memory, so that all modules that share it see it; restore on leaving.

    ``shift`` [rows] is added meanwhile to what each of the modules, those that use the weight, returns.
    """
    saved = weight.detach().clone()
    with ExitStack() as stack:
        if shift is not None:
            for module in modules:
                stack.callback(module.register_forward_hook(_adding(shift)).remove)
        try:
            with torch.no_grad():
                weight.copy_(other)
            yield
        finally:
            with torch.no_grad():
                weight.copy_(saved)


def by_feature(module: Module, shift: Tensor, output: Tensor) -> Tensor:
    """A shift [rows] in the shape in which it adds to an output of a linear layer or a convolution."""
    behind = len(module.kernel_size) if isinstance(module, CONVOLUTIONS) else 0
    return shift.to(output).view(-1, *[1] * behind)


def _adding(shift: Tensor) -> Callable[[Module, object, Tensor], Tensor]:
    return lambda module, _, output: output + by_feature(module, shift, output)
