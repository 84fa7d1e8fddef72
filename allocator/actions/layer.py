"""The layer that an action is done to, as far as costs and feasibility depend on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from allocator.errors import ActionError

Kind = Literal["linear", "conv1d", "conv2d", "conv3d", "embedding"]


@dataclass(frozen=True)
class Layer:
    """Kind, weight shape and use of one layer.

    Every action sees the weight as a matrix of `rows` × `columns`: dimension 0 (output channels, or the rows of
    an embedding) by all others flattened in C order.

    Attributes:
        kind: what the layer computes; an embedding only looks rows up, so it has no multiply-accumulates.
        weight_shape: as torch stores it: (out, in), (out, in/groups, k), (out, in/groups, kh, kw),
            (out, in/groups, kd, kh, kw), (rows, dim).
        groups: of a grouped or depthwise convolution.
        positions: outputs computed per sample: H_out·W_out of a convolution on images, tokens of a Linear on
            sequences, lookups of an embedding.
        input_positions: places where the input has values, per sample: H_in·W_in of a convolution on images; None:
            as many as positions. What runs before a stride is done there.

    >>> Layer("conv2d", (64, 3, 3, 3), positions=1024).macs
    1769472
    """

    kind: Kind
    weight_shape: tuple[int, ...]
    groups: int = 1
    positions: int = 1
    input_positions: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ActionError(f"layer kind {self.kind!r} is unknown; known are {', '.join(get_args(Kind))}")
        if len(self.weight_shape) < 2 or min(self.weight_shape) < 1:
            raise ActionError(f"a {self.kind} weight of shape {self.weight_shape} has no rows and columns to compress")
        if self.groups < 1 or min(self.positions, self.input_positions or 0) < 0:
            raise ActionError(
                f"a layer has groups ≥ 1 and positions ≥ 0, got {self.groups}, {self.positions}, {self.input_positions}"
            )
        if self.rows % self.groups:
            raise ActionError(f"{self.rows} output channels do not part into {self.groups} groups")

    @property
    def rows(self) -> int:
        """Output channels, or the rows of an embedding."""
        return self.weight_shape[0]

    @property
    def columns(self) -> int:
        """Weights of one row."""
        return math.prod(self.weight_shape[1:])

    @property
    def weights(self) -> int:
        """Stored scalars."""
        return self.rows * self.columns

    @property
    def macs(self) -> int:
        """Multiply-accumulates per sample of the layer as it stands: weights · positions, 0 for an embedding."""
        return 0 if self.kind == "embedding" else self.weights * self.positions

    def at(self, positions: int, input_positions: int | None = None) -> Layer:
        """The same layer with its positions per sample."""
        return replace(self, positions=positions, input_positions=input_positions)
