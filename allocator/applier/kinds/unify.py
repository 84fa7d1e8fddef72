"""`unify`: a map of the blocks, a magnitude and signs for those that are unified, another action for the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Keep, Layer, Unify
from allocator.applier.gains import rows_times
from allocator.applier.importance import importance
from allocator.applier.kernels import readable
from allocator.applier.kinds.kind import Kind, as_bytes, as_numbers
from allocator.applier.packing import pack_bits, packed_bytes, unpack_bits
from allocator.applier.stored_scales import narrow
from allocator.applier.weight import Weight
from allocator.errors import ActionError


class UnifyKind(Kind):
    """See `Unify`; means and errors are float64."""

    def slow(self, action: Unify) -> bool:
        """Blocks are sorted, and the rest is rounded by a search."""
        return True

    def store(self, weight: Weight, action: Unify) -> Tensor:
        """Map, magnitudes, signs, rest."""
        from allocator.applier.kinds import kind_of

        layer = weight.layer
        magnitudes, errors = _fit(weight, action)
        taken = torch.zeros(errors.numel(), dtype=torch.bool, device=errors.device)
        taken[errors.view(-1).sort(stable=True).indices[: action.unified(layer)]] = True
        taken = taken.view_as(errors)
        signs = _blocks(weight.matrix, action)[taken] >= 0
        found = [
            pack_bits(taken.to(torch.uint8), 1),
            as_bytes(narrow(magnitudes[taken], torch.float16)),
            pack_bits(signs.to(torch.uint8), 1),
        ]
        rest = action.rest(layer)
        if rest is not None:
            others = weight.matrix[~_each(taken, action, layer)].view(1, -1)
            found.append(kind_of(action.values).store(Weight(others, rest), action.values))
        return torch.cat(found)

    def restore(self, buffer: Tensor, action: Unify, layer: Layer) -> Tensor:
        """±magnitude in the blocks of the map, the rest around them."""
        from allocator.applier.kinds import kind_of

        unified = action.unified(layer)
        _, numbers, signs, others = _sections(buffer, action, layer)
        taken = _map(buffer, action, layer)
        matrix = torch.empty(layer.rows, layer.columns, device=buffer.device)
        rest = action.rest(layer)
        if rest is not None:
            values = kind_of(action.values).restore(others, action.values, rest)
            matrix.masked_scatter_(~_each(taken, action, layer), values)
        positive = unpack_bits(signs, 1, unified * action.block).view(unified, action.block)
        magnitudes = as_numbers(numbers, torch.float16).to(torch.float32).unsqueeze(1)
        values = positive.to(torch.float32).mul_(2).sub_(1).mul_(magnitudes)
        _blocks(matrix, action).masked_scatter_(taken.unsqueeze(2), values)
        return matrix

    def rescaled(self, buffer: Tensor, action: Unify, layer: Layer, gain: Tensor) -> Tensor | None:
        """Magnitudes times the gain of their row; None if the rest, a single row, has scales of its own."""
        from allocator.applier.kinds import kind_of

        where, numbers, signs, others = _sections(buffer, action, layer)
        taken, gain = _map(buffer, action, layer), gain.to(buffer.device)
        magnitudes = as_numbers(numbers, torch.float16).unsqueeze(1)
        found = [where, as_bytes(rows_times(magnitudes, gain[taken.nonzero()[:, 0]])), signs]
        rest = action.rest(layer)
        if rest is not None:
            if not isinstance(action.values, Keep):
                return None
            rows = (~_each(taken, action, layer)).nonzero()[:, 0]
            each = Layer(rest.kind, (rest.columns, 1))  # every number a row of its own, with its row's gain
            made = kind_of(action.values).rescaled(others, action.values, each, gain[rows])
            assert made is not None, "numbers that are kept can be multiplied"
            found.append(made)
        return torch.cat(found)


def _sections(buffer: Tensor, action: Unify, layer: Layer) -> tuple[Tensor, ...]:
    """Map, magnitudes, signs, rest."""
    count, unified = action.blocks(layer), action.unified(layer)
    ends = [packed_bytes(count, 1), 2 * unified, packed_bytes(unified * action.block, 1)]
    return torch.split(buffer, [*ends, buffer.numel() - sum(ends)])


def _map(buffer: Tensor, action: Unify, layer: Layer) -> Tensor:
    """Which blocks are unified, bool [rows, blocks of a row]; ActionError if they are not as many as they should."""
    where = buffer[: packed_bytes(action.blocks(layer), 1)]
    taken = unpack_bits(where, 1, action.blocks(layer)).view(torch.bool).view(layer.rows, -1)
    if readable(taken) and int(taken.sum()) != action.unified(layer):
        raise ActionError(
            f"action unify: the map marks {int(taken.sum())} blocks where {action.unified(layer)} are unified; it is "
            "damaged"
        )
    return taken


def _blocks(matrix: Tensor, action: Unify) -> Tensor:
    """A view [rows, blocks of a row, block]."""
    count = matrix.shape[1] // action.block
    return matrix[:, : count * action.block].view(matrix.shape[0], count, action.block)


def _each(taken: Tensor, action: Unify, layer: Layer) -> Tensor:
    """Which weights are in a marked block, bool [rows, columns]."""
    found = torch.zeros(layer.rows, layer.columns, dtype=torch.bool, device=taken.device)
    _blocks(found, action).copy_(taken.unsqueeze(2))
    return found


def _fit(weight: Weight, action: Unify) -> tuple[Tensor, Tensor]:
    """The best magnitude of each block and the squared error with it, float64 [rows, blocks of a row]."""
    sizes = _blocks(weight.matrix, action).abs().double()
    counts = importance(weight, action)
    weights = None if counts is None else _blocks(counts, action).double()
    if weights is None:
        magnitudes = sizes.mean(-1)
        return magnitudes, sizes.sub_(magnitudes.unsqueeze(-1)).square_().sum(-1)
    magnitudes = (weights * sizes).sum(-1) / weights.sum(-1)
    return magnitudes, sizes.sub_(magnitudes.unsqueeze(-1)).square_().mul_(weights).sum(-1)
