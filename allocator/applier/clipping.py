"""Where to clip weights that are spread like a Gaussian or a Laplace distribution, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

LAPLACE_BELOW = math.sqrt(math.pi / (2 * math.e))
"""Mean absolute deviation over standard deviation below which a Laplace distribution is the likelier one: its largest
log-likelihood per number is −log 2b − 1, a Gaussian's −½ log 2πσ² − ½. Laplace has .707, Gauss .798; this is .760."""


@lru_cache
def gaussian(steps: int) -> float:
    """α/σ: where to clip N(0, σ²) for a grid of that many steps over [−α, α].

    Banner et al. 2018 (arXiv 1810.05723, section 3): the squared error is what is cut off, 2 ∫_α^∞ (x−α)² p(x) dx, and
    step²/12 inside. They take 2^bits cells of 2α/2^bits; here a step is 2α/steps, as `Quantize` has it.
    """

    def slope(x: float) -> float:
        cut = x * math.erfc(x / math.sqrt(2)) - math.sqrt(2 / math.pi) * math.exp(-x * x / 2)
        return cut + x / (3 * steps**2)

    return _root(slope)


@lru_cache
def laplace(steps: int) -> float:
    """α/b of a Laplace distribution of mean absolute value b, likewise."""
    return _root(lambda x: x / (3 * steps**2) - math.exp(-x))


def _root(slope: Callable[[float], float]) -> float:
    """Where a slope that starts below 0 has risen to it."""
    low, high = 0.0, 64.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return high


def reach(block: Tensor, centre: Tensor, steps: int) -> Tensor:
    """float64 [·, groups]: α of the likelier distribution about a centre, for blocks [·, groups, size]."""
    apart = block.double() - centre.unsqueeze(-1)
    mean = apart.abs().mean(-1)
    deviation = apart.square_().mean(-1).sqrt_()
    return torch.where(mean < LAPLACE_BELOW * deviation, laplace(steps) * mean, gaussian(steps) * deviation)
