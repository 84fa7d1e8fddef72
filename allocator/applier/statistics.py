"""What was measured of a layer's inputs and outputs, for the actions that make their errors small where it counts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TypeAlias

from torch import Tensor

from allocator.actions import Action, statistics_of
from allocator.errors import ActionError


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """Means over the positions of all calibration data; None is what was not asked for.

    Attributes:
        input_moment: E[x xᵀ] [groups, columns, columns], float32, of the vectors that the weight matrix multiplies.
        input_mean: E[x] [groups, columns], float32.
        output_fisher: E[(∂L/∂y)²] [rows], float32, of the outputs y, L = v·logits for directions v with E[v vᵀ] the
            Hessian of the divergence: the diagonal of the Gauss–Newton matrix at y, from one sketch.
    """

    input_moment: Tensor | None = None
    input_mean: Tensor | None = None
    output_fisher: Tensor | None = None


Statistics: TypeAlias = Mapping[str, LayerStatistics]
"""By the name of a stored weight, `Unit.name`."""


def require(statistics: LayerStatistics | None, name: str, action: Action) -> Tensor:
    """One of the statistics; ActionError if it is not there."""
    found: Tensor | None = getattr(statistics, name, None)
    if found is None:
        raise ActionError(
            f"action {action.kind}: this is done by the layer's {name.replace('_', ' ')}, which was not given; measure "
            "it with allocator.layer_statistics(workload, solution) and hand it on as statistics="
        )
    return found


def digest(statistics: Mapping[str, LayerStatistics | None]) -> str:
    """sha256 over names and numbers: what was fitted to them is the same if they are."""
    found = hashlib.sha256()
    for name, one in sorted(statistics.items()):
        for part in () if one is None else fields(one):
            numbers = getattr(one, part.name)
            if numbers is not None:
                found.update(f"{name} {part.name} {tuple(numbers.shape)}".encode())
                found.update(numbers.detach().cpu().contiguous().numpy())
    return found.hexdigest()


def needed(actions: Iterable[Action]) -> frozenset[str]:
    """Everything that some actions need to know."""
    return frozenset[str]().union(*map(statistics_of, actions))
