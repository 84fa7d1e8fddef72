"""One forward pass watched at the level of tensor operations: what layers read, and whose outputs are added together.

No graph is traced from code, so that control flow, models from hubs and arguments of any kind are no obstacle: what ran
on one sample is what counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from allocator.tasks.protocol import Batch, Task

Writer: TypeAlias = tuple[nn.Module, int]
"""A layer, and the number of its output channels."""
Reading: TypeAlias = tuple[int, int, int]
"""What a layer read: address, elements, and how often the memory had been written."""

ADDS = frozenset({"add", "add_", "sub", "sub_", "rsub"})
_VIEWS = (
    "view _unsafe_view _reshape_alias transpose transpose_ permute t unsqueeze unsqueeze_ squeeze squeeze_ expand "
    "alias detach contiguous roll constant_pad_nd _to_copy rsub native_dropout"
)
_NORMS = (
    "native_layer_norm native_group_norm native_batch_norm cudnn_batch_norm miopen_batch_norm _fused_rms_norm "
    "_native_batch_norm_legit _native_batch_norm_legit_no_training"
)
_POOLS = (
    "max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d "
    "upsample_nearest2d upsample_bilinear2d"
)
KEEPS = frozenset(f"{_VIEWS} {_NORMS} {_POOLS}".split())
"""Operations that leave each channel what it was, beside those that work element by element."""


@dataclass(eq=False)
class Record:
    """What one pass showed.

    Attributes:
        reads: of every watched layer, call by call.
        sums: pairs of layers whose outputs were added, of equal width.
    """

    reads: dict[nn.Module, list[Reading]] = field(default_factory=dict)
    sums: set[tuple[nn.Module, nn.Module]] = field(default_factory=set)


class _Watch(TorchDispatchMode):
    """Follows the outputs of layers through operations that leave channels in their places."""

    def __init__(self, record: Record) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has no types, and mypy's exclusion misses super()
        self._record = record
        self._writers: dict[int, tuple[Tensor, frozenset[Writer]]] = {}  # the tensor itself, so that ids stay its own

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        result = out[0] if isinstance(out, (tuple, list)) and out else out
        if isinstance(result, Tensor) and result.is_floating_point():
            self._follow(func, args, result)
        return out

    def mark(self, output: Tensor, writers: frozenset[Writer]) -> None:
        """Say whose output a tensor is."""
        if writers:
            self._writers[id(output)] = output, writers
        else:
            self._writers.pop(id(output), None)

    def _follow(self, func: Any, args: tuple[Any, ...], result: Tensor) -> None:
        name = func.overloadpacket.__name__
        operands = args[0] if name == "cat" else [arg for arg in args if isinstance(arg, Tensor)]
        if name in ("where", "copy_"):  # the first is the condition, or what is overwritten
            operands = operands[1:]
        found = [(operand, self._writers[id(operand)][1]) for operand in operands if id(operand) in self._writers]
        if name in ADDS and len(found) > 1:
            self._add([writers for _, writers in found])
        elif name in KEEPS:
            found = found[:1]
        elif name in ("cat", "slice", "select"):
            found = _untouched(found, operands, args[1] if len(args) > 1 else 0)
        elif name == "copy_" or torch.Tag.pointwise in func.tags:
            found = [(operand, writers) for operand, writers in found if operand.shape == result.shape]
        else:
            found = []
        self.mark(result, frozenset().union(*(writers for _, writers in found)))

    def _add(self, sides: Sequence[frozenset[Writer]]) -> None:
        for place, one in enumerate(sides):
            for other in sides[place + 1 :]:
                self._record.sums.update((a, b) for a, wide in one for b, width in other if wide == width)


def _untouched(
    found: Sequence[tuple[Tensor, frozenset[Writer]]], operands: Sequence[Tensor], dim: int
) -> list[tuple[Tensor, frozenset[Writer]]]:
    """What is left of the writers when tensors are joined or cut along a dimension that is not their channels'."""
    sizes = {operand.shape[dim] for operand in operands if operand.dim()}
    return [(operand, frozenset(writer for writer in writers if writer[1] not in sizes)) for operand, writers in found]


def record(task: Task, model: nn.Module, batch: Batch, layers: Sequence[nn.Module]) -> Record:
    """Run the batch once, without gradients, and watch the layers; the model is expected in eval mode, opened."""
    found = Record()
    watch = _Watch(found)
    kept: list[Tensor] = []  # what layers read stays alive, so that an address means one tensor

    def before(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        if given is not None:
            kept.append(given)
            version = -1 if given.is_inference() else given._version
            found.reads.setdefault(layer, []).append((given.data_ptr(), given.numel(), version))

    def after(layer: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor):
            watch.mark(output, frozenset({(layer, width(layer))}))

    handles: list[Any] = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
    handles += [layer.register_forward_hook(after) for layer in layers]
    try:
        with torch.no_grad(), watch:
            task.logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def width(layer: nn.Module) -> int:
    """Output channels of a layer."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.shape[1] if isinstance(layer, nn.Embedding) else weight.shape[0]
