"""Interactions of measured divergences: how the logit deltas of choices of different layers add up or cancel.

To second order KL(p ‖ softmax(z + Σ_g δ_g)) = ½ Var_p(Σ_g δ_g) at a position, and with v = √p ⊙ (δ − Σ p δ) that is
½ ‖Σ_g v_g‖². Over P positions the vectors have P·K entries, but only their inner products count, and N choices span
at most N directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from profilers._findings import Basis
from profilers._shards import Piece

NOTHING = 1e-12
"""Of the largest direction between choices of length 1: less is rounding."""


class Meeting:
    """Inner products of all choices' deltas, gathered over runs of batches; ``choices`` are counts per target."""

    def __init__(self, choices: Sequence[int]) -> None:
        self._choices = list(choices)
        self._products = torch.zeros((sum(choices), sum(choices)), dtype=torch.float64)
        self._count = 0
        self._weights = torch.zeros(0)
        self._waiting: list[Tensor] = []

    def positions(self, piece: Piece, sketches: int) -> None:
        """The float network's piece: what follows belongs to these positions."""
        weights = piece["top"]
        if "tail" in piece:
            weights = torch.cat([weights, piece["tail"][:, None].expand(-1, 1 + sketches)], 1)
        self._weights = weights.sqrt()
        self._count += len(weights)

    def deltas(self, place: int, delta: Tensor) -> None:
        """A target's deltas [C, P, F], the targets in order."""
        self._waiting.append((delta.float() * self._weights.float()).flatten(1))
        if place == len(self._choices) - 1:
            wide = torch.cat(self._waiting)
            for part in torch.split(wide, 1 << 16, 1):
                self._products += (part.double() @ part.double().T).cpu()
            self._waiting = []

    def basis(self, score: str) -> Basis:
        """The interactions per position: eigenvalues 1 / positions, and as many directions as the choices span."""
        size = self._products.diagonal().sqrt()
        size = torch.where(size > 0, size, 1.0)
        values, directions = torch.linalg.eigh(self._products / size[:, None] / size)
        kept = values > NOTHING * values[-1].clamp(min=NOTHING)
        vectors = directions[:, kept] * values[kept].sqrt() * size[:, None]
        eigenvalues = torch.full((int(kept.sum()),), 1 / self._count, dtype=torch.float64)
        return Basis(score, eigenvalues, list(torch.split(vectors, self._choices)))
