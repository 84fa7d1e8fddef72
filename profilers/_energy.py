"""Squared norms of what changes of a weight do to a layer's output, for many changes at once."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from profilers._patches import groups_of, second_moments
from profilers._plan import Target
from profilers._project import Call


@dataclass(eq=False)
class Responses:
    """One target's changes, and its weight as the last of them.

    Attributes:
        target: whose.
        samples: over how many samples the work is spread; decides only which way is taken.
        weights: Δ of every choice that changes anything, then W; [C + 1, *weight.shape].
        places: of these choices in the menu.
    """

    target: Target
    samples: int
    weights: Tensor = field(init=False)
    places: list[int] = field(init=False)
    _squares: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        found = list(self.target.changes())
        self.places = [place for place, _ in found]
        self.weights = torch.stack([*(delta for _, delta in found), self.target.unit.weight.detach()])

    def energies(self, call: Call, samples: int) -> Tensor:
        """‖output change‖² of every choice, then ‖output without bias‖² [N, choices + 1] in float64, on the CPU.

        Rows of the call are N = ``samples`` equal runs.
        """
        wide = torch.zeros(samples, len(self.target.menu) + 1, dtype=torch.float64)
        by_moments = call.stock and not isinstance(call.module, nn.Embedding) and moments_pay(self.target, self.samples)
        found = self._by_moments(call, samples) if by_moments else self._by_outputs(call, samples)
        wide[:, [*self.places, -1]] = found.cpu()
        return wide

    def _by_outputs(self, call: Call, samples: int) -> Tensor:
        """One run of the layer per change; as W + Δ against W where the output is not known to be linear in it."""
        *changes, weight = self.weights
        whole = call(weight, call.inputs, biased=False)
        if call.stock:
            outputs = (call(change, call.inputs, biased=False) for change in changes)
        else:
            outputs = (call(weight + change, call.inputs, biased=False) - whole for change in changes)
        return torch.stack([_energy(output, samples) for output in (*outputs, whole)], 1)

    def _by_moments(self, call: Call, samples: int) -> Tensor:
        """⟨ΔᵀΔ, Σ x xᵀ⟩ for every change and sample, in float64, which its cancellations need."""
        if self._squares is None:
            groups, columns = groups_of(call.module), self.target.layer.columns
            changes = self.weights.double().reshape(len(self.weights), groups, -1, columns)
            self._squares = (changes.transpose(2, 3) @ changes).flatten(1).T
        return torch.cat([m.flatten(1) @ self._squares for m in second_moments(call.module, call.inputs, samples)])


def moments_pay(target: Target, samples: int) -> bool:
    """Whether second moments of the inputs take fewer multiplications, in float64, than running every change."""
    layer, changes = target.layer, len(target.menu)
    if layer.kind == "embedding":
        return False
    moments = layer.groups * layer.columns**2
    direct = changes * layer.positions * layer.weights
    return direct > 2 * (layer.positions + changes) * moments + 2 * changes * layer.rows * layer.columns**2 / samples


def held_bytes(target: Target, samples: int) -> int:
    """Memory of a target's responses."""
    layer, changes = target.layer, len(target.menu)
    squares = 8 * layer.groups * layer.columns**2 if moments_pay(target, samples) else 0
    return changes * (4 * layer.weights + squares)


def _energy(output: Tensor, samples: int) -> Tensor:
    return output.reshape(samples, -1).square().sum(1, dtype=torch.float64)
