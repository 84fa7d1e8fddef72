"""`prune`: where the kept weights are, and what they are."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Keep, Layer, Prune, Quantize
from allocator.applier.coded_values import code_values, restore_per_row
from allocator.applier.codes import scale_dtype
from allocator.applier.compensation import chosen, compensated
from allocator.applier.gains import rows_times
from allocator.applier.kept import kept
from allocator.applier.kernels import at_once
from allocator.applier.kinds.kind import Kind, as_bytes, as_numbers
from allocator.applier.packing import unpack_bits
from allocator.applier.positions import read_bitmap, read_mask, read_places, write_bitmap, write_mask, write_places
from allocator.applier.weight import Weight

_CHUNK = 1 << 18


class PruneKind(Kind):
    """See `Prune`."""

    def slow(self, action: Prune) -> bool:
        """Where what is kept is fitted again."""
        return action.compensate

    def store(self, weight: Weight, action: Prune) -> Tensor:
        """The places of the kept weights, their signs if they lie apart, then their values."""
        return _stored(weight, action)

    def restore(self, buffer: Tensor, action: Prune, layer: Layer) -> Tensor:
        """Zeros, and the values in their places."""
        from allocator.applier.kinds import kind_of

        at = action.position_bytes(layer)
        mask = _mask(buffer[:at], action, layer)
        end = at + action.sign_bytes(layer)
        signs = unpack_bits(buffer[at:end], 1, action.kept(layer)) if end > at else None
        if action.scale_per_row:
            matrix = restore_per_row(buffer[end:], mask, action.kept(layer), action)
            if signs is not None:
                _negate_(matrix, torch.zeros_like(mask).masked_scatter_(mask, signs == 0))
            return matrix
        values = kind_of(action.values).restore(buffer[end:], action.values, action.values_layer(layer))
        if signs is not None:
            _negate_(values, signs == 0)
        return torch.zeros_like(mask, dtype=torch.float32).masked_scatter_(mask, values)

    def rescaled(self, buffer: Tensor, action: Prune, layer: Layer, gain: Tensor) -> Tensor | None:
        """The scales of the kept weights, or these themselves, times the gain of their row."""
        from allocator.applier.kinds import kind_of

        end = action.position_bytes(layer) + action.sign_bytes(layer)
        how, values = action.values, action.values_layer(layer)
        if isinstance(how, Quantize) and action.scale_per_row:
            at = end + how.code_bytes(values)
            numbers = as_numbers(buffer[at:], scale_dtype(how)).view(-1, 1)
            made = as_bytes(rows_times(numbers, gain.repeat(len(numbers) // layer.rows)))
            return torch.cat([buffer[:at], made])
        if values.rows != layer.rows:
            if not isinstance(how, Keep):
                return None
            mask = _mask(buffer[: action.position_bytes(layer)], action, layer)
            gain = gain.to(buffer.device)[mask.nonzero()[:, 0]]
            values = Layer(values.kind, (values.weights, 1))  # every number a row of its own, with its row's gain
        found = kind_of(how).rescaled(buffer[end:], how, values, gain)
        return None if found is None else torch.cat([buffer[:end], found])


def _negate_(values: Tensor, where: Tensor) -> None:
    """Change signs in place, where bool of as many places says so; in pieces, so that it takes no room that counts."""
    step = at_once(_CHUNK, values)
    for piece, here in zip(torch.split(values.view(-1), step), torch.split(where.view(-1), step), strict=True):
        piece.mul_(1 - 2 * here.to(torch.float32))


def _stored(weight: Weight, action: Prune) -> Tensor:
    from allocator.applier.kinds import kind_of

    mask = chosen(weight, action) if action.compensate else kept(weight, action)
    places = _places(mask, action, weight.layer)
    values = compensated(weight, mask, action) if action.compensate else weight.matrix[mask]
    how = action.values
    if isinstance(how, Quantize):
        coded = code_values(values, mask, action, weight.layer) if isinstance(values, Tensor) else values
        return torch.cat([places, coded.stored(how.bits)])
    assert isinstance(values, Tensor), "only codes come in another form"
    signs = values.new_empty(0, dtype=torch.uint8)
    if action.signs == "apart":
        signs, values = write_bitmap(values >= 0), values.abs()
    shape = action.values_layer(weight.layer)
    return torch.cat([places, signs, kind_of(how).store(Weight(values.view(shape.weight_shape), shape), how)])


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
