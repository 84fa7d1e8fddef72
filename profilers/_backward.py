"""What one backward pass says about every choice, gathered while it passes the layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from profilers._plan import Target
from profilers._project import Call, gradients_by_sample, projections


@dataclass(eq=False)
class Changes:
    """Δ of every choice that changes its weight, kept between passes as far as ``cache_bytes`` allows."""

    cache_bytes: int
    _places: dict[Target, list[int]] = field(default_factory=dict)
    _kept: dict[Target, Tensor] = field(default_factory=dict)

    def places(self, target: Target) -> list[int]:
        """Where in the menu these choices stand."""
        if target not in self._places:
            self.of(target)
        return self._places[target]

    def of(self, target: Target) -> Tensor:
        """Δ [C, *weight.shape], parallel to `places`."""
        if target in self._kept:
            return self._kept[target]
        found = list(target.changes())
        self._places[target] = [place for place, _ in found]
        changes = torch.stack([delta for _, delta in found]) if found else target.unit.weight.new_empty(0)
        if changes.nbytes <= self.cache_bytes:
            self.cache_bytes -= changes.nbytes
            self._kept[target] = changes
        return changes


@dataclass(eq=False)
class Backward:
    """Sums over one backward pass; N samples.

    Attributes:
        changes: where Δ comes from.
        calls: how often each target ran.
        positions: of each sample [N].
        diagonal: also gather Σ_ij g_ij² Δ_ij²; then gradients of several calls must be added before they are squared.
    """

    changes: Changes
    calls: Mapping[Target, int]
    positions: Tensor
    diagonal: bool
    _projected: dict[Target, Tensor] = field(default_factory=dict)
    _energies: dict[Target, Tensor] = field(default_factory=dict)
    _gradients: dict[Target, Tensor] = field(default_factory=dict)

    def projection(self, target: Target) -> Tensor:
        """u = ⟨g_n, Δ_c⟩ [N, C] in float64."""
        return self._projected.get(target, self._nothing(target))

    def energy(self, target: Target) -> Tensor:
        """Σ_ij g_n,ij² Δ_c,ij² [N, C] in float64; zero unless ``diagonal``."""
        return self._energies.get(target, self._nothing(target))

    def arrive(self, target: Target, call: Call, cotangent: Tensor) -> None:
        """Take in the gradient of one call's output."""
        if not self.changes.places(target):
            return
        samples = len(self.positions)
        if not self.diagonal:
            projected = projections(call, cotangent, samples, self.changes.of(target))
            self._projected[target] = self._projected.get(target, 0) + projected.double()
        elif self.calls[target] == 1:
            self._square(target, gradients_by_sample(call, cotangent, samples))
        else:
            gradients = torch.cat(list(gradients_by_sample(call, cotangent, samples)))
            self._gradients[target] = self._gradients.get(target, 0) + gradients

    def finish(self) -> None:
        """Square the gradients that came in several parts."""
        for target, gradients in self._gradients.items():
            self._square(target, iter([gradients]))
        self._gradients.clear()

    def _square(self, target: Target, parts: Iterator[Tensor]) -> None:
        changes = self.changes.of(target).flatten(1).T
        squares = changes.square()
        rows = [(g @ changes, g.square() @ squares) for g in (part.flatten(1) for part in parts)]
        self._projected[target] = torch.cat([u for u, _ in rows]).double()
        self._energies[target] = torch.cat([s for _, s in rows]).double()

    def _nothing(self, target: Target) -> Tensor:
        shape = len(self.positions), len(self.changes.places(target))
        return torch.zeros(shape, dtype=torch.float64, device=target.unit.weight.device)
