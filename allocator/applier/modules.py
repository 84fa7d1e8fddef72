"""Layers that keep their weight in its stored form and unpack it each time they run.

A layer is compressed by giving it a class derived from its own, in which `weight` is a property. So its place in the
model, its hooks, its bias and options stay, a subclass with a forward of its own keeps it, and code that reads
`layer.weight` from outside (torch's fast paths do) gets the right numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, SupportsIndex

import torch
from torch import Tensor, nn

from allocator.actions import Action, Layer
from allocator.applier import kernels
from allocator.applier.kinds import FactoredKind, kind_of
from allocator.applier.kinds.own_forward import OwnForward, lent_to
from allocator.applier.layers import KINDS
from allocator.applier.made_classes import reduced
from allocator.applier.packed import unpack, unpack_parts, unpack_rows, unpack_shift

PACKED = "packed"
"""Name of the parameter that holds a packed buffer."""

_TORCHS = {name: tuple(getattr(kind, name, None) for kind in KINDS) for name in ("forward", "_conv_forward")}
"""What torch's layer classes do when they run."""


class Compressed(nn.Module):
    """Mixin before a layer's class: knows the action, and the dtype to compute in.

    `dtype_like` is an empty tensor that follows .to(dtype), as the weight would.
    """

    label: ClassVar[str] = ""
    action: Action
    layer: Layer
    dtype_like: Tensor

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Pickled, the class is what it is made of, since no module has it under its name."""
        bases = type(self).__bases__
        return reduced(super().__reduce_ex__(2), (bases[0], bases[-1]), derived)

    def extra_repr(self) -> str:
        """That of the layer, and the action."""
        return f"{super().extra_repr()}, action={self.action.to_json()}"


class _Packed(Compressed):
    """`packed` is the only storage of the weight: a parameter, so that ties survive .to(device); never trained."""

    label: ClassVar[str] = "Packed"
    packed: nn.Parameter

    @property
    def weight(self) -> Tensor:
        return unpack(self.packed, self.action, self.layer, self.dtype_like.dtype)


class _PackedEmbedding(_Packed):
    """An embedding that unpacks the rows that are looked up, where they are fewer than all; the same numbers."""

    def forward(self, ids: Tensor) -> Tensor:
        rows = self._looked_up(ids)
        if rows is None:
            found: Tensor = super().forward(ids)
            return found
        return rows.view(*ids.shape, self.layer.columns)

    def _looked_up(self, ids: Tensor) -> Tensor | None:
        """[ids, columns]; None where the way over the whole weight is shorter, or gives torch's own error."""
        if ids.dtype not in (torch.int32, torch.int64) or not kernels.readable(ids):
            return None
        index = ids.reshape(-1).long()
        if not 0 < len(index) < self.layer.rows or index.min() < 0 or index.max() >= self.layer.rows:
            return None
        return unpack_rows(self.packed, self.action, self.layer, index, self.dtype_like.dtype)


class _Shifted(_Packed):
    """The same for an action that adds something to every output: the forward pass finds it in the bias."""

    label: ClassVar[str] = "PackedShifted"

    @property
    def bias(self) -> Tensor | None:
        own = self._parameters.get("bias")
        shift = unpack_shift(self.packed, self.action, self.layer, self.dtype_like.dtype)
        if shift is None:
            return own
        return shift if own is None else own + shift


class InParts(Compressed):
    """Runs a factored weight part by part; only code that asks for `weight` gets the product.

    A forward of the class's own runs one of the parts, and finds that in `weight` meanwhile (`OwnForward`).
    """

    def parts(self) -> tuple[Tensor, ...]:
        """In the order in which the action has them."""
        raise AssertionError("a subclass says where the parts come from")

    @property
    def weight(self) -> Tensor:
        """The product, in the parts' dtype; while the class's own forward runs, what it runs on."""
        lent = lent_to(self)
        if lent is not None:
            return lent[0]
        parts = self.parts()
        matrix = _factored(self.action).product([part.float() for part in parts], self.action, self.layer)
        return matrix.reshape(self.layer.weight_shape).to(parts[0].dtype)

    def forward(self, *args: Tensor, **named: Tensor) -> Tensor:
        """Part by part; the input may come under the name that the class gives it."""
        (x,) = (*args, *named.values())
        bias = getattr(self, "bias", None)
        return _factored(self.action).run(self, x, self.parts(), self.action, self.layer, bias)


class _PackedInParts(InParts):
    label: ClassVar[str] = "PackedInParts"
    packed: nn.Parameter

    def parts(self) -> tuple[Tensor, ...]:
        return unpack_parts(self.packed, self.action, self.layer, self.dtype_like.dtype)


class _PlainInParts(InParts):
    """Parts are parameters under the names that the action gives them."""

    label: ClassVar[str] = "InParts"
    part_names: tuple[str, ...]

    def parts(self) -> tuple[Tensor, ...]:
        return tuple(self.get_parameter(name) for name in self.part_names)


def _factored(action: Action) -> FactoredKind:
    kind = kind_of(action)
    assert isinstance(kind, FactoredKind), "only such kinds are installed in parts"
    return kind


_DERIVED: dict[tuple[type[Compressed], type[nn.Module]], type[nn.Module]] = {}


def derived(mixin: type[Compressed], base: type[nn.Module]) -> type[nn.Module]:
    """The class of a compressed `base`, made once."""
    if (mixin, base) not in _DERIVED:
        namespace = {"__module__": __name__, "__doc__": mixin.__doc__}
        lending = (OwnForward,) if issubclass(mixin, InParts) and not _runs_as_torchs(base) else ()
        _DERIVED[mixin, base] = type(f"{mixin.label}{base.__name__}", (mixin, *lending, base), namespace)
    return _DERIVED[mixin, base]


def is_compressed(module: nn.Module) -> bool:
    """Whether a module's weight is already in a stored or factored form."""
    return isinstance(module, Compressed)


def is_packed(module: nn.Module) -> bool:
    """Whether a module's weight is a packed buffer, its parameter `packed`."""
    return isinstance(module, _Packed | _PackedInParts)


def runs_in_parts(module: nn.Module) -> bool:
    """Whether several layers can stand in for it: its forward must be torch's own, not a subclass's or a patch.

    Of those with a forward of their own, `lets_through` (trial.py) finds the ones for which some actions can.
    """
    return _runs_as_torchs(type(module)) and not any(name in vars(module) for name in _TORCHS)


def _runs_as_torchs(kind: type[nn.Module]) -> bool:
    return all(getattr(kind, name, None) in known for name, known in _TORCHS.items())


def in_parts(modules: Sequence[nn.Module], action: Action) -> bool:
    """Whether layers that are not compressed yet will run part by part under an action."""
    kind = kind_of(action)
    if not isinstance(kind, FactoredKind):
        return False
    return not kind.whole_too or all(runs_in_parts(one) and not isinstance(one, nn.Embedding) for one in modules)


def install_packed(modules: Sequence[nn.Module], buffer: Tensor, action: Action, layer: Layer) -> None:
    """Give tied modules one packed buffer in place of their weight.

    Args:
        modules: all that use the weight; each still has it as a parameter.
        buffer: uint8 [stored_bytes], as `pack` makes it.
        action: of the buffer.
        layer: of the weight.
    """
    packed = nn.Parameter(buffer, requires_grad=False)
    mixin: type[Compressed] = _Packed
    if in_parts(modules, action):
        mixin = _PackedInParts
    elif unpack_shift(buffer, action, layer, torch.float32) is not None:
        mixin = _Shifted
    for module in modules:
        looks_up = mixin is _Packed and isinstance(module, nn.Embedding) and runs_in_parts(module)
        _change(module, _PackedEmbedding if looks_up else mixin, action, layer)
        module.register_parameter(PACKED, packed)


def install_parts(modules: Sequence[nn.Module], parts: Mapping[str, Tensor], action: Action, layer: Layer) -> None:
    """Give tied modules plain parts, by name, in place of their weight; trainable when the weight was."""
    trainable = any(module.get_parameter("weight").requires_grad for module in modules)
    parameters = {name: nn.Parameter(part, requires_grad=trainable) for name, part in parts.items()}
    for module in modules:
        _change(module, _PlainInParts, action, layer)
        module.part_names = tuple(parameters)  # type: ignore[assignment]  # nn.Module declares Tensor | Module
        for name, parameter in parameters.items():
            module.register_parameter(name, parameter)


def add_shift(modules: Sequence[nn.Module], shift: Tensor) -> None:
    """Add numbers [rows] to the outputs of modules that are not compressed: to their bias, or as one."""
    made: dict[
        int, nn.Parameter
    ] = {}  # modules that shared a bias share the new one; whoever else has the old keeps it
    for module in modules:
        bias: Any = getattr(module, "bias", None)
        if id(bias) not in made:
            like = module.get_parameter("weight") if bias is None else bias
            moved = shift.to(like) if bias is None else bias.detach() + shift.to(like)
            made[id(bias)] = nn.Parameter(moved, requires_grad=like.requires_grad)
        module.bias = made[id(bias)]


def _change(module: nn.Module, mixin: type[Compressed], action: Action, layer: Layer) -> None:
    weight = module.get_parameter("weight")
    like = torch.empty(0, dtype=weight.dtype, device=weight.device)
    del module.weight
    module.__class__ = derived(mixin, type(module))
    module.register_buffer("dtype_like", like, persistent=False)
    module.action = action  # type: ignore[assignment]  # nn.Module declares attributes as Tensor | Module
    module.layer = layer  # type: ignore[assignment]  # likewise
