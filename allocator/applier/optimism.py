"""How much better a choice looks on the inputs that it was fitted to than on others."""

from __future__ import annotations

from torch import Tensor

from allocator.actions import Layer, Quantize
from allocator.applier.approximate import Approximator
from allocator.applier.moments import input_moment
from allocator.applier.statistics import LayerStatistics
from allocator.applier.weight import Weight

FITTED = Quantize(bits=4, scheme="asymmetric", method="gptq")
"""What is tried: compensated rounding, which is fitted as closely as anything."""
PLAIN = Quantize(bits=4, scheme="asymmetric")
"""The same without a fit; what it says of the two kinds of inputs is taken off."""


def optimism(weight: Tensor, layer: Layer, seen: LayerStatistics, unseen: LayerStatistics) -> float:
    """Error of `FITTED` on unseen inputs over that on seen ones, to which it is fitted; over the same ratio of `PLAIN`.

    The error is Σ_rows Δ E[x xᵀ] Δᵀ of the change Δ of the weight. About 1 where positions are many times the columns
    of the weight, 2 where they are some times the columns; without a limit where they are fewer.

    Args:
        weight: of the layer, in its own shape.
        layer: what it belongs to.
        seen: with the second moment of the inputs to fit to.
        unseen: with that of others.

    Raises:
        ActionError: a moment is missing, or of another shape.
    """
    change = {"fitted": _change(weight, layer, seen, FITTED), "plain": _change(weight, layer, seen, PLAIN)}
    error = {
        (name, place): _error(delta, weight, layer, one)
        for name, delta in change.items()
        for place, one in (("seen", seen), ("unseen", unseen))
    }
    if min(error.values()) <= 0:  # nothing to be fitted: no input, or a weight that the codes can say
        return 1.0
    ratio = {name: error[name, "unseen"] / error[name, "seen"] for name in change}
    return ratio["fitted"] / ratio["plain"]


def _change(weight: Tensor, layer: Layer, statistics: LayerStatistics, action: Quantize) -> Tensor:
    return Approximator(weight, layer, statistics).as_scored(action) - weight.detach()


def _error(change: Tensor, weight: Tensor, layer: Layer, statistics: LayerStatistics) -> float:
    moment = input_moment(Weight(weight, layer, statistics), FITTED)
    rows = change.double().reshape(layer.groups, -1, layer.columns)
    return float(((rows @ moment) * rows).sum())
