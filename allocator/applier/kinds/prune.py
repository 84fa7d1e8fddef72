"""`prune`: where the kept weights are, and what they are."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Layer, Prune, Quantize
from allocator.applier.coded_values import code_values, restore_per_row
from allocator.applier.compensation import compensated
from allocator.applier.importance import kept
from allocator.applier.kinds.kind import Kind
from allocator.applier.positions import read_bitmap, read_mask, read_places, write_bitmap, write_mask, write_places
from allocator.applier.weight import Weight


class PruneKind(Kind):
    """See `Prune`."""

    def store(self, weight: Weight, action: Prune) -> Tensor:
        """The places of the kept weights, then their values."""
        if not action.compensate:
            mask = kept(weight, action)
            return _stored(mask, weight.matrix[mask], action, weight.layer)
        return weight.remember(("prune", repr(action)), lambda: self._compensated(weight, action))

    def _compensated(self, weight: Weight, action: Prune) -> Tensor:
        mask = kept(weight, action)
        found = compensated(weight, mask, action)
        if isinstance(found, Tensor):
            return _stored(mask, found, action, weight.layer)
        assert isinstance(action.values, Quantize), "only it has codes"
        return torch.cat([_places(mask, action, weight.layer), found.stored(action.values.bits)])

    def restore(self, buffer: Tensor, action: Prune, layer: Layer) -> Tensor:
        """Zeros, and the values in their places."""
        from allocator.applier.kinds import kind_of

        at = action.position_bytes(layer)
        mask = _mask(buffer[:at], action, layer)
        if action.scale_per_row:
            return restore_per_row(buffer[at:], mask, action)
        values = kind_of(action.values).restore(buffer[at:], action.values, action.values_layer(layer))
        return torch.zeros_like(mask, dtype=torch.float32).masked_scatter_(mask, values)


def _stored(mask: Tensor, values: Tensor, action: Prune, layer: Layer) -> Tensor:
    from allocator.applier.kinds import kind_of

    places = _places(mask, action, layer)
    if action.scale_per_row:
        assert isinstance(action.values, Quantize), "only it has scales"
        return torch.cat([places, code_values(values, mask, action, layer).stored(action.values.bits)])
    shape = action.values_layer(layer)
    matrix = Weight(values.view(shape.weight_shape), shape)
    return torch.cat([places, kind_of(action.values).store(matrix, action.values)])


def _places(mask: Tensor, action: Prune, layer: Layer) -> Tensor:
    if action.lists_places(layer):
        assert action.block is not None, "pattern n_m has it"
        return write_places(mask, action.block)
    return write_mask(mask.view(-1)) if action.pattern == "unstructured" else write_bitmap(mask)


def _mask(stream: Tensor, action: Prune, layer: Layer) -> Tensor:
    shape = layer.rows, layer.columns
    if action.lists_places(layer):
        assert action.block is not None, "pattern n_m has it"
        assert action.keep is not None, "likewise"
        return read_places(stream, shape, action.keep, action.block)
    if action.pattern == "unstructured":
        return read_mask(stream, layer.weights, action.kept(layer)).view(shape)
    return read_bitmap(stream, layer.weights, action.kept(layer)).view(shape)
