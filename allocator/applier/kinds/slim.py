"""`slim`: maps of the channels that stay, and the smaller matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Layer, Slim
from allocator.actions.slim import Kept
from allocator.applier.kernels import readable
from allocator.applier.kinds.kind import Kind
from allocator.applier.moments import input_moment
from allocator.applier.weight import LARGEST, Weight
from allocator.errors import ActionError

DAMPING = 1e-4
"""Of the mean of the moment's diagonal: see `Slim`."""


class SlimKind(Kind):
    """See `Slim`; the least squares are float64, and are solved once for all actions that keep the same columns."""

    def store(self, weight: Weight, action: Slim) -> Tensor:
        """The maps, then what remains."""
        from allocator.applier.kinds import kind_of

        layer, device = weight.layer, weight.matrix.device
        rows, columns = _rows(action, layer, device), _columns(action, layer, device)
        core = weight.matrix if action.weighting == "none" else _refitted(weight, action, columns)
        if action.weighting == "none" and action.columns is not None:
            core = core[:, columns]
        if action.rows is not None:
            core = core[rows]
        found = [torch.frombuffer(bytearray(kept.bitmap), dtype=torch.uint8).to(device) for kept in _maps(action)]
        stored = kind_of(action.values).store(Weight(core, action.core(layer)), action.values)
        return torch.cat([*found, stored])

    def restore(self, buffer: Tensor, action: Slim, layer: Layer) -> Tensor:
        """What remains, in its places; 0 elsewhere."""
        from allocator.applier.kinds import kind_of

        at = 0
        for kept in _maps(action):
            length = len(kept.bitmap)
            stored = buffer[at : at + length]
            if readable(stored) and bytes(stored.tolist()) != kept.bitmap:
                raise ActionError("action slim: the map of the kept channels is not the action's; it is damaged")
            at += length
        core = kind_of(action.values).restore(buffer[at:], action.values, action.core(layer))
        matrix = torch.zeros(layer.rows, layer.columns, device=buffer.device)
        rows, columns = _rows(action, layer, buffer.device), _columns(action, layer, buffer.device)
        matrix[rows.unsqueeze(1), columns] = core
        return matrix


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
