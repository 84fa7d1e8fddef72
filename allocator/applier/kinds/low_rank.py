"""`low_rank`: two thin factors out of a singular value decomposition, run as two layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from allocator.actions import Layer, LowRank
from allocator.applier.kinds.kind import FactoredKind
from allocator.applier.kinds.own_forward import Through, convolve
from allocator.applier.kinds.stepping import pointwise
from allocator.applier.kinds.whitening import whitening
from allocator.applier.weight import Weight


class LowRankKind(FactoredKind):
    """See `LowRank`; the decomposition is float64, and is taken once for all ranks of a weight."""

    def factors(self, weight: Weight, action: LowRank) -> tuple[Tensor, Tensor]:
        """P⁻¹ U_r √S_r [rows, r] and √S_r V_rᵀ Q⁻¹ [groups·r, columns], before their own actions.

        Each column of U has its largest entry positive, so that LAPACK's choice of sign does not show.
        """
        left, right = weight.remember(("low_rank", action.weighting), lambda: _decomposed(weight, action))
        kept = list(range(action.rank)) if action.components is None else list(action.components)
        return left[..., kept].flatten(0, 1).contiguous(), right[:, kept].flatten(0, 1).contiguous()

    def row_part(self, action: LowRank) -> int:
        """left."""
        return 0

    def through(self, action: LowRank) -> Through:
        """right has fewer outputs."""
        return "outputs"

    def product(self, parts: Sequence[Tensor], action: LowRank, layer: Layer) -> Tensor:
        """left · right, group by group."""
        left, right = parts
        if layer.groups == 1:
            return left @ right
        blocks = left.view(layer.groups, -1, action.rank) @ right.view(layer.groups, action.rank, -1)
        return blocks.flatten(0, 1)

    def run(
        self, module: nn.Module, x: Tensor, parts: Sequence[Tensor], action: LowRank, layer: Layer, bias: Tensor | None
    ) -> Tensor:
        """right, then left."""
        left, right = parts
        if isinstance(module, nn.Embedding):
            return functional.linear(functional.embedding(x, left, module.padding_idx), right.t())
        y = convolve(module, x, right.view(-1, *layer.weight_shape[1:]))
        if isinstance(module, nn.Linear):
            return functional.linear(y, left, bias)
        return pointwise(y, left, bias, layer)


def _decomposed(weight: Weight, action: LowRank) -> tuple[Tensor, Tensor]:
    """left [groups, rows/groups, full rank] and right [groups, full rank, columns], float32."""
    blocks = weight.matrix.double().view(weight.layer.groups, -1, weight.layer.columns)
    ways = whitening(weight, action)
    u, s, vt = torch.linalg.svd(blocks if ways is None else ways.onto(blocks), full_matrices=False)
    largest = u.gather(1, u.abs().argmax(1, keepdim=True))
    root = s.sqrt().unsqueeze(1) * torch.where(largest < 0, -1.0, 1.0)
    left, right = u * root, root.transpose(1, 2) * vt
    if ways is not None:
        left, right = ways.back(left, right)
    return left.to(torch.float32), right.to(torch.float32)
