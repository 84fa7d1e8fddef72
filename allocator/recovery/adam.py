"""Adam on one vector, so plain that its state can be kept and taken up again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

DECAY, SQUARE_DECAY, EPSILON = 0.9, 0.999, 1e-8


@dataclass
class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) whose rate falls to 0 along half a cosine (arXiv 1608.03983).

    Attributes:
        vector: what is trained, float64.
        rate: of the first step, about how far a number moves in it.
        steps: after which the rate is 0.
        done: steps taken.
        begun: how many of them were taken before the running means began.
        mean: running mean of the gradient.
        square: of its square.
    """

    vector: Tensor
    rate: float
    steps: int
    done: int
    begun: int
    mean: Tensor
    square: Tensor

    @classmethod
    def begin(cls, vector: Tensor, rate: float, steps: int) -> Adam:
        """Before the first step."""
        return cls(vector.clone(), rate, steps, 0, 0, torch.zeros_like(vector), torch.zeros_like(vector))

    def back(self, vector: Tensor, rate: float) -> None:
        """Go on from another vector at another rate, as if nothing had been learnt of the gradient."""
        self.vector, self.rate, self.begun = vector.clone(), rate, self.done
        self.mean, self.square = torch.zeros_like(vector), torch.zeros_like(vector)

    def step(self, gradient: Tensor) -> None:
        """Move the vector."""
        rate = self.rate * (1 + math.cos(math.pi * self.done / self.steps)) / 2
        self.done += 1
        seen = self.done - self.begun
        self.mean.mul_(DECAY).add_(gradient, alpha=1 - DECAY)
        self.square.mul_(SQUARE_DECAY).addcmul_(gradient, gradient, value=1 - SQUARE_DECAY)
        spread = (self.square / (1 - SQUARE_DECAY**seen)).sqrt_().add_(EPSILON)
        self.vector.addcdiv_(self.mean, spread, value=-rate / (1 - DECAY**seen))
