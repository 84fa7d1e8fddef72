"""Where a linear model of the logits fails: a few choices of every family are made, and the logits compared."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from allocator.progress import Progress
from allocator.tasks.batches import count, take
from profilers._families import family
from profilers._plan import Plan
from profilers._sketch import Sketch, Sketched, sample_batches

SHARE = 16
"""One sample in so many is run again, at least one."""
LIMIT = 0.25
"""Relative error of the logits' change beyond which a choice is not trusted; its loss may then be off by half."""


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


def trust(sketch: Sketch, found: Sketched, progress: Progress) -> Trust:
    """‖v·δ − u‖ / ‖v·δ‖ over some samples: δ = z(W+Δ) − z(W), v the sketch's own cotangents, u its projections.

    Measured for two layers of every family on one sample in sixteen; within a family the error is taken to grow in
    proportion to ‖Δ‖ / ‖W‖.
    """
    plan, task, model = found.plan, found.plan.workload.task, found.plan.workload.model
    batches = sample_batches(plan)
    batch, mask = batches[0], task.mask(batches[0])
    with torch.no_grad():
        if apart := len(found.positions) == sum(map(count, batches)):  # else the samples of a batch hang together
            batch = take(batch, 0, max(1, len(found.positions) // SHARE))
        logits = task.logits(model, batch)
        left = count(batches[0]) - len(logits) if apart else 0  # samples whose cotangents are drawn with the others
        padded = torch.cat([logits, logits.new_zeros(left, *logits.shape[1:])])
        cotangent = sketch.cotangent(plan, 0)(padded, mask)[: len(logits)]
        size = _sizes(found)
        families: dict[str, float] = {}
        reach: dict[str, float] = {}
        chosen = _chosen(found)
        for done, (name, cells) in enumerate(chosen.items(), 1):
            wrong = whole = moved = 0.0
            for t, column in cells:
                target = plan.targets[t]
                place = found.places[t][column]
                with target.changed(place):
                    change = task.logits(model, batch) - logits
                true = (change * cotangent).double().flatten(1).sum(1).cpu()
                linear = found.projections[t][0, : len(true), column]
                scale = float(true.square().sum() + linear.square().sum()) or 1.0
                wrong += float((true - linear).square().sum()) / scale
                whole += float(true.square().sum()) / scale
                moved += size[t][place] / len(cells)
            families[name] = (wrong / whole) ** 0.5 if whole else 0.0
            reach[name] = moved
            progress(f"{sketch.name}, its check", done, len(chosen))
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
