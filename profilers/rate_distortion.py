"""The curve of loss over cost that rounding theory expects of each layer: numbers that water-filling reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from allocator.actions import Quantize
from allocator.errors import UsageError
from allocator.progress import Progress
from profilers._backward import Changes
from profilers._calibration import Key, piece
from profilers._cotangent import half_hessian
from profilers._findings import Findings
from profilers._groups import costs
from profilers._parts import batch_seed
from profilers._passes import backward_passes, pieces_of_samples
from profilers._plan import Plan, Target
from profilers._run import Profiler
from profilers._shards import Piece, sharded

RESOURCES = ("weight_bytes", "bops")
LOW, HIGH = 2, 8
"""Bits between which the cost of one bit more is read off."""


@dataclass(frozen=True, kw_only=True)
class RateDistortion(Profiler):
    """Stats ``rd_scale`` a and ``rd_decay`` b of every group: loss a·exp(−b·cost) of rounding its weights; no score.

    At B bits per weight theory expects an error of variance S²·4^−B, S² the variance of the weights of a row, and so
    a loss of ½ Σ_i G_ii S_i² · 4^−B nats per position, with G the Gauss–Newton matrix of `Ggn` (Radio 2025 with the
    gradient's variance in its place; its quantiser's constant, common to all layers, is left out). A cost of u·B + v
    in ``resource`` (u from the bits, v from scales, as the menu's first quantisation has them) makes that
    b = 2 ln 2 / u and a = ½ Σ_i G_ii S_i² · exp(b·v), in nats and per unit of the resource, which is how the solver
    ``water_filling`` reads them; without them it fits a curve to the scores of a group's own choices.

    No choice is tried: profile with a statistic that gives a score. G is probed by Rademacher cotangents, whose noise
    averages over the weights of a layer. Costs one forward and ``sketches`` backward passes over the calibration
    data and the gradients of the single samples: as much as `GgnDiag` or less.

    Attributes:
        resource: of the costs: weight_bytes or bops, as the budget will be.
        sketches: backward passes per batch.
        seed: of the random signs.
    """

    name: ClassVar[str] = "rate_distortion"
    resource: str = "weight_bytes"
    sketches: int = 1
    seed: int = 0

    def measure(self, plan: Plan, progress: Progress) -> Findings:
        """Two stats per target.

        Raises:
            UsageError: no pass, or a resource that bits do not change; a network that gradients cannot follow.
        """
        if self.sketches < 1:
            raise UsageError(f"rate_distortion needs at least one sketch, and got sketches={self.sketches}")
        if self.resource not in RESOURCES:
            raise UsageError(f"resource={self.resource!r} of rate_distortion: give one of {', '.join(RESOURCES)}")
        for target in plan.targets:
            if not per_bit(target, self.resource)[0]:
                raise UsageError(
                    f"layer {target.name} uses no {self.resource} whatever its bits, so that it has no curve: take "
                    "resource=weight_bytes, or skip the layer with a rule of the space"
                )
        found = list(sharded(plan, self.name, self, pieces_of_samples(plan), self.energies, progress))
        total = torch.stack([part["energy"] for part in found]).sum(0)
        losses = (total / torch.cat([part["positions"] for part in found]).sum() / 2).tolist()
        scales, decays = [], []
        for target, loss in zip(plan.targets, losses, strict=True):
            one, none = per_bit(target, self.resource)
            decays.append(2 * math.log(2) / one)
            scales.append(loss * math.exp(decays[-1] * none))
        return Findings(stats={"rd_scale": scales, "rd_decay": decays})

    def energies(self, plan: Plan, key: Key) -> Piece:
        """On one piece: Σ_n Σ_i g_ni² S_i² of each target [targets], the mean over passes; positions [N]."""
        generator = torch.Generator(plan.targets[0].unit.weight.device).manual_seed(batch_seed(self.seed, key[0]))

        def cotangent(logits: Tensor, mask: Tensor | None) -> Tensor:
            return half_hessian(logits, mask, generator)

        energy = torch.zeros(len(plan.targets), dtype=torch.float64)
        batch, found = piece(plan, key), Piece()
        for backward in backward_passes(plan, batch, self.sketches, cotangent, Spread(0), "all"):
            energy += torch.stack([backward.energy(target).sum().cpu() for target in plan.targets]) / self.sketches
            found = {"energy": energy, "positions": backward.positions}
        return found


class Spread(Changes):
    """In place of the changes of choices: for every weight the standard deviation of its row."""

    def places(self, target: Target) -> list[int]:
        """One."""
        return [0]

    def of(self, target: Target) -> Tensor:
        """[1, *weight.shape]."""
        weight = target.unit.weight.detach()
        spread = weight.flatten(1).std(1, correction=0)
        return spread.reshape(-1, *[1] * (weight.dim() - 1)).expand_as(weight).unsqueeze(0)


def per_bit(target: Target, resource: str) -> tuple[float, float]:
    """(u, v): the target costs about u·bits + v, stored as the menu's first quantisation does, else per row."""
    actions = [item.action for item in target.menu]
    action = next((action for action in actions if isinstance(action, Quantize)), Quantize(bits=HIGH))
    low, high = (costs(target.layer, replace(action, bits=bits))[resource] for bits in (LOW, HIGH))
    one = (high - low) / (HIGH - LOW)
    return one, high - HIGH * one
