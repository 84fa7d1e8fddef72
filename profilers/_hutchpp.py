"""The trace of a small matrix from products: its large part exactly, the rest by random signs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 8
"""Directions added to the exact part, and probes of the rest, per round."""


@dataclass(frozen=True)
class Split:
    """A trace that is a sum over B pieces of data.

    Attributes:
        parts: its estimate of each piece [B].
        error: standard error of their sum that comes from the probes.
        products: how many were taken.
    """

    parts: Tensor
    error: float
    products: int


def hutchpp(
    apply: Callable[[Tensor], Tensor], size: int, budget: int, tolerance: float, generator: torch.Generator
) -> Split:
    """tr A = tr QᵀAQ + E gᵀ(I − QQᵀ) A (I − QQᵀ) g, with Q a basis of what A does to random vectors.

    Hutch++ (Meyer, Musco, Musco, Woodruff 2021, arXiv 2010.09649), grown until it is good enough: the products of one
    round's probes are, for the next, the sketch by which Q grows (as in Persson, Cortinovis, Kressner 2022), and each
    round draws fresh probes for what is left. Exact up to rounding once Q holds the range of A; a matrix of no more
    rows than the first round has products is simply gone through.

    Args:
        apply: vectors [k, size] to the products of every piece with them, [B, k, size] in float64.
        size: rows of A.
        budget: products allowed, at least 6.
        tolerance: stop when ``error`` is within this share of the trace.
        generator: of the signs, on the CPU.
    """
    block = min(BLOCK, budget // 3)
    if size <= 3 * block:
        inside = apply(torch.eye(size, dtype=torch.float64)).diagonal(dim1=1, dim2=2).sum(1)
        return Split(inside, 0.0, size)
    basis = torch.zeros(size, 0, dtype=torch.float64)
    sketch = apply(_signs(block, size, generator)).sum(0)
    inside, used = torch.zeros(1, dtype=torch.float64), block
    while True:
        grown = torch.linalg.qr(torch.cat([basis, sketch.T], 1)).Q  # orthonormal even where the sketch adds nothing
        new = grown[:, basis.shape[1] :]
        inside = inside + torch.einsum("bkn,nk->b", apply(new.T.contiguous()), new)
        basis, used = grown, used + new.shape[1]
        if basis.shape[1] == size:
            return Split(inside, 0.0, used)
        probes = _signs(block, size, generator)
        probes -= (probes @ basis) @ basis.T
        products = apply(probes)
        used += block
        rest = torch.einsum("bkn,kn->bk", products, probes)
        parts = inside + rest.mean(1)
        error = float(rest.sum(0).std()) / block**0.5
        if error <= tolerance * abs(float(parts.sum())) or used + 2 * block > budget:
            return Split(parts, error, used)
        sketch = products.sum(0)


def _signs(count: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.empty(count, size, dtype=torch.float64).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
