"""The part of a factored layer that has the layer's own kernel, run by the layer's class, whatever its forward does."""

from __future__ import annotations

import threading
from typing import Literal, TypeAlias

from torch import Tensor, nn
from torch.nn import functional

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d

Through: TypeAlias = Literal["none", "outputs", "channels"]
"""What a forward of a class's own must let a kernel change, so that a part can run through it: the number of outputs,
or that of inputs too; "none": its kind has no such part."""


class _Lent(threading.local):
    """What forwards of this thread are running on, by the identity of their module."""

    def __init__(self) -> None:
        self.by_module: dict[int, tuple[Tensor, Tensor | None]] = {}


_LENT = _Lent()


def lent_to(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Kernel and bias that the module's own forward is running on in this thread; None while it is not."""
    return _LENT.by_module.get(id(module))


class OwnForward(nn.Module):
    """Mixin right before a layer's class that has a forward of its own: `weight` and `bias` can be lent to it."""

    @property
    def weight(self) -> Tensor:
        """What is lent."""
        lent = lent_to(self)
        assert lent is not None, "a mixin before this one has the weight while nothing is lent"
        return lent[0]

    @property
    def bias(self) -> Tensor | None:
        """What is lent, else the layer's own."""
        lent = lent_to(self)
        if lent is not None:
            return lent[1]
        own = super().__getattr__("bias")
        assert not isinstance(own, nn.Module), "it is None or a parameter, else `lets_through` refuses the layer"
        return own

    def run_on(self, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """The class's own forward with another weight and bias; only this thread sees them."""
        key, lent = id(self), _LENT.by_module
        before = lent.get(key)
        lent[key] = kernel, bias
        try:
            found: Tensor = super().forward(x)
            return found
        finally:
            if before is None:
                del lent[key]
            else:
                lent[key] = before


def convolve(module: nn.Module, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """What a Linear or a convolution gives with another weight and bias, in the way of its class.

    Args:
        module: whose options they are.
        x: as the module takes it.
        kernel: [outputs, inputs/groups, …]; numbers of outputs and inputs may be others than the layer's.
        bias: [outputs], or none.
    """
    if isinstance(module, OwnForward):
        return module.run_on(x, kernel, bias)
    if isinstance(module, nn.Linear):
        return functional.linear(x, kernel, bias)
    assert isinstance(module, Convolution), "`plan` lets no other kind of layer be factored so"
    # _conv_forward is torch's own step, so that padding modes and padding="same" are what they were.
    found: Tensor = module._conv_forward(x, kernel, bias)
    return found
