"""`slim`: maps of the channels that stay, and the smaller matrix, run as a smaller layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from allocator.actions import Layer, Part, Slim
from allocator.actions.slim import Kept
from allocator.applier.kernels import readable
from allocator.applier.kinds.kind import FactoredKind
from allocator.applier.kinds.own_forward import Convolution, convolve
from allocator.applier.kinds.stepping import step
from allocator.applier.moments import input_moment
from allocator.applier.weight import LARGEST, Weight
from allocator.errors import ActionError

DAMPING = 1e-4
"""Of the mean of the moment's diagonal: see `Slim`."""


class SlimKind(FactoredKind):
    """See `Slim`; the least squares are float64, and are solved once for all actions that keep the same columns.

    It runs as the smaller layer that remains: on the channels that are kept, into 0 for the rows that are not. Groups
    of several channels run on the whole weight with its zeros, as do embeddings and forwards of a class's own.
    """

    whole_too = True

    def slow(self, action: Slim) -> bool:
        """What takes long is remembered for all actions that keep the same columns."""
        return False

    def planned(self, action: Slim, layer: Layer) -> tuple[Part, ...]:
        """What remains."""
        return (Part("core", action.core(layer), action.values),)

    def row_part(self, action: Slim) -> int | None:
        """What remains, if no row is left out."""
        return 0 if action.rows is None else None

    def before(self, action: Slim) -> int:
        """The maps."""
        return sum(len(kept.bitmap) for kept in _maps(action))

    def factors(self, weight: Weight, action: Slim) -> tuple[Tensor]:
        """float32 [kept rows, kept columns]."""
        columns = _columns(action, weight.layer, weight.matrix.device)
        core = weight.matrix if action.weighting == "none" else _refitted(weight, action, columns)
        if action.weighting == "none" and action.columns is not None:
            core = core[:, columns]
        return (core if action.rows is None else core[list(action.rows.kept)],)

    def store(self, weight: Weight, action: Slim) -> Tensor:
        """The maps, then what remains."""
        maps = [torch.frombuffer(bytearray(kept.bitmap), dtype=torch.uint8) for kept in _maps(action)]
        return torch.cat([*(found.to(weight.matrix.device) for found in maps), super().store(weight, action)])

    def parts(self, buffer: Tensor, action: Slim, layer: Layer) -> tuple[Tensor, ...]:
        """What remains, after a look at the maps."""
        at = 0
        for kept in _maps(action):
            length = len(kept.bitmap)
            stored = buffer[at : at + length]
            if readable(stored) and bytes(stored.tolist()) != kept.bitmap:
                raise ActionError("action slim: the map of the kept channels is not the action's; it is damaged")
            at += length
        return super().parts(buffer, action, layer)

    def product(self, parts: Sequence[Tensor], action: Slim, layer: Layer) -> Tensor:
        """What remains, in its places; 0 elsewhere."""
        (core,) = parts
        matrix = core.new_zeros(layer.rows, layer.columns)
        rows, columns = _rows(action, layer, core.device), _columns(action, layer, core.device)
        matrix[rows.unsqueeze(1), columns] = core
        return matrix

    def run(
        self, module: nn.Module, x: Tensor, parts: Sequence[Tensor], action: Slim, layer: Layer, bias: Tensor | None
    ) -> Tensor:
        """The layer of what remains, its outputs in their places."""
        (core,) = parts
        kernel, axis = layer.weight_shape[2:], 1 - len(layer.weight_shape)
        depthwise = layer.groups == layer.rows and layer.weight_shape[1] == 1
        if layer.groups > 1 and not depthwise:
            whole = self.product(parts, action, layer)
            return convolve(module, x, whole.reshape(layer.weight_shape), bias)
        rows = None if action.rows is None else torch.tensor(action.rows.kept, device=x.device)
        if depthwise and layer.groups > 1:  # what a row that goes would read goes too
            assert rows is not None, "grouped convolutions keep their columns"
            assert isinstance(module, Convolution), "nothing else has groups"
            small = core.view(len(rows), -1, *kernel)
            y = step(module, x.index_select(axis, rows), small, range(len(kernel)), len(rows))
        else:
            if action.columns is not None:
                x = x.index_select(axis, _inputs(action.columns, layer, x.device))
            y = convolve(module, x, core.view(len(core), -1, *kernel), bias if rows is None else None)
        if rows is None:
            return y
        shape = list(y.shape)
        shape[axis] = layer.rows
        y = y.new_zeros(shape).index_copy(axis, rows, y)
        return y if bias is None else y + bias.view(-1, *[1] * len(kernel))


def _inputs(kept: Kept, layer: Layer, device: torch.device) -> Tensor:
    """Numbers of the input channels that are read; a channel of ``kept`` may be several of a Linear's."""
    each = torch.arange(layer.weight_shape[1], device=device).view(kept.of, -1)
    return each[list(kept.kept)].flatten()


def _maps(action: Slim) -> list[Kept]:
    return [kept for kept in (action.rows, action.columns) if kept is not None]


def _rows(action: Slim, layer: Layer, device: torch.device) -> Tensor:
    """Numbers of the kept rows."""
    if action.rows is None:
        return torch.arange(layer.rows, device=device)
    return torch.tensor(action.rows.kept, device=device)


def _columns(action: Slim, layer: Layer, device: torch.device) -> Tensor:
    """Numbers of the kept columns."""
    every = torch.arange(layer.columns, device=device)
    if action.columns is None:
        return every
    return every.view(action.columns.of, -1)[list(action.columns.kept)].flatten()


def _refitted(weight: Weight, action: Slim, columns: Tensor) -> Tensor:
    """float32 [rows, kept columns]: the weight that reads these only and whose outputs err least."""
    moment = input_moment(weight, action)[0]

    def find() -> Tensor:
        inner = moment[columns][:, columns]
        mean = inner.diagonal().mean()
        kept = weight.matrix[:, columns]
        if not mean > 0:  # inputs that are always 0 can take over nothing
            return kept
        gone = torch.ones(len(moment), dtype=torch.bool, device=columns.device).index_fill_(0, columns, False)
        inner.diagonal().add_(DAMPING * mean)
        cross = moment[gone][:, columns]
        taken_over = torch.linalg.solve(inner, cross.t()).t()  # [gone, kept]
        refitted: Tensor = kept.double() + weight.matrix[:, gone].double() @ taken_over
        return refitted.clamp_(-LARGEST, LARGEST).to(torch.float32)

    assert action.columns is not None, "weighting is about columns"
    found: Tensor = weight.remember(("slim", action.columns), find)
    return found
