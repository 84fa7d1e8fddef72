"""The stored form of a weight: one buffer of exactly `stored_bytes` bytes, and back, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Action, Layer
from allocator.applier.approximate import Approximator, require_size
from allocator.applier.kinds import FactoredKind, kind_of
from allocator.applier.statistics import LayerStatistics
from allocator.errors import ActionError


def pack(weight: Tensor, action: Action, layer: Layer, statistics: LayerStatistics | None = None) -> Tensor:
    """uint8 [stored_bytes]: for `quantize` codes, scales, minima; for `keep` the numbers; for others see their kinds.

    Numbers are little-endian. Equal inputs give equal bytes.

    Raises:
        ActionError: as `approximate`.
    """
    return Approximator(weight, layer, statistics).pack(action)


def unpack(buffer: Tensor, action: Action, layer: Layer, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weight that a packed buffer stands for; equal bit for bit to `approximate` of the weight it came from.

    Raises:
        ActionError: the buffer is not uint8 [stored_bytes].
    """
    require_size(buffer, action, layer)
    return kind_of(action).restore(buffer, action, layer).reshape(layer.weight_shape).to(dtype)


def unpack_rows(
    buffer: Tensor, action: Action, layer: Layer, index: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor | None:
    """Rows of the weight [n, columns]: unpack(…)[index] for int64 [n] within its rows, without unpacking the others.

    None where the stored form has no way to them but through the whole weight; ActionError as `unpack`.
    """
    require_size(buffer, action, layer)
    found = kind_of(action).restore_rows(buffer, action, layer, index)
    return None if found is None else found.to(dtype)


def unpack_parts(
    buffer: Tensor, action: Action, layer: Layer, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """The parts of a packed, factored weight, [rows, columns] of each part's layer; ActionError as `unpack`."""
    require_size(buffer, action, layer)
    kind = kind_of(action)
    if not isinstance(kind, FactoredKind):
        raise ActionError(f"action {action.kind}: its weight is one matrix and has no parts")
    return tuple(part.to(dtype) for part in kind.parts(buffer, action, layer))


def rescale(buffer: Tensor, action: Action, layer: Layer, gain: Tensor) -> Tensor | None:
    """The stored form of a packed weight whose rows are multiplied by gain [rows]; None where it has none.

    It takes as many bytes. Scales, or the numbers themselves, are rounded, so that it stands for diag(gain) Ŵ nearly.

    Raises:
        ActionError: the buffer is not uint8 [stored_bytes].
    """
    require_size(buffer, action, layer)
    return kind_of(action).rescaled(buffer, action, layer, gain)


def unpack_shift(buffer: Tensor, action: Action, layer: Layer, dtype: torch.dtype) -> Tensor | None:
    """What a packed weight's action adds to every output [rows]; None for most kinds."""
    shift = kind_of(action).shift(buffer, action, layer)
    return None if shift is None else shift.to(dtype)
