"""Replace a convolution by a chain of convolutions, one along each dimension of its kernel, between two 1×1 ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from allocator.actions.action import require_whole
from allocator.actions.factored import Part
from allocator.actions.layer import Layer
from allocator.actions.tensor_format import TensorFormat, kernel_order
from allocator.actions.tensor_ranks import attainable, chain
from allocator.errors import ActionError


@dataclass(frozen=True, kw_only=True)
class Tt(TensorFormat):
    """Tensor train O – k_1 – … – k_n – I: a product of matrices for each entry.

    W[o, i, k_1, …, k_n] ≈ last[o, :] · core_1[:, k_1, :] ⋯ core_n[:, k_n, :] · first[:, i], by successive truncated
    singular value decompositions (Oseledets 2011, "Tensor-train decomposition", SIAM J. Sci. Comput. 33). With one
    dimension in the kernel it is Tucker-2, found in one pass.

    The layer runs as a 1×1 convolution at the inputs, one convolution for each dimension of the kernel that is longer
    than 1, the last dimension first, each with the layer's stride, padding and dilation there, and a 1×1 one.

    Attributes:
        ranks: r_1, …, r_(n+1), from the outputs to the inputs: one more than the kernel has dimensions longer than 1.

    >>> from allocator.actions import Quantize
    >>> int8 = Quantize(bits=8)
    >>> Tt(ranks=(16, 12, 8), first=int8, core=int8, last=int8).stored_bytes(Layer("conv2d", (64, 32, 3, 3)))
    2344
    """

    kind: ClassVar[str] = "tt"
    usage: ClassVar[str] = f"ranks: [≥ 1, …] from outputs to inputs, {TensorFormat.stored}"

    ranks: tuple[int, ...]

    def __post_init__(self) -> None:
        given: object = self.ranks
        if not isinstance(given, Sequence) or isinstance(given, str) or len(given) < 2:
            raise ActionError(f"action tt: ranks must be a list of two or more integers ≥ 1, got {given!r}")
        for rank in given:
            require_whole(self.kind, "each of ranks", rank, 1)
        object.__setattr__(self, "ranks", tuple(given))
        super().__post_init__()

    def ranks_json(self) -> dict[str, Any]:
        """The list."""
        return {"ranks": list(self.ranks)}

    def shape(self, layer: Layer) -> tuple[int, ...]:
        """The weight as it is decomposed: [O, I, …kernel] without dimensions of the kernel of length 1."""
        return (*layer.weight_shape[:2], *(size for size in layer.weight_shape[2:] if size > 1))

    def check_ranks(self, layer: Layer) -> None:
        """Refuse ranks that are too many or too few, or above what their neighbours leave."""
        dims = chain(self.shape(layer))
        if len(self.ranks) != len(dims) - 1:
            raise ActionError(
                f"action tt: shape {layer.weight_shape} is a chain of {', '.join(map(str, dims))}, which takes "
                f"{len(dims) - 1} ranks, got {len(self.ranks)}"
            )
        top = attainable(dims, self.ranks)
        if top != self.ranks:
            raise ActionError(
                f"action tt: ranks {list(self.ranks)} are more than shape {layer.weight_shape} gives; use at most "
                f"{list(top)}"
            )

    def parts(self, layer: Layer) -> tuple[Part, ...]:
        """first, r_(n+1) × I; cores, r_d × r_(d+1)·k_d, the last dimension of the kernel first; last, O × r_1."""
        sizes = [layer.weight_shape[2 + d] for d in kernel_order(layer)]
        ranks = self.ranks[::-1]
        cores = [(ranks[j + 1], ranks[j] * size) for j, size in enumerate(sizes)]
        return self.laid_out(layer, ranks[0], cores, ranks[-1])
