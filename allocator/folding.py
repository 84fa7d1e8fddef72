"""Batch norms folded into the layers before them: the same network with fewer numbers beside its weights."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from allocator.errors import UsageError
from allocator.tasks.batches import take
from allocator.tasks.guard import untouched
from allocator.workload import Workload

SAME = 1e-4
"""What folding may change of the logits by rounding, relative to their largest."""

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def folded(workload: Workload) -> Workload:
    """The workload with a copy of its network in which every batch norm that can be is folded away.

    A norm that follows a layer, y = γ (W x + b − μ)/σ + β with σ² = var + ε, is W' = (γ/σ) W, b' = β + (γ/σ)(b − μ) of
    that layer, worked out in float64; an nn.Identity takes its place. Folded are those that one pass over one
    calibration sample shows to read nothing but the output of one layer, called once, which nothing else reads. A norm
    of C channels stores 4·C numbers and a counter, what is left of it C.

    Raises:
        UsageError: the folded network gives other logits than the one it is made of, beyond rounding.
    """
    first = next(iter(workload.calibration), None)
    if first is None:
        raise UsageError(f"the calibration data of {workload.name} is empty: give at least one batch")
    sample = take(first, 0, 1)
    model = copy.deepcopy(workload.model)
    with untouched(model), torch.no_grad():
        before = workload.task.logits(model, sample)
        pairs = _pairs(workload, model, sample)
    for layer, norm in pairs:
        _fold(model, layer, norm)
    with untouched(model), torch.no_grad():
        gap = float((workload.task.logits(model, sample) - before).abs().max())
    if not gap <= SAME * max(1.0, float(before.abs().max())):
        raise UsageError(
            f"the network of {workload.name} gives other logits, by {gap:.3g}, when its batch norms are folded: it "
            "must be using them in a way that one pass does not show. Take it as it is"
        )
    return Workload(model, workload.calibration, workload.evaluation, workload.task, workload.name)


def _pairs(workload: Workload, model: nn.Module, sample: Any) -> list[tuple[str, str]]:
    """(layer, norm) by name, in the order in which they run."""
    names = {module: name for name, module in model.named_modules()}
    watch = _Reads()
    made: dict[int, nn.Module] = {}
    calls: Counter[nn.Module] = Counter()
    found: list[tuple[nn.Module, nn.Module, Tensor]] = []

    def after(layer: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if isinstance(output, Tensor):
            calls[layer] += 1
            made[id(output)] = layer
            watch.begin(output)

    def before(norm: nn.Module, args: tuple[Any, ...]) -> None:
        calls[norm] += 1
        given = args[0] if args and isinstance(args[0], Tensor) else None
        if given is not None and id(given) in made:
            found.append((made[id(given)], norm, given))

    handles = [m.register_forward_hook(after) for m in names if isinstance(m, _LAYERS)]
    handles += [m.register_forward_pre_hook(before) for m in names if _foldable(m)]
    try:
        with watch:
            workload.task.logits(model, sample)
    finally:
        for handle in handles:
            handle.remove()
    owners = Counter(id(parameter) for m in names for parameter in m.parameters(recurse=False))
    return [
        (names[layer], names[norm])
        for layer, norm, output in found
        if calls[layer] == calls[norm] == 1
        and watch.reads[id(output)] == 1
        and owners[id(layer.weight)] == 1
        and _plain(layer)
    ]


def _foldable(module: nn.Module) -> bool:
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return isinstance(module, kinds) and module.running_mean is not None and module.running_var is not None


def _plain(layer: nn.Module) -> bool:
    """Whether the weight is the layer's own, and not worked out from another by a parametrisation."""
    return "weight" in layer._parameters and isinstance(layer.weight, nn.Parameter)


class _Reads(TorchDispatchMode):
    """Counts the operations that read each tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has no types, and mypy's exclusion misses super()
        self.reads: Counter[int] = Counter()
        self._kept: list[Tensor] = []

    def begin(self, tensor: Tensor) -> None:
        """Count from here on; the tensor stays alive, so that its id, which dead ones had before, stays its own."""
        self._kept.append(tensor)
        self.reads[id(tensor)] = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        flat, _ = torch.utils._pytree.tree_flatten((args, kwargs or {}))
        self.reads.update(id(value) for value in flat if isinstance(value, Tensor))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _fold(model: nn.Module, layer_name: str, norm_name: str) -> None:
    layer: Any = model.get_submodule(layer_name)
    norm: Any = model.get_submodule(norm_name)
    weight = layer.weight
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        gain = gain * norm.weight.double()
    shift = -norm.running_mean.double() if layer.bias is None else layer.bias.double() - norm.running_mean.double()
    offset = 0.0 if norm.bias is None else norm.bias.double()
    bias = (offset + gain * shift).to(weight.dtype)
    weight.copy_((weight.double() * gain.view(-1, *[1] * (weight.dim() - 1))).to(weight.dtype))
    layer.bias = nn.Parameter(bias, requires_grad=weight.requires_grad)
    parent, _, own = norm_name.rpartition(".")
    setattr(model.get_submodule(parent), own, nn.Identity().train(norm.training))
