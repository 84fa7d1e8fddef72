"""What the applier knows about one kind of action: how it is stored, how it comes back, and how it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from allocator.actions import Action, Layer, Part
from allocator.applier.kinds.own_forward import Through
from allocator.applier.weight import Weight
from allocator.errors import UnavailableError


class Kind(ABC):
    """A kind of action whose weight is one matrix once it is unpacked; one object serves all actions of the kind.

    `store` and `restore` are each other's inverse on what an action can stand for: what `restore` makes of a buffer is
    the approximation behind every score, bit for bit. Both are deterministic and touch nothing else.

    Attributes:
        needs: the module, if any, without which `store` cannot work; `restore` works without.
    """

    needs: ClassVar[str] = ""

    def ready(self) -> None:
        """Raise UnavailableError when the library that `store` needs is not installed."""
        if self.needs and find_spec(self.needs) is None:
            raise UnavailableError(
                f"this action is worked out by '{self.needs}', which is not installed; pip install "
                "'compression-allocator[torch]'"
            )

    def of(self, action: Any) -> Kind:
        """The kind that does just this action: itself, unless it depends on an action inside."""
        return self

    def slow(self, action: Any) -> bool:
        """Whether making the stored form takes so long that it is kept where the same choice is asked for again."""
        return False

    @abstractmethod
    def store(self, weight: Weight, action: Any) -> Tensor:
        """uint8 [stored_bytes]: the stored form; the action was checked against the layer."""

    @abstractmethod
    def restore(self, buffer: Tensor, action: Any, layer: Layer) -> Tensor:
        """float32 [rows, columns], a new tensor: the weight that a buffer [stored_bytes] stands for."""

    def restore_rows(self, buffer: Tensor, action: Any, layer: Layer, index: Tensor) -> Tensor | None:
        """restore(buffer)[index] for int64 rows [n], without the others; None: the stored form has no such way."""
        return None

    def approximate(self, weight: Weight, action: Any) -> Tensor:
        """restore(store(weight)), by a shorter way where there is one; may be the weight's own matrix."""
        return self.restore(self.store(weight, action), action, weight.layer)

    def shift(self, buffer: Tensor, action: Any, layer: Layer) -> Tensor | None:
        """float32 [rows]: what is added to every output, of actions that store such numbers; None for the others."""
        return None

    def rescaled(self, buffer: Tensor, action: Any, layer: Layer, gain: Tensor) -> Tensor | None:
        """uint8 [stored_bytes]: the stored form of diag(gain) Ŵ, its numbers rounded as they are stored.

        None where there is no such form, as when rows share a scale; that depends on action and layer alone. What is
        added to the outputs (`shift`) stays. ``gain``: floating point [rows]; ones give the same bytes.
        """
        return None


class FactoredKind(Kind):
    """A kind whose weight stays a product of parts, which run as layers one after the other.

    Attributes:
        whole_too: embeddings, and layers with a forward of their own, run on the product, as on any weight; otherwise
            it is only done to layers through which a part can run.
    """

    whole_too: ClassVar[bool] = False

    def slow(self, action: Any) -> bool:
        """Most are found by a decomposition."""
        return True

    def planned(self, action: Any, layer: Layer) -> tuple[Part, ...]:
        """The parts as the action lays them out."""
        found: tuple[Part, ...] = action.parts(layer)
        return found

    def row_part(self, action: Any) -> int | None:
        """Place among `parts` of the one whose rows are the weight's, where a gain per row can go; −1 is the last.

        None where there is none.
        """
        return None

    def through(self, action: Any) -> Through:
        """What a forward of the layer class's own must let a kernel change, so that the layer can run part by part."""
        return "none"

    def before(self, action: Any) -> int:
        """Bytes that are stored before the parts."""
        return 0

    @abstractmethod
    def factors(self, weight: Weight, action: Any) -> Sequence[Tensor]:
        """The parts before their own actions, float32 [rows, columns] of each part's layer, in the order of `parts`."""

    @abstractmethod
    def product(self, parts: Sequence[Tensor], action: Any, layer: Layer) -> Tensor:
        """float32 [rows, columns]: the weight that the parts make together."""

    @abstractmethod
    def run(
        self, module: nn.Module, x: Tensor, parts: Sequence[Tensor], action: Any, layer: Layer, bias: Tensor | None
    ) -> Tensor:
        """What the layer gives for x, run part by part."""

    def store(self, weight: Weight, action: Any) -> Tensor:
        """All parts' buffers, one behind the other."""
        from allocator.applier.kinds import kind_of

        found = zip(self.planned(action, weight.layer), self.factors(weight, action), strict=True)
        return torch.cat([kind_of(part.action).store(Weight(f, part.layer), part.action) for part, f in found])

    def parts(self, buffer: Tensor, action: Any, layer: Layer) -> tuple[Tensor, ...]:
        """The parts as they are stored, float32 [rows, columns] of each part's layer."""
        from allocator.applier.kinds import kind_of

        found, at = [], self.before(action)
        for part in self.planned(action, layer):
            length = part.action.stored_bytes(part.layer)
            found.append(kind_of(part.action).restore(buffer[at : at + length], part.action, part.layer))
            at += length
        return tuple(found)

    def restore(self, buffer: Tensor, action: Any, layer: Layer) -> Tensor:
        """The product of the parts."""
        return self.product(self.parts(buffer, action, layer), action, layer)

    def rescaled(self, buffer: Tensor, action: Any, layer: Layer, gain: Tensor) -> Tensor | None:
        """With `row_part` in its own rescaled form."""
        from allocator.applier.kinds import kind_of

        place = self.row_part(action)
        if place is None:
            return None
        parts = self.planned(action, layer)
        at = self.before(action) + sum(part.action.stored_bytes(part.layer) for part in parts[:place])
        end = at + parts[place].action.stored_bytes(parts[place].layer)
        made = kind_of(parts[place].action).rescaled(buffer[at:end], parts[place].action, parts[place].layer, gain)
        return None if made is None else torch.cat([buffer[:at], made, buffer[end:]])


def stored(weight: Weight, action: Action) -> Tensor:
    """The stored form of an action on a weight, made once where that takes long; to be read only."""
    from allocator.applier.kinds import kind_of

    kind = kind_of(action)
    if not kind.slow(action):
        return kind.store(weight, action)
    return weight.remember(memory_key(action), lambda: kind.store(weight, action))


def memory_key(action: Action) -> object:
    """Under which a weight remembers its stored form."""
    return "stored", repr(action)


def as_bytes(numbers: Tensor) -> Tensor:
    """Numbers as uint8, little-endian."""
    return numbers.contiguous().view(-1).view(torch.uint8)


def as_numbers(buffer: Tensor, dtype: torch.dtype) -> Tensor:
    """The other way round."""
    # A slice may start at an odd byte, where a view in another dtype is refused; the copy is aligned.
    return buffer.clone().view(dtype)
