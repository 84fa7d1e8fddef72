"""The largest eigenpairs of a symmetric matrix that is known by its products only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

EXHAUSTED = 1e-6
"""Of the largest Ritz value: a next direction shorter than this is rounding, and the space found is invariant."""


@dataclass(frozen=True)
class Pairs:
    """Ritz pairs by falling |λ|.

    Attributes:
        values: λ [R] in float64.
        vectors: orthonormal [R, N], each with its largest entry positive.
        rest: the Ritz values that were not asked for.
        steps: products taken.
    """

    values: Tensor
    vectors: Tensor
    rest: Tensor
    steps: int


def largest(product: Callable[[int, Tensor], Tensor], start: Tensor, count: int, steps: int, tolerance: float) -> Pairs:
    """Lanczos with every new direction made orthogonal to all earlier ones, twice.

    Stops when all ``count`` pairs of largest |λ| have ‖Au − λu‖ ≤ tolerance·|λ|, when the space is exhausted, or after
    ``steps`` products. Holds ``steps`` vectors of length N in the start's dtype. Of equal eigenvalues it sees one, and
    a pair of which the start holds little may come late: more steps with tolerance 0 look further.

    Args:
        product: (step, q) to A q.
        start: any vector [N] but 0.
    """
    directions = start.new_empty(min(steps, len(start)), len(start))
    directions[0] = start / start.norm()
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        step = len(diagonal)
        known = directions[: step + 1]
        image = product(step, known[step])
        diagonal.append(float((image.double() * known[step]).sum()))
        for _ in range(2):
            image = image - known.T @ (known @ image)
        length = float(image.norm())
        small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        for i, value in enumerate(beside):
            small[i, i + 1] = small[i + 1, i] = value
        values, mixes = torch.linalg.eigh(small)
        order = values.abs().argsort(descending=True)
        top = order[:count]
        residuals = length * mixes[-1, top].abs()
        good = len(top) == count and bool((residuals <= tolerance * values[top].abs()).all())
        spent = length <= EXHAUSTED * float(values.abs().max()) or len(diagonal) == len(start)
        if good or spent or len(diagonal) == steps:
            vectors = mixes[:, top].T.to(known) @ known
            signs = vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()
            return Pairs(values[top], vectors * signs, values[order[count:]], len(diagonal))
        beside.append(length)
        directions[step + 1] = image / length
