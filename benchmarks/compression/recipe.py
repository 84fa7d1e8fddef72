"""How a network is trained, as data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from allocator.demos import fashion_resnet34, fashion_resnext


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Stochastic gradient descent with Nesterov's momentum, weight decay on all parameters, and a cosine rate.

    make: the untrained network. epochs: passes over the training pictures. rate: the highest. decay: of weights.
    warm: epochs in which the rate rises. Labels are not smoothed.
    """

    make: Callable[[], nn.Module]
    epochs: int
    rate: float
    decay: float
    batch: int
    momentum: float = 0.9
    warm: int = 1
    seed: int = 0

    def rate_at(self, epoch: float) -> float:
        """rate · min(1, epoch / warm) · ½ (1 + cos(π · epoch / epochs)); epoch: passes done, with their fraction."""
        rise = min(1.0, epoch / self.warm) if self.warm else 1.0
        return self.rate * rise * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


# The ResNeXt is there to be compressed by rank: a high rate, small batches and the larger of the two usual decays all
# make weights of lower rank (Galanti et al. 2022, arXiv 2206.05794).
RECIPES = {
    fashion_resnet34.NAME: Recipe(make=fashion_resnet34.Resnet34, epochs=40, rate=0.1, decay=5e-4, batch=128),
    fashion_resnext.NAME: Recipe(make=fashion_resnext.Resnext, epochs=16, rate=0.3, decay=1e-3, batch=64),
}
