"""Layers that keep their weight in its stored form and unpack it each time they run.

A layer is compressed by giving it a class derived from its own, in which `weight` is a property. So its place in the
model, its hooks, its bias and options stay, a subclass with a forward of its own keeps it, and code that reads
`layer.weight` from outside (torch's fast paths do) gets the right numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from allocator.actions import Action, Layer, LowRank
from allocator.applier.layers import KINDS
from allocator.applier.packed import unpack, unpack_factors

_OWN_FORWARD = tuple(kind.forward for kind in KINDS)


class _Compressed(nn.Module):
    """Mixin before a layer's class: knows the action, and the dtype to compute in.

    `dtype_like` is an empty tensor that follows .to(dtype), as the weight would.
    """

    label: ClassVar[str] = ""
    action: Action
    layer: Layer
    dtype_like: Tensor

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, action={self.action.to_json()}"


class _Packed(_Compressed):
    """`packed` is the only storage of the weight: a parameter, so that ties survive .to(device); never trained."""

    label: ClassVar[str] = "Packed"
    packed: nn.Parameter

    @property
    def weight(self) -> Tensor:
        return unpack(self.packed, self.action, self.layer, self.dtype_like.dtype)


class _TwoLayers(_Compressed):
    """Runs a low-rank weight as right, then left; only code that asks for `weight` gets the product."""

    def factors(self) -> tuple[Tensor, Tensor]:
        raise AssertionError("a subclass says where the factors come from")

    @property
    def weight(self) -> Tensor:
        left, right = self.factors()
        return (left.float() @ right.float()).reshape(self.layer.weight_shape).to(left.dtype)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.factors()
        bias = getattr(self, "bias", None)
        if isinstance(self, nn.Linear):
            return functional.linear(functional.linear(x, right), left, bias)
        if isinstance(self, nn.Embedding):
            return functional.linear(functional.embedding(x, left, self.padding_idx), right.t())
        # _conv_forward is torch's own step, so that padding modes and padding="same" are what they were.
        kernel = right.view(-1, *self.layer.weight_shape[1:])
        assert isinstance(self, (nn.Conv1d, nn.Conv2d, nn.Conv3d)), "`plan` lets no other kind of layer be factored"
        pointwise = left.reshape(*left.shape, *[1] * (kernel.dim() - 2))
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[kernel.dim() - 3]
        return convolve(self._conv_forward(x, kernel, None), pointwise, bias)


class _PackedTwoLayers(_TwoLayers):
    label: ClassVar[str] = "PackedLowRank"
    packed: nn.Parameter

    def factors(self) -> tuple[Tensor, Tensor]:
        assert isinstance(self.action, LowRank)
        return unpack_factors(self.packed, self.action, self.layer, self.dtype_like.dtype)


class _PlainTwoLayers(_TwoLayers):
    label: ClassVar[str] = "LowRank"
    left: nn.Parameter
    right: nn.Parameter

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.left, self.right


_DERIVED: dict[tuple[type[_Compressed], type[nn.Module]], type[nn.Module]] = {}


def _derived(mixin: type[_Compressed], base: type[nn.Module]) -> type[nn.Module]:
    """The class of a compressed `base`, made once."""
    if (mixin, base) not in _DERIVED:
        namespace = {"__module__": __name__, "__doc__": mixin.__doc__}
        _DERIVED[mixin, base] = type(f"{mixin.label}{base.__name__}", (mixin, base), namespace)
    return _DERIVED[mixin, base]


def is_compressed(module: nn.Module) -> bool:
    """Whether a module's weight is already in a stored or factored form."""
    return isinstance(module, _Compressed)


def runs_as_two(module: nn.Module) -> bool:
    """Whether two layers can stand in for this one: its forward must be torch's own, not a subclass's or a patch."""
    return type(module).forward in _OWN_FORWARD and "forward" not in vars(module)


def install_packed(modules: Sequence[nn.Module], buffer: Tensor, action: Action, layer: Layer) -> None:
    """Give tied modules one packed buffer in place of their weight.

    Args:
        modules: all that use the weight; each still has it as a parameter.
        buffer: uint8 [stored_bytes], as `pack` makes it.
        action: of the buffer.
        layer: of the weight.
    """
    packed = nn.Parameter(buffer, requires_grad=False)
    for module in modules:
        _change(module, _PackedTwoLayers if isinstance(action, LowRank) else _Packed, action, layer)
        module.register_parameter("packed", packed)


def install_factors(modules: Sequence[nn.Module], left: Tensor, right: Tensor, action: LowRank, layer: Layer) -> None:
    """Give tied modules the two plain factors in place of their weight; trainable when the weight was."""
    trainable = any(module.get_parameter("weight").requires_grad for module in modules)
    parameters = [nn.Parameter(factor, requires_grad=trainable) for factor in (left, right)]
    for module in modules:
        _change(module, _PlainTwoLayers, action, layer)
        for name, parameter in zip(("left", "right"), parameters, strict=True):
            module.register_parameter(name, parameter)


def _change(module: nn.Module, mixin: type[_Compressed], action: Action, layer: Layer) -> None:
    weight = module.get_parameter("weight")
    like = torch.empty(0, dtype=weight.dtype, device=weight.device)
    del module.weight
    module.__class__ = _derived(mixin, type(module))
    module.register_buffer("dtype_like", like, persistent=False)
    module.action = action  # type: ignore[assignment]  # nn.Module declares attributes as Tensor | Module
    module.layer = layer  # type: ignore[assignment]  # likewise
