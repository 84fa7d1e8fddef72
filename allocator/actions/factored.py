"""What the actions that replace a weight by several thin ones have in common: costs, checks, their parts' actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from allocator.actions.action import ACTIVATION_BITS, statistics_of
from allocator.actions.keep import Keep
from allocator.actions.layer import Layer
from allocator.actions.number_format import NumberFormat
from allocator.actions.quantize import Quantize
from allocator.errors import ActionError

Plain: TypeAlias = Keep | Quantize | NumberFormat
"""Actions that store a matrix number by number, as the parts of a factored weight are."""

PLAIN: Mapping[str, type[Keep] | type[Quantize] | type[NumberFormat]] = {
    "keep": Keep,
    "quantize": Quantize,
    "number_format": NumberFormat,
}


@dataclass(frozen=True)
class Part:
    """One of the layers that stand in for a factored one: its key in the action, what it computes, how it is stored."""

    name: str
    layer: Layer
    action: Plain


def plain(kind: str, key: str, action: object) -> Plain:
    """The action of a part, read from its JSON object if it is one; ActionError names ``key`` otherwise."""
    named = action.get("kind") if isinstance(action, Mapping) else None
    if isinstance(action, Mapping) and isinstance(named, str) and named in PLAIN:
        action = PLAIN[named].from_json(action)
    if not isinstance(action, Plain):
        raise ActionError(f"action {kind}: {key} must be an action of kind {' or '.join(PLAIN)}, got {action!r}")
    if statistics_of(action):
        raise ActionError(
            f"action {kind}: {key} is stored by itself, and of its inputs nothing is known that {action.to_json()} "
            "needs; take another method or no weighting"
        )
    return action


class Factored(ABC):
    """An action whose weight is a product of parts, each stored by an action of its own, in the order of `parts`."""

    kind: ClassVar[str]

    @abstractmethod
    def parts(self, layer: Layer) -> tuple[Part, ...]:
        """The layers that replace it, in the order in which they are stored."""

    def check_parts(self, layer: Layer) -> None:
        """Raise ActionError, naming the part, for what a part's own action refuses."""
        for part in self.parts(layer):
            try:
                part.action.check(part.layer)
            except ActionError as error:
                raise ActionError(f"action {self.kind}: {part.name}: {error}") from error

    def stored_bytes(self, layer: Layer) -> int:
        """All parts."""
        return sum(part.action.stored_bytes(part.layer) for part in self.parts(layer))

    def macs(self, layer: Layer) -> int:
        """All parts, each at the positions where it runs."""
        return sum(part.action.macs(part.layer) for part in self.parts(layer))

    def bops(self, layer: Layer, activation_bits: int = ACTIVATION_BITS) -> int:
        """All parts, each with its own weight bits."""
        return sum(part.action.bops(part.layer, activation_bits) for part in self.parts(layer))
