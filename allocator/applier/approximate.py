"""What a weight becomes under an action, in its own shape and dtype: the Δ behind every score."""

from __future__ import annotations

import torch
from torch import Tensor

from allocator.actions import Action, Layer, unread_rows
from allocator.applier.kinds import FactoredKind, Kind, kind_of
from allocator.applier.kinds.kind import memory_key, stored
from allocator.applier.statistics import LayerStatistics
from allocator.applier.weight import Weight
from allocator.errors import ActionError


def approximate(weight: Tensor, action: Action, layer: Layer, statistics: LayerStatistics | None = None) -> Tensor:
    """The weight that the stored form of `action` stands for: a new tensor, detached, of weight's shape and dtype.

    Deterministic and free of side effects. Arithmetic is float32 (a float64 weight is rounded first); decompositions
    are float64. `unpack(pack(weight, action, layer), …)` gives the same bits.

    Raises:
        ActionError: the action cannot be done to this layer or lacks statistics of it, the weight's shape is not the
            layer's, the weight is not finite, or the action's kind has no arithmetic here.
    """
    return Approximator(weight, layer, statistics).approximate(action)


class Approximator:
    """One weight under many actions; what takes long, an SVD or a rounding with compensation, is done once.

    The weight is read when this is made and must not change afterwards.

    Args:
        weight: of the layer's shape, floating point; never written to.
        layer: what it belongs to.
        statistics: of the layer, for the actions that need them.
    """

    def __init__(self, weight: Tensor, layer: Layer, statistics: LayerStatistics | None = None) -> None:
        self.layer = layer
        self._shape, self._dtype = weight.shape, weight.dtype
        self._weight = Weight(weight, layer, statistics)

    @property
    def worth_keeping(self) -> bool:
        """Whether something was worked out that a later call can use."""
        return bool(self._weight.memory)

    def approximate(self, action: Action) -> Tensor:
        """See `allocator.applier.approximate`."""
        action.check(self.layer)
        kind = kind_of(action)
        if kind.slow(action):
            matrix = kind.restore(stored(self._weight, action), action, self.layer)
        else:
            matrix = kind.approximate(self._weight, action)
        if matrix.data_ptr() == self._weight.matrix.data_ptr():
            matrix = matrix.clone()
        return matrix.reshape(self._shape).to(self._dtype)

    def as_scored(self, action: Action) -> Tensor:
        """The same, but rows that nobody reads (`unread_rows`) are as they were: they change no output of the network.

        So a score is that of what is read, whether or not the other choices that the rows depend on are taken too.
        """
        made, unread = self.approximate(action), unread_rows(action)
        if unread:
            where = torch.tensor(unread, device=made.device)
            made[where] = self._weight.matrix.view(self._shape)[where].to(self._dtype)
        return made

    def shift(self, action: Action) -> Tensor | None:
        """float32 [rows]: what the action adds to every output of the layer; None for most."""
        action.check(self.layer)
        kind = kind_of(action)
        if type(kind).shift is Kind.shift:
            return None  # without making the stored form for nothing
        return kind.shift(stored(self._weight, action), action, self.layer)

    def slow(self, action: Action) -> bool:
        """Whether the stored form takes so long to make that it is kept."""
        return kind_of(action).slow(action)

    def give(self, action: Action, buffer: Tensor) -> None:
        """The stored form of a slow action, as `pack` made it elsewhere; it will not be made again."""
        require_size(buffer, action, self.layer)
        self._weight.memory[memory_key(action)] = buffer

    def pack(self, action: Action) -> Tensor:
        """uint8 [stored_bytes], see `allocator.applier.pack`."""
        action.check(self.layer)
        return stored(self._weight, action).clone()

    def parts(self, action: Action) -> dict[str, Tensor]:
        """The parts of a factored weight as they are stored, float32, by the names that the action gives them."""
        action.check(self.layer)
        kind = kind_of(action)
        if not isinstance(kind, FactoredKind):
            raise ActionError(f"action {action.kind}: its weight is one matrix and has no parts")
        names = [part.name for part in kind.planned(action, self.layer)]
        return dict(zip(names, kind.parts(stored(self._weight, action), action, self.layer), strict=True))


def require_size(buffer: Tensor, action: Action, layer: Layer) -> None:
    """Raise ActionError unless a buffer can be the stored form of an action on a layer."""
    need = action.stored_bytes(layer)
    if buffer.dtype != torch.uint8 or buffer.shape != (need,):
        raise ActionError(
            f"{action.kind} of a {layer.kind} of shape {layer.weight_shape} is stored as uint8 [{need}], "
            f"not {buffer.dtype} {list(buffer.shape)}; the buffer belongs to another action or layer"
        )
