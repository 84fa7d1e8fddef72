"""Packed layers that run for a while with a gain for each row of their weight, through which gradients go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from allocator.actions import Action, Layer
from allocator.applier.kinds import FactoredKind, kind_of
from allocator.applier.modules import Compressed, InParts, derived
from allocator.applier.packed import unpack, unpack_parts, unpack_shift
from allocator.applier.packed_units import Packed


class RowGains:
    """Gains exp(logarithm) for the rows of one packed weight, which is held unpacked meanwhile.

    Attributes:
        log: leaf tensor [rows], float32 at least, zeros at first; None where the action's stored form takes no gain
            (`allocator.applier.packed.rescale`), so that the weight can only run as it is.
    """

    def __init__(self, packed: Packed, scalable: bool) -> None:
        self.packed = packed
        buffer, action, layer, dtype = packed.buffer.detach(), packed.action, packed.layer, packed.dtype
        wide = torch.promote_types(dtype, torch.float32)
        zeros = torch.zeros(layer.rows, dtype=wide, device=buffer.device, requires_grad=True)
        self.log = zeros if scalable else None
        kind = kind_of(action)
        runs = isinstance(packed.modules[0], InParts)
        self._factored = kind if runs and isinstance(kind, FactoredKind) else None
        self._row_part = None if self._factored is None else self._factored.row_part(action)
        unpacked = _whole if self._factored is None else unpack_parts
        self._held = unpacked(buffer, action, layer, dtype)
        self.shift = unpack_shift(buffer, action, layer, dtype)

    @property
    def in_parts(self) -> bool:
        """Whether the weight runs part by part."""
        return self._factored is not None

    def held(self) -> tuple[Tensor, ...]:
        """The weight, or its parts, with the gains."""
        place = 0 if self._factored is None else self._row_part
        found = list(self._held)
        if place is not None:
            found[place] = self._times(found[place])
        return tuple(found)

    def _times(self, weight: Tensor) -> Tensor:
        if self.log is None:
            return weight
        return weight * self.log.exp().to(weight.dtype).view(-1, *[1] * (weight.dim() - 1))


def _whole(buffer: Tensor, action: Action, layer: Layer, dtype: torch.dtype) -> tuple[Tensor, ...]:
    return (unpack(buffer, action, layer, dtype),)


class _Scaled(Compressed):
    """A layer whose weight is the one held, with its gains."""

    label: ClassVar[str] = "Scaled"

    @property
    def weight(self) -> Tensor:
        return _gains(self).held()[0]


class _ScaledShifted(_Scaled):
    """The same with something added to every output."""

    label: ClassVar[str] = "ScaledShifted"

    @property
    def bias(self) -> Tensor:
        own, shift = self._parameters.get("bias"), _gains(self).shift
        assert shift is not None, "`running` takes this class only for such actions"
        return shift if own is None else own + shift


class _ScaledInParts(InParts):
    """The same part by part."""

    label: ClassVar[str] = "ScaledInParts"

    def parts(self) -> tuple[Tensor, ...]:
        return _gains(self).held()


_KEY = "row_gains"


def _gains(module: nn.Module) -> RowGains:
    found = vars(module)[_KEY]
    assert isinstance(found, RowGains)
    return found


@contextmanager
def running(gains: Sequence[RowGains]) -> Iterator[None]:
    """Inside, the packed layers run on what is held, with the gains; afterwards they are what they were."""
    changed: list[tuple[nn.Module, type[nn.Module]]] = []
    try:
        for one in gains:
            mixin: type[Compressed] = _Scaled if one.shift is None else _ScaledShifted
            for module in one.packed.modules:
                kind = type(module)
                changed.append((module, kind))
                vars(module)[_KEY] = one
                module.__class__ = derived(_ScaledInParts if one.in_parts else mixin, kind.__bases__[-1])
        yield
    finally:
        for module, kind in changed:
            module.__class__ = kind
            vars(module).pop(_KEY, None)
