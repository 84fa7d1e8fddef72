"""The calibration data in the pieces that one pass takes: whole batches, or samples where rows cannot be told apart."""

from __future__ import annotations

from typing import TypeAlias

from allocator.tasks.batches import count, take
from allocator.tasks.protocol import Batch
from profilers._plan import Plan

Key: TypeAlias = tuple[int, int, int]
"""(place in the order of pieces, batch, sample of the batch or −1 for all of them): a shard's key."""

MEMORY = "calibration batches"


def batches(plan: Plan) -> list[Batch]:
    """All batches, read once."""
    if MEMORY not in plan.memory:
        plan.memory[MEMORY] = list(plan.workload.calibration)
    found: list[Batch] = plan.memory[MEMORY]
    return found


def keys(plan: Plan, together: bool) -> list[Key]:
    """One key per batch; one per sample unless the samples of a batch can be run ``together``."""
    cuts = [
        (place, sample)
        for place, batch in enumerate(batches(plan))
        for sample in ([-1] if together else range(count(batch)))
    ]
    return [(place, batch, sample) for place, (batch, sample) in enumerate(cuts)]


def piece(plan: Plan, key: Key) -> Batch:
    """What the key stands for."""
    _, place, sample = key
    batch = batches(plan)[place]
    return batch if sample < 0 else take(batch, sample, sample + 1)
