"""Actions: the ways to store a layer's weight, as data with exact costs. numpy-free, torch-free, never evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from allocator.actions.action import ACTIVATION_BITS, STATISTICS, Action, statistics_of, unread_rows
from allocator.actions.corrected import Corrected
from allocator.actions.cp import Cp
from allocator.actions.factored import Factored, Part, Plain
from allocator.actions.keep import Keep
from allocator.actions.layer import Layer
from allocator.actions.low_rank import LowRank
from allocator.actions.number_format import NumberFormat
from allocator.actions.prune import Prune
from allocator.actions.quantize import Quantize
from allocator.actions.slim import Kept, Slim
from allocator.actions.tensor_format import TensorFormat
from allocator.actions.tt import Tt
from allocator.actions.tucker2 import Tucker2
from allocator.actions.unify import Unify
from allocator.errors import ActionError

__all__ = [
    "ACTIVATION_BITS",
    "STATISTICS",
    "Action",
    "Corrected",
    "Cp",
    "Factored",
    "Keep",
    "Kept",
    "Layer",
    "LowRank",
    "NumberFormat",
    "Part",
    "Plain",
    "Prune",
    "Quantize",
    "Slim",
    "TensorFormat",
    "Tt",
    "Tucker2",
    "Unify",
    "parse",
    "statistics_of",
    "unread_rows",
]

ENTRY_POINTS = "allocator.actions"
KINDS: Mapping[str, type[Action]] = {
    spec.kind: spec for spec in (Corrected, Cp, Keep, LowRank, NumberFormat, Prune, Quantize, Slim, Tt, Tucker2, Unify)
}


def parse(action: Mapping[str, Any] | Action) -> Action:
    """The action that a JSON object `{"kind": …}` describes; an Action passes through.

    Our own kinds are found at once; any other through the entry points `allocator.actions`.

    Raises:
        ActionError: no kind, an unknown kind (the text lists the known), an unknown key, a wrong value.

    >>> parse({"kind": "quantize", "bits": 4}).to_json()["granularity"]
    'channel'
    """
    if not isinstance(action, Mapping) and isinstance(action, Action):  # the protocol last: looking it up is slow
        return action
    kind = action.get("kind") if isinstance(action, Mapping) else None
    if not isinstance(kind, str):
        raise ActionError(f'an action is an object with a "kind", got {action!r}')
    return (KINDS.get(kind) or _third_party(kind)).from_json(action)


def _third_party(kind: str) -> type[Action]:
    found = metadata.entry_points(group=ENTRY_POINTS)
    if kind not in found.names:
        raise ActionError(f"action kind {kind!r} is unknown; known are {', '.join(sorted({*KINDS, *found.names}))}")
    try:
        spec = found[kind].load()
    except Exception as error:  # whatever a third party's import raises, it is this kind that is unavailable
        raise ActionError(f"action kind {kind!r} is unavailable, because {error!r}") from error
    if not isinstance(spec, type) or not hasattr(spec, "from_json"):
        raise ActionError(f"action kind {kind!r} is unavailable, because {found[kind].value} is no Action class")
    return spec
