"""The inputs' second moment of every layer, over all calibration data."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from allocator.applier.layers import kind_of
from allocator.errors import UsageError
from profilers._calibration import batches
from profilers._patches import counts, occurrences, second_moment
from profilers._plan import Plan, Target
from profilers._project import Call
from profilers._watch import watched


def moment_bytes(target: Target) -> int:
    """Memory of one target's second moment."""
    layer = target.layer
    return 8 * (layer.rows if layer.kind == "embedding" else layer.groups * layer.columns**2)


def input_moments(plan: Plan, targets: Sequence[Target]) -> dict[Target, Tensor]:
    """E[x xᵀ] over the positions of all calibration data, padding included, in float64; one forward pass.

    [groups, columns, columns]; of an embedding the share of its lookups that each row has [rows]. Of a weight that an
    embedding shares with another layer, the other layer's inputs count.

    Raises:
        UsageError: no call of a target on any data.
    """
    sums: dict[Target, Tensor] = {}
    positions = dict.fromkeys(targets, 0)

    def seen(target: Target, call: Call, output: Tensor) -> None:
        if kind_of(call.module) != target.layer.kind:
            return
        if isinstance(call.module, nn.Embedding):
            moment = occurrences(call.module, call.inputs)
        else:
            moment = second_moment(call.module, call.inputs)
        sums[target] = sums.get(target, 0) + moment
        positions[target] += counts(call.module, call.inputs, output)

    for batch in batches(plan):
        watched(plan, targets, batch, seen)
    for target, number in positions.items():
        if not number:
            raise UsageError(
                f"layer {target.name} gets no input from the calibration data, so that nothing can be said of its "
                "second moment: give data that reaches it, or skip it with a rule of the space"
            )
    return {target: moment / positions[target] for target, moment in sums.items()}
