"""Random directions on the logits whose second moment is the curvature of the divergence."""

from __future__ import annotations

import torch
from torch import Tensor


def half_hessian(logits: Tensor, mask: Tensor | None, generator: torch.Generator) -> Tensor:
    """v = √p ⊙ ε − p (√p · ε) at every position, 0 where the mask is False; [N, …positions, K] like the logits.

    With signs ε drawn independently, E[v vᵀ] = diag p − p pᵀ, the Hessian of KL(p ‖ ·) in the logits: a Rademacher
    sketch of its square root. Unlike gradients of sampled labels it has no rare, huge values.
    """
    p = torch.softmax(logits.detach(), -1)
    v = torch.empty_like(p).bernoulli_(0.5, generator=generator).mul_(2).sub_(1).mul_(p.sqrt())
    v.sub_(p.mul_(v.sum(-1, keepdim=True)))
    return v if mask is None else v.mul_(mask.unsqueeze(-1))
