"""What one backward pass says about every choice, gathered while it passes the layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from profilers._outputs import Outputs
from profilers._plan import Target
from profilers._project import Call, by_feature_and_sample, by_gradients, by_gradients_is_cheaper, gradients_by_sample

Diagonal: TypeAlias = Literal["all", "some", "none"]


@dataclass(eq=False)
class Changes:
    """Δ of every choice that changes its weight, kept between passes as far as ``cache_bytes`` allows."""

    cache_bytes: int
    _places: dict[Target, list[int]] = field(default_factory=dict)
    _kept: dict[Target, Tensor] = field(default_factory=dict)
    _lengths: dict[Target, list[float]] = field(default_factory=dict)
    _shifts: dict[Target, Tensor | None] = field(default_factory=dict)

    def shifts(self, target: Target) -> Tensor | None:
        """What the choices add to outputs beside their weights [C, rows], parallel to `places`; None if none does."""
        if target not in self._shifts:
            found = [target.shift(place) for place in self.places(target)]
            rows = target.unit.weight.new_zeros(target.layer.rows)
            some = any(shift is not None for shift in found)
            self._shifts[target] = torch.stack([rows if s is None else s.to(rows) for s in found]) if some else None
        return self._shifts[target]

    def lengths(self, target: Target) -> list[float]:
        """‖Δ‖, parallel to `places`."""
        if target not in self._lengths:
            self.of(target)
        return self._lengths[target]

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
        self._lengths[target] = changes.flatten(1).norm(dim=1, dtype=torch.float64).tolist() if found else []
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
        diagonal: gather Σ_ij g_ij² Δ_ij²: of ``all`` targets, whatever it costs (gradients of several calls must be
            added before they are squared), or ``some``, those whose gradients are at hand, or ``none``.
        outputs: of changed layers, shared with other passes over the same data, the last of which completes them all.
    """

    changes: Changes
    calls: Mapping[Target, int]
    positions: Tensor
    diagonal: Diagonal
    outputs: Outputs = field(default_factory=Outputs)
    _features: dict[Target, dict[int, Tensor]] = field(default_factory=dict)
    _energies: dict[Target, Tensor] = field(default_factory=dict)
    _gradients: dict[Target, Tensor] = field(default_factory=dict)

    def projection(self, target: Target) -> Tensor:
        """u = ⟨g_n, Δ_c⟩ [N, C] in float64."""
        return self._nothing(target) + sum(part.double().sum(1) for part in self._features.get(target, {}).values())

    def rows(self, target: Target) -> Tensor:
        """Σ_f u_f² [N, C] in float64, u_f the part of u from output feature f: as if features had nothing in common.

        A tied weight that looks up and multiplies has two kinds of features, whose squares add.
        """
        parts = self._features.get(target, {}).values()
        return self._nothing(target) + sum(part.double().square().sum(1) for part in parts)

    def energy(self, target: Target) -> Tensor:
        """Σ_ij g_n,ij² Δ_c,ij² [N, C] in float64; [N, 0] where it was not gathered."""
        nothing = self._nothing(target)
        return self._energies.get(target, nothing if self.diagonal == "all" else nothing[:, :0])

    def arrive(self, target: Target, call: Call, cotangent: Tensor) -> None:
        """Take in the gradient of one call's output."""
        if not self.changes.places(target):
            return
        samples, changes = len(self.positions), self.changes.of(target)
        shifts = self.changes.shifts(target)
        if shifts is not None:
            self._add(target, by_feature_and_sample(call, cotangent, samples).unsqueeze(2) * shifts.T)
        once = self.calls[target] == 1
        some = self.diagonal == "some" and once
        at_hand = some and by_gradients_is_cheaper(call, cotangent, samples, changes, target.offered)
        if self.diagonal != "all" and not at_hand:
            held, room = self.outputs.held, self.changes.cache_bytes
            self.outputs.project(call, cotangent, samples, changes, partial(self._add, target), room=room)
            self.changes.cache_bytes -= self.outputs.held - held
            return
        squares = changes.flatten(1).T.square()
        features, energies, kept = [], [], []
        for part in gradients_by_sample(call, cotangent, samples):
            features.append(by_gradients(call.module, part, changes))
            if once:
                energies.append((part.flatten(1).square() @ squares).double())
            else:
                kept.append(part)
        self._add(target, torch.cat(features))
        if once:
            self._energies[target] = torch.cat(energies)
        else:
            self._gradients[target] = self._gradients.get(target, 0) + torch.cat(kept)

    def finish(self) -> None:
        """Square the gradients that came in several parts."""
        for target, gradients in self._gradients.items():
            squares = self.changes.of(target).flatten(1).T.square()
            self._energies[target] = (gradients.flatten(1).square() @ squares).double()
        self._gradients.clear()

    def _add(self, target: Target, features: Tensor) -> None:
        """Parts of one feature add before they are squared."""
        kinds = self._features.setdefault(target, {})
        count = features.shape[1]
        kinds[count] = kinds[count] + features if count in kinds else features

    def _nothing(self, target: Target) -> Tensor:
        shape = len(self.positions), len(self.changes.places(target))
        return torch.zeros(shape, dtype=torch.float64, device=target.unit.weight.device)
