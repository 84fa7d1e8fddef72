"""The grid that quantised values lie on, where codes are picked one by one and in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from allocator.actions import Prune, Quantize
from allocator.applier.coded_values import CodedValues


@dataclass(frozen=True)
class Grid:
    """The values that codes stand for, place by place; scale and minimum float64 of one shape, as codes and values."""

    scale: Tensor
    minimum: Tensor | None
    how: Quantize
    signs_apart: bool

    @staticmethod
    def of(coded: CodedValues, mask: Tensor, action: Prune) -> Grid:
        """Of all kept weights, in their places."""
        assert isinstance(action.values, Quantize), "only it has codes"

        def spread(numbers: Tensor) -> Tensor:
            placed = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
            placed[mask] = numbers.double()[coded.scale_of]
            return placed

        minimum = None if coded.minima is None else spread(coded.minima)
        return Grid(spread(coded.scales), minimum, action.values, action.signs == "apart")

    def at(self, rows: Tensor, columns: Tensor) -> Grid:
        """Of the weights in int64 rows [R] and columns [R, m]."""
        return self._part((rows.unsqueeze(1), columns))

    def column(self, j: int) -> Grid:
        """Of one column."""
        return self._part((slice(None), j))

    def _part(self, place: tuple[Any, Any]) -> Grid:
        return replace(self, scale=self.scale[place], minimum=None if self.minimum is None else self.minimum[place])

    def nearest(self, values: Tensor) -> Tensor:
        """The nearest values that there is a code for."""
        if self.signs_apart:
            return torch.where(values < 0, -1.0, 1.0) * self._decoded(self.codes(values))
        return self._decoded(self.codes(values))

    def codes(self, values: Tensor) -> Tensor:
        """The codes next to values, as they are stored."""
        size = values.abs() if self.signs_apart else values
        if self.how.scheme == "symmetric" and self.how.bits == 1:
            return (size >= 0).double()
        step = self.scale.masked_fill(self.scale == 0, torch.inf)
        if self.minimum is not None:
            return ((size - self.minimum) / step).round_().clamp_(0, 2**self.how.bits - 1)
        top = 2 ** (self.how.bits - 1) - 1
        return (size / step).round_().clamp_(-top, top).add_(top)

    def _decoded(self, codes: Tensor) -> Tensor:
        if self.minimum is not None:
            return self.minimum + self.scale * codes
        return self.scale * (2 * codes - 1 if self.how.bits == 1 else codes - (2 ** (self.how.bits - 1) - 1))
