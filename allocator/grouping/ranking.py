"""How much each channel of a space matters: what its readers' outputs, and so the loss, would miss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from allocator.applier.layers import Unit
from allocator.applier.statistics import LayerStatistics, Statistics
from allocator.grouping.channels import ChannelSpace


def importance(
    space: ChannelSpace, units: Mapping[str, Unit], statistics: Statistics, positions: Mapping[str, int]
) -> Tensor:
    """The energy that leaving out each channel destroys in its consumers' outputs, float64 [count].

    Σ over consumers and their rows r of positions · f_r · w_rc E[x_c x_cᵀ] w_rcᵀ, with w_rc the weights of row r that
    read channel c and x_c what they read; f_r = E[(∂L/∂y_r)²] makes outputs of different layers comparable: half of it
    all is the divergence of the channel's removal by the diagonal of the Gauss–Newton matrix at the outputs. Without
    statistics f is 1 and E[x xᵀ] the identity: squared norms of columns (arXiv 1608.08710).

    Args:
        space: whose channels.
        units: the layers, by name.
        statistics: of the consumers; those that are missing count as above.
        positions: where each layer computes an output, per sample.
    """
    total = torch.zeros(space.count, dtype=torch.float64)
    for name in space.consumers:
        unit, found = units[name], statistics.get(name, LayerStatistics())
        weight = unit.weight.detach().double().cpu().reshape(unit.layer.rows, space.count, -1)
        if found.output_fisher is not None:
            weight = weight * found.output_fisher.double().sqrt().view(-1, 1, 1)
        each = weight.shape[2]
        blocks = torch.eye(each, dtype=torch.float64).expand(space.count, -1, -1)
        if found.input_moment is not None:
            parted = found.input_moment[0].double().view(space.count, each, space.count, each)
            blocks = parted.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        total += positions.get(name, 1) * torch.einsum("rci,cij,rcj->c", weight, blocks, weight)
    return total


def most_important(values: Tensor, count: int) -> tuple[int, ...]:
    """The numbers of so many channels, rising; of equal ones the first."""
    order = values.sort(descending=True, stable=True).indices[:count]
    return tuple(sorted(order.tolist()))
