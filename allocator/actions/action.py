"""What every kind of action can say about itself, and how its keys are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from allocator.actions.layer import Layer
from allocator.errors import ActionError

ACTIVATION_BITS = 32
"""Width of the activations that `bops` assumes unless told: weights are compressed here, activations are not."""

STATISTICS = ("input_moment", "input_mean", "output_fisher")
"""What an action may need to know of a layer beyond its weight: E[x xᵀ] and E[x] of the vectors that the weight matrix
multiplies, E[(∂L/∂y)²] of each output channel. Measured on calibration data, never stored."""


def statistics_of(action: Action) -> frozenset[str]:
    """Those of `STATISTICS` without which the action cannot be done; none unless its class says so."""
    found: frozenset[str] = getattr(action, "statistics", frozenset())
    return found


def unread_rows(action: Action) -> tuple[int, ...]:
    """Rows of the weight whose outputs nobody reads wherever this action may be taken; none unless its class says so.

    What is stored of them is without effect, so that a score of the action leaves them as they were.
    """
    found: tuple[int, ...] = getattr(action, "unread", ())
    return found


@runtime_checkable
class Action(Protocol):
    """One way to store a layer's weight: data, never code.

    All numbers are exact integers and need no weight values, so that a space of choices is costed without torch.
    """

    kind: ClassVar[str]
    usage: ClassVar[str]

    @classmethod
    def from_json(cls, action: Mapping[str, Any]) -> Action:
        """The action that a JSON object describes; ActionError names the key that is wrong."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Canonical JSON form: equal actions give equal objects, and `parse` reads it back."""
        ...

    def check(self, layer: Layer) -> None:
        """Raise ActionError when this cannot be done to a layer of this kind and shape."""
        ...

    def stored_bytes(self, layer: Layer) -> int:
        """Bytes of the layer's weight in the checkpoint: codes, scales and all; exactly what `pack` writes."""
        ...

    def macs(self, layer: Layer) -> int:
        """Multiply-accumulates per sample."""
        ...

    def bops(self, layer: Layer, activation_bits: int = ACTIVATION_BITS) -> int:
        """Bit operations per sample: macs · weight bits · activation bits."""
        ...


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


_Spec = TypeVar("_Spec", bound=_Dataclass)


def read(spec: type[_Spec], action: Mapping[str, Any]) -> _Spec:
    """Build the dataclass `spec` from the keys of `action` (without `kind`), refusing unknown and missing ones."""
    kind, usage = getattr(spec, "kind", spec.__name__), getattr(spec, "usage", "")
    fields = {f.name: f for f in dataclasses.fields(spec)}
    given = {key: value for key, value in action.items() if key != "kind"}
    for key in given:
        if key not in fields:
            raise ActionError(f"action {kind}: unknown key {key!r}; it takes {usage}")
    for key, field in fields.items():
        if key not in given and field.default is dataclasses.MISSING:
            raise ActionError(f"action {kind}: key {key!r} is missing; it takes {usage}")
    return spec(**given)


def require_one_of(kind: str, key: str, value: object, known: Collection[str]) -> None:
    """Raise ActionError unless `value` is one of the known words."""
    if not isinstance(value, str) or value not in known:
        raise ActionError(f"action {kind}: {key} must be one of {', '.join(known)}, got {value!r}")


def require_whole(kind: str, key: str, value: object, low: int, high: int | None = None) -> None:
    """Raise ActionError unless `value` is an integer with low ≤ value ≤ high."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        wanted = f"an integer ≥ {low}" if high is None else f"an integer from {low} to {high}"
        raise ActionError(f"action {kind}: {key} must be {wanted}, got {value!r}")
