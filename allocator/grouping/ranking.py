"""How much each channel of a space matters: the energy that the layers which read it would miss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from allocator.applier.layers import Unit
from allocator.applier.statistics import LayerStatistics, Statistics
from allocator.grouping.channels import ChannelSpace


def importance(space: ChannelSpace, units: Mapping[str, Unit], statistics: Statistics) -> Tensor:
    """The energy that leaving out each channel by itself destroys in its consumers' outputs, float64 [count].

    Σ over consumers and their rows r of w_rc E[x_c x_cᵀ] w_rcᵀ, with w_rc the weights of row r that read channel c and
    x_c what they read. Where the moment of a consumer's inputs is not given it is the identity: squared norms of
    columns (arXiv 1608.08710 has the rows').

    Args:
        space: whose channels.
        units: the layers, by name.
        statistics: of the consumers.
    """
    total = torch.zeros(space.count, dtype=torch.float64)
    for name in space.consumers:
        unit, moment = units[name], statistics.get(name, LayerStatistics()).input_moment
        weight = unit.weight.detach().double().cpu().reshape(unit.layer.rows, space.count, -1)
        if moment is None:
            total += weight.square().sum((0, 2))
            continue
        each = weight.shape[2]
        own = moment[0].double().view(space.count, each, space.count, each).diagonal(dim1=0, dim2=2)  # [i, j, c]
        total += torch.einsum("rci,ijc,rcj->c", weight, own, weight)
    return total


def most_important(values: Tensor, count: int) -> tuple[int, ...]:
    """The numbers of so many channels, rising; of equal ones the first."""
    order = values.sort(descending=True, stable=True).indices[:count]
    return tuple(sorted(order.tolist()))
