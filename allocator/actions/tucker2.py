"""Replace a convolution by one between fewer channels, with a 1×1 convolution before and after it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from allocator.actions.action import require_whole
from allocator.actions.factored import Part
from allocator.actions.layer import Layer
from allocator.actions.tensor_format import TensorFormat
from allocator.actions.tensor_ranks import attainable
from allocator.errors import ActionError


@dataclass(frozen=True, kw_only=True)
class Tucker2(TensorFormat):
    """Tucker-2 decomposition: W[o, i, k] ≈ Σ_pq last[o, p] · core[p, q, k] · first[q, i] of W [O, I, …kernel].

    By higher-order orthogonal iteration (De Lathauwer et al. 2000) from the leading singular vectors of both channel
    dimensions; Kim et al. 2016, "Compression of deep convolutional neural networks for fast and low power mobile
    applications", arXiv 1511.06530.

    The layer runs as three: a 1×1 convolution to `rank_in` channels at the inputs, the convolution itself between
    `rank_in` and `rank_out` channels, and a 1×1 one.

    Attributes:
        rank_out: 1 to min(O, rank_in·kernel).
        rank_in: 1 to min(I, rank_out·kernel).

    >>> from allocator.actions import Quantize
    >>> int8 = Quantize(bits=8)
    >>> Tucker2(rank_out=16, rank_in=8, first=int8, core=int8, last=int8).stored_bytes(Layer("conv2d", (64, 32, 3, 3)))
    2608
    """

    kind: ClassVar[str] = "tucker2"
    usage: ClassVar[str] = f"rank_out: ≥ 1, rank_in: ≥ 1, {TensorFormat.stored}"

    rank_out: int
    rank_in: int

    def __post_init__(self) -> None:
        require_whole(self.kind, "rank_out", self.rank_out, 1)
        require_whole(self.kind, "rank_in", self.rank_in, 1)
        super().__post_init__()

    def ranks_json(self) -> dict[str, Any]:
        """Both ranks."""
        return {"rank_out": self.rank_out, "rank_in": self.rank_in}

    def check_ranks(self, layer: Layer) -> None:
        """Refuse ranks above the channels, or above what the other rank leaves."""
        rows, columns, *kernel = layer.weight_shape
        dims, given = (rows, math.prod(kernel), columns), (self.rank_out, self.rank_in)
        top = attainable(dims, given)
        if top != given:
            raise ActionError(
                f"action tucker2: ranks {given[0]} (out) and {given[1]} (in) are more than shape {layer.weight_shape} "
                f"gives; use at most {top[0]} and {top[1]}"
            )

    def parts(self, layer: Layer) -> tuple[Part, ...]:
        """first, rank_in × I; core, rank_out × rank_in·kernel; last, O × rank_out."""
        core = (self.rank_out, self.rank_in * math.prod(layer.weight_shape[2:]))
        return self.laid_out(layer, self.rank_in, [core], self.rank_out)
