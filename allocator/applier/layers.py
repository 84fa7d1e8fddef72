"""The compressible layers of a model, one unit per stored weight, and what is left out and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from allocator.actions import Layer
from allocator.actions.layer import Kind
from allocator.applier.opening import Opening

KINDS: Mapping[type[nn.Module], Kind] = {
    nn.Linear: "linear",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Conv3d: "conv3d",
    nn.Embedding: "embedding",
}
ROOT = "(root)"
"""Unit name when the model itself is the layer, whose module name is the empty string."""

_REASONS: Mapping[type[nn.Module], str] = {
    nn.MultiheadAttention: "a bare parameter of attention: a learnt key or value, or one that cannot be opened because "
    "its forward or its parameters are not torch's",
    nn.modules.conv._ConvTransposeNd: "transposed convolutions are not covered: their rows are inputs, not outputs, so "
    "that a scale or a rank per row would mean something else",
    nn.RNNBase: "recurrent layers are not covered",
    nn.RNNCellBase: "recurrent layers are not covered",
    nn.EmbeddingBag: "embedding bags are not covered",
    nn.Bilinear: "bilinear layers are not covered",
    ParametrizationList: "a parametrisation computes the layer's weight from it; remove the parametrisation first",
}


@dataclass(frozen=True)
class Unit:
    """One stored weight and every module that uses it; tied weights are one unit.

    Attributes:
        name: of the first module, as in named_modules() (`ROOT` when that is the model itself).
        modules: names of all modules whose `weight` it is, in the model's order.
        layer: what it computes, with positions 1 (the model does not say; see `Layer.at`). When an embedding and
            a Linear share the weight, the Linear's: it is the one that multiplies.
        weight: the parameter itself, not a copy; of attention that is closed, a part of it in the same memory.
    """

    name: str
    modules: tuple[str, ...]
    layer: Layer
    weight: nn.Parameter


@dataclass(frozen=True)
class Uncovered:
    """A parameter of two or more dimensions that no action reaches: its name, shape, and the reason."""

    name: str
    shape: tuple[int, ...]
    reason: str


def units(model: nn.Module) -> tuple[Unit, ...]:
    """The compressible weights of a model, in the order of named_modules().

    Covered: `weight` of nn.Linear, nn.Conv1d to nn.Conv3d (grouped ones too), nn.Embedding and their subclasses, and
    the four matrices of nn.MultiheadAttention under the names that they have once it is opened (`opening`).
    `uncovered` lists the rest.
    """
    with Opening(model):
        return _survey(model)[0]


def uncovered(model: nn.Module) -> tuple[Uncovered, ...]:
    """Every parameter of two or more dimensions that is in no unit, with the reason, in the model's order."""
    with Opening(model):
        return _survey(model)[1]


def kind_of(module: nn.Module) -> Kind | None:
    """What a module computes, or None when it is no layer that actions reach."""
    return next((kind for base, kind in KINDS.items() if isinstance(module, base)), None)


@dataclass
class _Use:
    module_name: str
    module: nn.Module
    parameter: str

    @property
    def full_name(self) -> str:
        return f"{self.module_name}.{self.parameter}" if self.module_name else self.parameter


def _survey(model: nn.Module) -> tuple[tuple[Unit, ...], tuple[Uncovered, ...]]:
    found: list[Unit] = []
    rest: list[Uncovered] = []
    for uses in _by_storage(model).values():
        weight = getattr(uses[0].module, uses[0].parameter)
        reason = _why_not(uses)
        if reason is None:
            kinds = [_layer(use) for use in uses]
            layer = next((layer for layer in kinds if layer.kind != "embedding"), kinds[0])
            names = tuple(use.module_name for use in uses)
            found.append(Unit(names[0] or ROOT, names, layer, weight))
        elif is_lazy(weight) or weight.dim() > 1:
            shape = () if is_lazy(weight) else tuple(weight.shape)
            rest.append(Uncovered(uses[0].full_name, shape, reason))
    return tuple(found), tuple(rest)


def _by_storage(model: nn.Module) -> dict[object, list[_Use]]:
    """Every parameter of every module, gathered by the memory that it lives in."""
    uses: dict[object, list[_Use]] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            uses.setdefault(memory(parameter), []).append(_Use(module_name, module, name))
    return uses


def memory(tensor: Tensor) -> object:
    """Identity of a tensor's memory: equal for tied tensors; without memory (meta, lazy, empty) the tensor's own.

    Where it starts, not its storage: weights that were mapped from one file share a storage and are not tied.
    """
    if is_lazy(tensor) or tensor.is_meta or tensor.numel() == 0:
        return id(tensor)
    return tensor.device, tensor.data_ptr()


def _why_not(uses: list[_Use]) -> str | None:
    """Why the parameter that these uses share is in no unit; None when it is in one."""
    for use in uses:
        own = _why_not_here(use)
        if own is not None:
            shared = "" if len(uses) == 1 else f" (it is shared by {', '.join(u.full_name for u in uses)})"
            return f"{use.full_name}: {own}{shared}" if shared else own
    weights = [getattr(use.module, use.parameter) for use in uses]
    if len({(w.data_ptr(), tuple(w.shape), w.stride(), w.dtype) for w in weights}) > 1:
        return f"{', '.join(u.full_name for u in uses)} overlap in memory without being the same weight"
    if len({getattr(use.module, "groups", 1) for use in uses}) > 1:
        return f"{', '.join(u.full_name for u in uses)} share it with different numbers of groups"
    return None


def _why_not_here(use: _Use) -> str | None:
    parameter = getattr(use.module, use.parameter)
    if is_lazy(parameter):
        return "a lazy module whose shape is not known yet; run one batch through the model first"
    if kind_of(use.module) is None or use.parameter != "weight":
        by_type = next((reason for base, reason in _REASONS.items() if isinstance(use.module, base)), None)
        if by_type is None and kind_of(use.module) is not None:
            by_type = f"{type(use.module).__name__} computes its weight from it; remove the parametrisation first"
        return by_type or f"a bare parameter of {type(use.module).__name__}, not a layer that actions reach"
    if not parameter.is_floating_point():
        return f"its dtype {parameter.dtype} is not floating point"
    if parameter.numel() == 0:
        return "it is empty"
    if getattr(use.module, "max_norm", None) is not None:
        return "an embedding with max_norm rewrites its rows as it runs; set max_norm=None first"
    return None


def _layer(use: _Use) -> Layer:
    kind = kind_of(use.module)
    weight: torch.Tensor = getattr(use.module, use.parameter)
    assert kind is not None, "_why_not keeps other modules out"
    groups = getattr(use.module, "groups", 1)
    return Layer(kind, tuple(weight.shape), groups=groups)
