"""By what an action weighs the error of a weight: not at all, by the inputs that it meets, by the outputs too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from allocator.actions.action import require_one_of
from allocator.actions.layer import Layer
from allocator.errors import ActionError

NEEDS: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "input": frozenset({"input_moment"}),
    "fisher": frozenset({"input_moment", "output_fisher"}),
}
"""What must be known of the layer beyond its weight, see `allocator.actions.action.STATISTICS`."""
INPUT = ("none", "input")


def require_weighting(kind: str, value: object, known: Sequence[str] = INPUT) -> None:
    """Raise ActionError unless it is a weighting that this kind of action knows."""
    require_one_of(kind, "weighting", value, known)


def refuse_lookup(kind: str, weighting: str, layer: Layer) -> None:
    """Raise ActionError where errors shall be weighted by the inputs of an embedding."""
    if weighting != "none" and layer.kind == "embedding":
        raise ActionError(
            f"action {kind}: an embedding looks rows up, so that no inputs weight its columns; leave weighting out"
        )
