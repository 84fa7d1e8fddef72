"""Replace a convolution by depthwise ones along its kernel, between two 1×1 convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from allocator.actions.action import require_one_of, require_whole
from allocator.actions.factored import Part
from allocator.actions.layer import Layer
from allocator.actions.tensor_format import TensorFormat, kernel_order
from allocator.actions.tensor_ranks import CP
from allocator.errors import ActionError

KERNELS = ("separable", "whole")


@dataclass(frozen=True, kw_only=True)
class Cp(TensorFormat):
    """Canonical polyadic decomposition: W[o, i, k_1, …] ≈ Σ_r last[o, r] · first[r, i] · Π_d core_d[r, k_d].

    By alternating least squares with a small ridge; Lebedev et al. 2015, "Speeding-up convolutional neural networks
    using fine-tuned CP-decomposition", arXiv 1412.6553.

    The layer runs as a 1×1 convolution to `rank` channels at the inputs, a depthwise one for each dimension of the
    kernel that is longer than 1, the last dimension first, each with the layer's stride, padding and dilation there,
    and a 1×1 one. With `kernel` whole the kernel counts as one dimension, and one depthwise convolution does it all:
    somewhat more numbers per rank, and less error with each.

    Attributes:
        rank: 1 to the product of all dimensions but the longest.
        kernel: separable: one vector for each of its dimensions; whole: all its numbers.

    >>> from allocator.actions import Quantize
    >>> int8 = Quantize(bits=8)
    >>> Cp(rank=16, first=int8, core=int8, last=int8).stored_bytes(Layer("conv2d", (64, 32, 3, 3)))
    1856
    """

    kind: ClassVar[str] = "cp"
    usage: ClassVar[str] = f"rank: ≥ 1, kernel: separable|whole, {TensorFormat.stored}"

    rank: int
    kernel: str = "separable"

    def __post_init__(self) -> None:
        require_whole(self.kind, "rank", self.rank, 1)
        require_one_of(self.kind, "kernel", self.kernel, KERNELS)
        super().__post_init__()

    def ranks_json(self) -> dict[str, Any]:
        """The rank, and kernel where it is whole."""
        return {"rank": self.rank} | ({} if self.kernel == "separable" else {"kernel": self.kernel})

    def shape(self, layer: Layer) -> tuple[int, ...]:
        """The weight as it is decomposed: O, I, and the dimensions of the kernel in the order in which they are run."""
        sizes = layer.weight_shape[2:]
        kernel = [math.prod(sizes)] if self.kernel == "whole" else [sizes[d] for d in kernel_order(layer)]
        return (*layer.weight_shape[:2], *kernel)

    def check_ranks(self, layer: Layer) -> None:
        """Refuse a rank beyond that at which every weight is exact."""
        (top,) = CP.most(self.shape(layer))
        if self.rank > top:
            raise ActionError(
                f"action cp: rank {self.rank} is more than the {top} with which every weight of shape "
                f"{layer.weight_shape} is exact; use at most {top}"
            )

    def parts(self, layer: Layer) -> tuple[Part, ...]:
        """first, rank × I; cores, rank × size of a dimension of the kernel; last, O × rank."""
        cores = [(self.rank, size) for size in self.shape(layer)[2:]]
        return self.laid_out(layer, self.rank, cores, self.rank)
