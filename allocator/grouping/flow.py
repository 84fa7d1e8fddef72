"""Where the output channels of layers go: one forward pass watched for what reads them, operation by operation.

Unlike `allocator.grouping.record`, which says what may well belong together, this must miss no reader: an operation
that is not known to leave every channel in its place, by itself, seals all channels that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from allocator.applier.modules import runs_in_parts
from allocator.grouping.flow_rules import Layout, Side, followed
from allocator.grouping.record import width
from allocator.tasks.protocol import Batch, Task

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(eq=False)
class Flow:
    """What one pass showed.

    Attributes:
        ties: pairs of sides whose channels are the same ones, in the same order.
        sealed: sides whose channels something reads that is no layer and mixes them, or may.
        counts: channels of a side.
        watched: layers whose channels are followed.
    """

    ties: list[tuple[Side, Side]] = field(default_factory=list)
    sealed: set[Side] = field(default_factory=set)
    counts: dict[Side, int] = field(default_factory=dict)
    watched: set[nn.Module] = field(default_factory=set)


def follow(task: Task, model: nn.Module, batch: Batch, layers: Sequence[nn.Module]) -> Flow:
    """Run the batch once, without gradients; the model is expected in eval mode, opened.

    Embeddings, layers whose forward is not torch's own, and those with hooks are watched as the operations they do.
    """
    kinds = (nn.Linear, *CONVOLUTIONS)
    known = [one for one in layers if isinstance(one, kinds) and runs_in_parts(one) and not _hooked(one)]
    flow = Flow(watched=set(known))
    watch = _Watch(flow, layers)
    handles: list[Any] = []
    for layer in known:
        handles.append(layer.register_forward_pre_hook(watch.enter, with_kwargs=True))
        handles.append(layer.register_forward_hook(watch.leave))
    try:
        with torch.no_grad(), watch:
            logits = task.logits(model, batch)
        watch.seal(tree_leaves(logits))
    finally:
        for handle in handles:
            handle.remove()
    return flow


def _hooked(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


class _Watch(TorchDispatchMode):
    def __init__(self, flow: Flow, layers: Sequence[nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has no types, and mypy's exclusion misses super()
        self._flow = flow
        self._weights: dict[int, list[nn.Module]] = {}
        for layer in layers:
            self._weights.setdefault(layer.get_parameter("weight").data_ptr(), []).append(layer)
        self._layouts: dict[int, tuple[Tensor, Layout]] = {}  # the tensor itself, so that ids stay its own
        self._inside = 0

    def enter(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A layer begins: what it reads."""
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        self._inside += 1
        layout = self._of(given[0]) if given else None
        if len(given) != 1 or layout is None or not _reads(layer, given[0], layout):
            self.seal(given)
            self._flow.sealed.add((layer, "in"))
            return
        self._flow.counts[layer, "in"] = layout.count
        self._flow.ties.append((layout.source, (layer, "in")))

    def leave(self, layer: nn.Module, args: object, output: object) -> None:
        """It ends: what it wrote."""
        self._inside -= 1
        assert isinstance(output, Tensor), "torch's own layers return one tensor"
        behind = len(layer.kernel_size) if isinstance(layer, CONVOLUTIONS) else 0
        out = (layer, "out")
        self._flow.counts[out] = width(layer)
        if depthwise(layer):
            self._flow.ties.append(((layer, "in"), out))
        self._layouts[id(output)] = output, Layout(out, width(layer), output.dim() - 1 - behind)

    def seal(self, tensors: Sequence[object]) -> None:
        """Something reads these tensors that may mix their channels."""
        for tensor in tensors:
            layout = self._of(tensor)
            if layout is not None:
                self._flow.sealed.add(layout.source)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self._inside:
            self._step(func, args, kwargs, [one for one in tree_leaves(out) if isinstance(one, Tensor)])
        return out

    def _owns(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether all that is written over holds channels too: other memory could be read through another view."""
        if not func._schema.is_mutable:
            return True
        named = zip(func._schema.arguments, args, strict=False)
        written = [
            value for argument, value in named if argument.alias_info is not None and argument.alias_info.is_write
        ]
        return "out" not in kwargs and all(self._of(value) is not None for value in written)

    def _of(self, tensor: object) -> Layout | None:
        held = self._layouts.get(id(tensor))
        return None if held is None else held[1]

    def _step(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], results: list[Tensor]) -> None:
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        for one in given:
            for layer in self._weights.get(one.data_ptr(), ()):  # used past its layer: its rows or columns are read
                self._flow.sealed.update([(layer, "in"), (layer, "out")])
        read = [(one, layout) for one in given if (layout := self._of(one)) is not None]
        if not read:
            for result in results:
                self._layouts.pop(id(result), None)
            return
        name = func.overloadpacket.__name__
        results = [result for result in results if result.numel()]
        found = (
            followed(name, func, args, kwargs, read, results[0]) if results and self._owns(func, args, kwargs) else None
        )
        if found is None or any(_size(result, found) != found.count * found.inner for result in results):
            self.seal(given)
            for result in results:
                self._layouts.pop(id(result), None)
            return
        self._flow.ties += [(read[0][1].source, layout.source) for _, layout in read[1:]]
        for result in results:
            self._layouts[id(result)] = result, found


def depthwise(layer: nn.Module) -> bool:
    """Whether each output channel reads the one input channel of the same number."""
    return isinstance(layer, CONVOLUTIONS) and 1 < layer.groups == layer.in_channels == layer.out_channels


def _size(result: Tensor, layout: Layout) -> int | None:
    return result.shape[layout.dim] if layout.dim < result.dim() else None


def _reads(layer: nn.Module, given: Tensor, layout: Layout) -> bool:
    """Whether a layer reads the channels as its input channels."""
    if isinstance(layer, nn.Linear):
        return layout.dim == given.dim() - 1
    assert isinstance(layer, CONVOLUTIONS)
    if layout.inner > 1 or layout.dim != given.dim() - 1 - len(layer.kernel_size):
        return False
    return layer.groups == 1 or depthwise(layer)
