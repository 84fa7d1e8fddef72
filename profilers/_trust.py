"""Where a linear model of the logits fails: a few choices of every family are made, and the logits compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from allocator.progress import Progress
from allocator.tasks.batches import count, take
from allocator.tasks.protocol import Batch
from profilers._families import family
from profilers._plan import Plan
from profilers._shards import Piece, sharded
from profilers._sketch import Sketch, Sketched, sample_batches

SHARE = 16
"""One sample in so many is run again, at least one."""
LIMIT = 0.25
"""Relative error of the logits' change beyond which a choice is not trusted; its loss may then be off by half."""

Cells: TypeAlias = tuple[tuple[int, int], ...]
"""Some choices, each as the places of its target and within the target's menu."""


@dataclass(frozen=True)
class Trust:
    """error: relative error of the linear model, per target and choice. families: as measured, per family."""

    error: list[list[float]]
    families: dict[str, float]

    def untrusted(self, plan: Plan) -> dict[str, list[str]]:
        """Group to choices whose error is above the limit."""
        found = {}
        for target, errors in zip(plan.targets, self.error, strict=True):
            names = [item.name for item, error in zip(target.menu, errors, strict=True) if error > LIMIT]
            if names:
                found[target.name] = names
        return found


@dataclass(frozen=True)
class Check:
    """Choices made on the first samples, and how far that moves the logits.

    Attributes:
        sketch: whose cotangents are taken.
        samples: of the first batch; None for all, where those of a batch hang together.
    """

    sketch: Sketch
    samples: int | None

    def moved(self, plan: Plan, key: Cells) -> Piece:
        """v·δ of every sample [n], float64, of each (target, choice) of the key; by place in it."""
        task, model = plan.workload.task, plan.workload.model
        found: Piece = {}
        with torch.no_grad():
            batch, logits, cotangent = self._plain(plan)
            for number, (t, place) in enumerate(key):
                with plan.targets[t].changed(place):
                    change = task.logits(model, batch) - logits
                found[str(number)] = (change * cotangent).double().flatten(1).sum(1).cpu()
        return found

    def _plain(self, plan: Plan) -> tuple[Batch, Tensor, Tensor]:
        """The samples, with logits and cotangents of the float network."""
        if self not in plan.memory:
            task, first = plan.workload.task, sample_batches(plan)[0]
            batch = first if self.samples is None else take(first, 0, self.samples)
            logits = task.logits(plan.workload.model, batch)
            # Cotangents of samples that are left out are drawn with the others.
            left = 0 if self.samples is None else count(first) - len(logits)
            padded = torch.cat([logits, logits.new_zeros(left, *logits.shape[1:])])
            cotangent = self.sketch.cotangent(plan, 0)(padded, task.mask(first))[: len(logits)]
            plan.memory[self] = batch, logits, cotangent
        found: tuple[Batch, Tensor, Tensor] = plan.memory[self]
        return found


def trust(sketch: Sketch, found: Sketched, progress: Progress) -> Trust:
    """‖v·δ − u‖ / ‖v·δ‖ over some samples: δ = z(W+Δ) − z(W), v the sketch's own cotangents, u its projections.

    Measured for two layers of every family on one sample in sixteen; within a family the error is taken to grow in
    proportion to ‖Δ‖ / ‖W‖.
    """
    plan = found.plan
    apart = len(found.positions) == sum(map(count, sample_batches(plan)))
    check = Check(sketch, max(1, len(found.positions) // SHARE) if apart else None)
    size, chosen = _sizes(found), _chosen(found)
    keys: list[Cells] = [tuple((t, found.places[t][column]) for t, column in cells) for cells in chosen.values()]
    pieces = sharded(plan, f"{sketch.name}, its check", check, keys, check.moved, progress)
    families: dict[str, float] = {}
    reach: dict[str, float] = {}
    for (name, cells), key, piece in zip(chosen.items(), keys, pieces, strict=True):
        wrong = whole = moved = 0.0
        for number, ((t, column), (_, place)) in enumerate(zip(cells, key, strict=True)):
            true = piece[str(number)]
            linear = found.projections[t][0, : len(true), column]
            scale = float(true.square().sum() + linear.square().sum()) or 1.0
            wrong += float((true - linear).square().sum()) / scale
            whole += float(true.square().sum()) / scale
            moved += size[t][place] / len(cells)
        families[name] = (wrong / whole) ** 0.5 if whole else 0.0
        reach[name] = moved
    plan.memory.pop(check, None)
    error = [
        [
            families[f] * s / reach[f] if s and f in reach else 0.0
            for s, f in zip(sizes, map(family, target.menu), strict=True)
        ]
        for target, sizes in zip(plan.targets, size, strict=True)
    ]
    return Trust(error, families)


def _sizes(found: Sketched) -> list[list[float]]:
    """‖Δ‖ / ‖W‖ of every choice."""
    sizes = []
    for target, places, lengths in zip(found.plan.targets, found.places, found.lengths, strict=True):
        row = [0.0] * len(target.menu)
        norm = float(target.unit.weight.detach().double().norm())
        for place, length in zip(places, lengths, strict=True):
            row[place] = length / norm if norm else 0.0
        sizes.append(row)
    return sizes


def _chosen(found: Sketched) -> dict[str, list[tuple[int, int]]]:
    """The (target, column) of every family with the largest and the median square of their projections."""
    members: dict[str, list[tuple[float, int, int]]] = {}
    for t, target in enumerate(found.plan.targets):
        energy: Tensor = found.projections[t].square().sum((0, 1))
        for column, place in enumerate(found.places[t]):
            if energy[column] > 0:
                members.setdefault(family(target.menu[place]), []).append((float(energy[column]), t, column))
    chosen = {}
    for name, cells in members.items():
        ordered = sorted(cells)
        chosen[name] = [ordered[spot][1:] for spot in sorted({len(ordered) - 1, len(ordered) // 2})]
    return chosen
