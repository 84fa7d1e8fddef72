"""Bases in which the error that counts is the plain squared one, for weighted singular value decompositions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from allocator.actions import LowRank
from allocator.applier.statistics import require
from allocator.applier.weight import Weight

SMALLEST = 1e-8
"""Least weight of a direction, relative to the mean one: directions that the data never showed still count a little."""


@dataclass(frozen=True, eq=False)
class Whitening:
    """W ↦ P W Q and back; ``rows`` is the diagonal of P [groups, rows/groups], Q and Q⁻¹ [groups, columns, columns]."""

    rows: Tensor | None
    columns: Tensor
    inverse: Tensor

    def onto(self, blocks: Tensor) -> Tensor:
        """P W Q of blocks [groups, rows/groups, columns]."""
        moved = blocks @ self.columns
        return moved if self.rows is None else self.rows.unsqueeze(2) * moved

    def back(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """P⁻¹ left and right Q⁻¹."""
        return left if self.rows is None else left / self.rows.unsqueeze(2), right @ self.inverse


def whitening(weight: Weight, action: LowRank) -> Whitening | None:
    """What an action's weighting asks for: None for none; Q is symmetric, the root of the inputs' second moment.

    Raises:
        ActionError: the statistics that it is made of were not measured.
    """
    if action.weighting == "none":
        return None
    moment = require(weight.statistics, "input_moment", action).double()
    values, vectors = torch.linalg.eigh((moment + moment.transpose(1, 2)) / 2)
    floor = SMALLEST * values.mean(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    roots = values.clamp_min(floor).sqrt()
    columns = (vectors * roots.unsqueeze(1)) @ vectors.transpose(1, 2)
    inverse = (vectors / roots.unsqueeze(1)) @ vectors.transpose(1, 2)
    if action.weighting == "input":
        return Whitening(None, columns, inverse)
    fisher = require(weight.statistics, "output_fisher", action).double().view(weight.layer.groups, -1)
    least = SMALLEST * fisher.mean().clamp_min(torch.finfo(torch.float64).tiny)
    return Whitening(fisher.clamp_min(least).sqrt(), columns, inverse)
