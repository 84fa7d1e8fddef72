"""The grid that quantised values lie on, where codes are picked one by one and in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from allocator.actions import Quantize
from allocator.applier.coded_values import CodedValues


@dataclass(frozen=True)
class Grid:
    """The values that codes stand for, place by place; scale and minimum float64 of one shape, as codes and values."""

    scale: Tensor
    minimum: Tensor | None
    how: Quantize

    @staticmethod
    def of(coded: CodedValues, mask: Tensor, how: Quantize) -> Grid:
        """Of all kept weights, in their places."""

        def spread(numbers: Tensor) -> Tensor:
            placed = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
            placed[mask] = numbers.double()[coded.scale_of]
            return placed

        return Grid(spread(coded.scales), None if coded.minima is None else spread(coded.minima), how)

    def at(self, rows: Tensor, columns: Tensor) -> Grid:
        """Of the weights in int64 rows [R] and columns [R, m]."""
        place = rows.unsqueeze(1), columns
        return Grid(self.scale[place], None if self.minimum is None else self.minimum[place], self.how)

    def column(self, j: int) -> Grid:
        """Of one column."""
        return Grid(self.scale[:, j], None if self.minimum is None else self.minimum[:, j], self.how)

    def codes(self, values: Tensor) -> Tensor:
        """The nearest codes, unsigned as they are stored."""
        if self.how.scheme == "symmetric" and self.how.bits == 1:
            return (values >= 0).double()
        step = self.scale.masked_fill(self.scale == 0, torch.inf)
        if self.minimum is not None:
            return ((values - self.minimum) / step).round_().clamp_(0, 2**self.how.bits - 1)
        top = 2 ** (self.how.bits - 1) - 1
        return (values / step).round_().clamp_(-top, top).add_(top)

    def values(self, codes: Tensor) -> Tensor:
        """What codes stand for."""
        if self.minimum is not None:
            return self.minimum + self.scale * codes
        return self.scale * (2 * codes - 1 if self.how.bits == 1 else codes - (2 ** (self.how.bits - 1) - 1))
