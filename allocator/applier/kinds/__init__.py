"""One file for each kind of action: how its weight is stored, comes back and runs."""

from __future__ import annotations

from collections.abc import Mapping

from allocator.actions import Action
from allocator.applier.kinds.corrected import CorrectedKind
from allocator.applier.kinds.cp import CpKind
from allocator.applier.kinds.keep import KeepKind
from allocator.applier.kinds.kind import FactoredKind, Kind
from allocator.applier.kinds.low_rank import LowRankKind
from allocator.applier.kinds.number_format import NumberFormatKind
from allocator.applier.kinds.prune import PruneKind
from allocator.applier.kinds.quantize import QuantizeKind
from allocator.applier.kinds.slim import SlimKind
from allocator.applier.kinds.tt import TtKind
from allocator.applier.kinds.tucker2 import Tucker2Kind
from allocator.applier.kinds.unify import UnifyKind
from allocator.errors import ActionError

__all__ = ["KINDS", "FactoredKind", "Kind", "kind_of"]

KINDS: Mapping[str, Kind] = {
    "corrected": CorrectedKind(),
    "cp": CpKind(),
    "keep": KeepKind(),
    "low_rank": LowRankKind(),
    "number_format": NumberFormatKind(),
    "prune": PruneKind(),
    "quantize": QuantizeKind(),
    "tt": TtKind(),
    "tucker2": Tucker2Kind(),
    "slim": SlimKind(),
    "unify": UnifyKind(),
}


def kind_of(action: Action) -> Kind:
    """The kind that does an action; ActionError if the applier has none for it."""
    found = KINDS.get(action.kind)
    if found is None:
        raise ActionError(
            f"action kind {action.kind!r} has no arithmetic in the applier; known: {', '.join(sorted(KINDS))}"
        )
    return found.of(action)
