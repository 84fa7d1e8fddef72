"""A model as a program: the graph of its operations beside its packed weights, which runs where its class is not there.

torch.export records the operations. Weights stay packed in the program: what unpacks them, integer operations of torch,
is part of the graph and runs with it, so that neither this package nor the model's code is needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.utils import _pytree as pytree

from allocator.actions import Action, Layer
from allocator.applier.kinds import kind_of
from allocator.applier.packed_units import packed_units
from allocator.applier.program_file import first_line, quiet, read_program, write_program
from allocator.errors import ActionError, AllocatorError
from allocator.tasks.guard import untouched


@dataclasses.dataclass(frozen=True)
class Call:
    """What a model is called with: model(*args, **kwargs)."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Example: TypeAlias = Call | Tensor | tuple[Any, ...] | Mapping[str, Any]
"""A call; or its only argument, its positional ones, or its keyword ones."""


@dataclasses.dataclass(frozen=True)
class ProgramInfo:
    """Where a program lies, how large it is, and what it takes.

    Attributes:
        path: of the file.
        bytes: of the file.
        samples: how many samples a call must have; None: any number.
    """

    path: Path
    bytes: int
    samples: int | None


def export_program(model: nn.Module, example: Example, path: str | PathLike[str]) -> ProgramInfo:
    """Write a model in evaluation mode as a program (torch's .pt2); the model is not changed.

    For a packed model (`apply_` with packed=True, `load_compressed`) the file has the packed buffers, the rest of the
    state and the graph, which unpacks each weight whole where it is used, in one step: at its peak that takes the
    weight in float32 about two and a half times. Outputs are the packed model's bit by bit, on the same version of
    torch and device. Buffers are checked here, not by the program. Any other model is written with its weights as they
    are.

    The first dimension of tensors as long as the example's first tensor is that of the samples, and may have any length
    in the program unless the model fixes it: by len(x) in place of x.shape[0], or by taking tensors as **kwargs. An
    example of one sample fixes it too. All other lengths, and the values of arguments that are no tensors, are the
    example's. What is returned consists of tensors, tuples, lists and dicts: other mappings, named tuples, dataclasses
    and objects with `logits`, whose classes would have to be there, become dicts of those of their entries that hold
    tensors alone.

    Args:
        model: on the device that the program is to run on.
        example: what the model can be called with; better two samples or more. It does not get into the file.
        path: of the file, which by custom ends in .pt2; replaced if it is there.

    Raises:
        ActionError: a kind of action whose unpacking cannot be traced; the text names the layer.
        AllocatorError: the model does not run on the example, or torch cannot trace or write it.
    """
    call = _call(example)
    with untouched(model), torch.no_grad(), _plain_outputs(model):
        try:
            model(*call.args, **call.kwargs)
        except Exception as error:  # whatever the model's own code raises
            raise AllocatorError(f"the model does not run on the example: {first_line(error)}") from error
        program = _traced(model, call)
    try:
        with quiet():
            size = write_program(program, Path(path))
    except OSError as error:
        raise AllocatorError(f"{path}: cannot be written ({error.strerror or error})") from error
    except Exception as error:  # torch has no one error for what it cannot write
        raise AllocatorError(f"{path}: torch.export cannot write the model's graph: {first_line(error)}") from error
    return ProgramInfo(Path(path), size, _samples(program, call))


def load_program(path: str | PathLike[str]) -> nn.Module:
    """A program as a module, which takes what the model took; neither its class nor this package has a part in it.

    The same as ``torch.export.load(path).module()``, which needs torch alone, but for what is refused: torch would
    unpickle sample inputs, tensor subclasses and custom objects, and a file that holds any is not read. Nothing is ever
    unpickled then. A program is code all the same, and torch evaluates expressions in its graph: load none that you
    would not run.

    The module runs as in evaluation mode; torch lets it have neither eval() nor train().

    Raises:
        AllocatorError: a file that is missing, damaged, of another version of torch, or holds anything but a graph and
            plain tensors.
    """
    return read_program(Path(path)).module()


def recorded_call(model: nn.Module, run: Callable[[], object]) -> Call:
    """How a model is called first while something runs, such as ``lambda: task.logits(model, batch)``.

    Raises:
        AllocatorError: it is not called.
    """
    calls: list[Call] = []

    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(Call(args, kwargs))

    hook = model.register_forward_pre_hook(record, with_kwargs=True)
    try:
        with untouched(model), torch.no_grad():
            run()
    finally:
        hook.remove()
    if not calls:
        raise AllocatorError("the model was not called as a module: say what it takes with a Call")
    return calls[0]


def _call(example: Example) -> Call:
    if isinstance(example, Call):
        return example
    if isinstance(example, tuple):
        return Call(example)
    return Call((), dict(example)) if isinstance(example, Mapping) else Call((example,))


def _traced(model: nn.Module, call: Call) -> ExportedProgram:
    failure: Exception | None = None
    for shapes in (_free_samples(call), None):
        try:
            with quiet():
                return torch.export.export(model, call.args, dict(call.kwargs), dynamic_shapes=shapes, strict=False)
        except Exception as error:  # torch raises errors of many kinds, and those of the model's code
            failure = error
    _require_traceable(model)
    assert failure is not None
    raise AllocatorError(
        f"torch.export cannot trace the model: {first_line(failure)}; its forward must not depend on the values of "
        "tensors. A checkpoint (compress, load_compressed) does without a graph"
    ) from failure


def _free_samples(call: Call) -> Any:
    """Which lengths may vary, as torch.export takes them; None: none."""
    tensors = _with_samples(call)
    if not tensors or len(tensors[0]) < 2:  # torch takes lengths of 0 and 1 for constants
        return None
    found = ShapesCollection()
    for tensor in tensors:
        found[tensor] = {0: Dim.AUTO}
    return found


def _with_samples(call: Call) -> list[Tensor]:
    """The tensors of a call that are as long as its first."""
    leaves = pytree.tree_leaves((call.args, dict(call.kwargs)))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()]
    return [tensor for tensor in tensors if len(tensor) == len(tensors[0])]


def _samples(program: ExportedProgram, call: Call) -> int | None:
    """How many samples a program takes; None: any number."""
    inputs = set(program.graph_signature.user_inputs)
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    # A length that was found to be fixed is a symbol still, but one whose name is a number.
    if any(isinstance(value, Tensor) and value.dim() and not str(value.shape[0]).isdigit() for value in values):
        return None
    tensors = _with_samples(call)
    return len(tensors[0]) if tensors else None


class _Unpacking(nn.Module):
    """What a layer does to its buffer, alone."""

    def __init__(self, action: Action, layer: Layer) -> None:
        super().__init__()
        self._action, self._layer = (action,), (layer,)

    def forward(self, buffer: Tensor) -> Tensor:
        return kind_of(self._action[0]).restore(buffer, self._action[0], self._layer[0])


def _require_traceable(model: nn.Module) -> None:
    """Raise ActionError if a packed weight cannot be unpacked within a graph."""
    for one in packed_units(model):
        try:
            with quiet():
                torch.export.export(_Unpacking(one.action, one.layer), (one.buffer.detach(),), strict=False)
        except Exception as error:  # as in _traced
            raise ActionError(
                f"module {one.name!r}: what unpacks its action {one.action.kind!r} cannot be traced "
                f"({first_line(error)}): keep this layer, or export the model with the solution applied unpacked "
                "(apply_ without packed=True)"
            ) from error


@contextmanager
def _plain_outputs(model: nn.Module) -> Iterator[None]:
    hook = model.register_forward_hook(lambda _, args, output: _plain(output))
    try:
        yield
    finally:
        hook.remove()


def _plain(output: Any) -> Any:
    """An output without classes that a program would have to find again; see `export_program`."""
    named: Mapping[Any, Any]
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        named = output._asdict()
    elif isinstance(output, (tuple, list)):
        return type(output)(_plain(value) for value in output)
    elif isinstance(output, Mapping):
        named = output
    elif dataclasses.is_dataclass(output) or isinstance(getattr(output, "logits", None), Tensor):
        named = vars(output)
    else:
        return output
    return {key: _plain(value) for key, value in named.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(part) for part in value)
    return isinstance(value, (Tensor, Mapping)) or dataclasses.is_dataclass(value)
