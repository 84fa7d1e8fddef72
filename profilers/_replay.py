"""A forward pass run again from the middle: blocks that ended earlier hand back what they returned before.

What ends before a layer starts cannot depend on that layer's weight, so a pass in which only that weight differs gives
the same bits whether earlier blocks are run or remembered. No assumption is made on how blocks are wired; those whose
output cannot be remembered safely are simply run again. Within a block, what ended before the layer is remembered too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.nn import Module

from allocator.tasks.protocol import Batch, Task

NEVER = 1 << 62


@dataclass
class Call:
    """One call of a block.

    Attributes:
        start: tick.
        end: tick.
        output: None where it must not be remembered.
        versions: of the output's tensors as torch counts what is written to them; None where the network wrote to them
            after the call: ``output`` is then a copy from before, and whoever gets it gets another.
    """

    start: int
    end: int
    output: Any
    versions: list[int] | None = None


@dataclass
class Recording:
    """A batch, the logits of the network as it is, and what its blocks returned.

    Attributes:
        batch: the batch.
        logits: of the network as it is.
        calls: the only call of every block that ran once and can be remembered.
        starts: first tick of every watched layer; absent if it did not run.
    """

    batch: Batch
    logits: Tensor
    calls: dict[Module, Call] = field(default_factory=dict)
    starts: dict[Module, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that are remembered."""
        kept = [tensor for call in self.calls.values() for tensor in _tensors(call.output)]
        return sum(tensor.nbytes for tensor in [*kept, self.logits])

    def keep(self, blocks: Sequence[Module]) -> None:
        """Forget the outputs of all other blocks."""
        self.calls = {block: call for block, call in self.calls.items() if block in blocks}

    def before(self, layers: Sequence[Module]) -> list[tuple[Module, Any]]:
        """Blocks, with their outputs, that ended before any of the layers started; of nested ones the outermost."""
        first = min((self.starts.get(layer, -1) for layer in layers), default=-1)
        found, done = [], -1
        for block, call in sorted(self.calls.items(), key=lambda item: item[1].start):
            if call.end < first and call.start > done:
                found.append((block, call.output))
                done = call.end
        return found


def record(
    task: Task,
    model: Module,
    batch: Batch,
    blocks: Sequence[Module],
    layers: Sequence[Module],
    inner: Sequence[Module] = (),
    room: int = 0,
) -> Recording:
    """Run the batch once and remember; to be called without gradients, in eval mode.

    ``inner``: modules inside of blocks, remembered as far as ``room`` bytes allow.
    """
    tick = 0
    calls: dict[Module, list[Call]] = {}
    returned: list[tuple[Call, Any]] = []
    within = set(inner)
    starts: dict[Module, int] = {}

    def watched(block: Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal tick, room
            inputs = list(_tensors((args, kwargs)))
            versions = [_version(tensor) for tensor in inputs]
            start, tick = tick, tick + 1
            output = forward(*args, **kwargs)
            end, tick = tick, tick + 1
            unwritten = versions == [_version(tensor) for tensor in inputs]
            safe = unwritten and _plain(output) and not _shares_memory(inputs, list(_tensors(output)))
            if safe and block in within:
                room -= sum(tensor.nbytes for tensor in _tensors(output))
                safe = room >= 0
            call = Call(start, end, _copy(output) if safe else None, _versions(output))
            if safe:
                returned.append((call, output))
            calls.setdefault(block, []).append(call)
            return output

        return run

    def seen(layer: Module, args: object) -> None:
        nonlocal tick
        starts.setdefault(layer, tick)
        tick += 1

    handles = [layer.register_forward_pre_hook(seen) for layer in layers]
    try:
        with ExitStack() as stack:
            for block in [*blocks, *inner]:
                stack.enter_context(_forward_replaced(block, watched(block, block.forward)))
            logits = task.logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    for call, output in returned:
        if call.versions is not None and call.versions == _versions(output):
            call.output = output  # nobody wrote to it
        else:
            call.versions = None
    once = {block: found[0] for block, found in calls.items() if len(found) == 1 and found[0].output is not None}
    return Recording(batch, logits.detach().clone(), once, starts)


def replay(task: Task, model: Module, recording: Recording, remembered: Sequence[tuple[Module, Any]]) -> Tensor:
    """Logits of the network as it is now, where the given blocks return what they returned when it was recorded.

    An output that was never written to is handed out itself; should the network write to it this time, as what it
    does depends on its weights, that block is forgotten.
    """
    versions = {block: call.versions for block, call in recording.calls.items()}
    with ExitStack() as stack:
        for block, output in remembered:
            stack.enter_context(_forward_replaced(block, _returning(output, copied=versions.get(block) is None)))
        logits = task.logits(model, recording.batch).detach()
    for block, output in remembered:
        if versions.get(block) not in (None, _versions(output)):
            del recording.calls[block]
    return logits


def _returning(output: Any, copied: bool) -> Callable[..., Any]:
    return lambda *args, **kwargs: _copy(output) if copied else output


@contextmanager
def _forward_replaced(module: Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Put a forward on the instance; afterwards the instance has what it had, usually nothing."""
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, (tuple, list)):
        for value in tree:
            yield from _tensors(value)


def _plain(tree: Any) -> bool:
    """Whether the tree is made of exactly what `_copy` can copy; a cache object, say, is not."""
    if type(tree) in (tuple, list):
        return all(_plain(value) for value in tree)
    if type(tree) is dict:
        return all(_plain(value) for value in tree.values())
    return tree is None or isinstance(tree, (bool, int, float, str)) or type(tree) is Tensor


def _copy(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, (tuple, list)):
        return type(tree)(_copy(value) for value in tree)
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    return tree


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _versions(tree: Any) -> list[int] | None:
    """Of the tree's tensors; None if torch does not count what is written to one of them, as in inference mode."""
    tensors = list(_tensors(tree))
    return None if any(tensor.is_inference() for tensor in tensors) else [tensor._version for tensor in tensors]


def _shares_memory(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    places = {tensor.untyped_storage().data_ptr() for tensor in inputs if tensor.numel()}
    return any(tensor.untyped_storage().data_ptr() in places for tensor in outputs if tensor.numel())
