"""The packed weights of a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from allocator.actions import Action, Layer
from allocator.applier.layers import ROOT
from allocator.applier.modules import PACKED, is_packed


@dataclass(frozen=True, eq=False)
class Packed:
    """One packed weight and all modules that use it.

    Attributes:
        name: of the first module, as in named_modules() (`ROOT` when that is the model itself).
        names: of all modules, in the model's order.
        modules: themselves.
        buffer: the parameter that they share, uint8 [stored_bytes].
        action: that made the buffer.
        layer: of the weight.
        dtype: that the layers compute in.
    """

    name: str
    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]
    buffer: nn.Parameter
    action: Action
    layer: Layer
    dtype: torch.dtype


def packed_units(model: nn.Module) -> tuple[Packed, ...]:
    """Every packed weight once, in the order of named_modules()."""
    uses: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in model.named_modules():
        if is_packed(module):
            uses.setdefault(id(module.get_parameter(PACKED)), []).append((name, module))
    return tuple(_unit(found) for found in uses.values())


def _unit(uses: list[tuple[str, nn.Module]]) -> Packed:
    names, modules = zip(*uses, strict=True)
    first = modules[0]
    action, layer, like = first.action, first.layer, first.dtype_like
    return Packed(names[0] or ROOT, names, modules, first.get_parameter(PACKED), action, layer, like.dtype)
