"""The calibration data cut into pieces of a few samples: what standard errors of second derivatives are taken over.

A Hessian–vector product of a batch says nothing about its samples one by one. Cut into pieces, the same products give
the same sum, and the spread between independent pieces gives its standard error, itself uncertain by a share of
1/√(2K − 2) with K pieces. Where a few samples do not keep the machine busy, small pieces cost time: on a network of
20,000 weights, 16 pieces of 8 images took 2.6 times as long as 2 of 64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from allocator.errors import UsageError
from allocator.tasks.batches import count, first, take
from allocator.tasks.protocol import Batch
from profilers._plan import Plan


def pieces(plan: Plan, name: str, samples: int | None, least: int) -> Sequence[Batch]:
    """At least ``least`` pieces of nearly equal size, as far as the samples go, none across two batches.

    Args:
        plan: of which the calibration data is cut; the pieces are kept in its memory.
        name: of the profiler that asks, for messages.
        samples: use only the first so many rows of data; None: all.
        least: pieces wanted; where a whole batch is one sample (texts compared with each other), batches stay whole.

    Raises:
        UsageError: fewer than two pieces, so that there is no standard error.
    """
    if least < 2 or (samples is not None and samples < 2):
        raise UsageError(f"{name} needs pieces ≥ 2 and samples ≥ 2, got pieces={least} and samples={samples}")
    key = "pieces", samples, least
    if key not in plan.memory:
        plan.memory[key] = list(_cut(plan, samples, least))
    found: Sequence[Batch] = plan.memory[key]
    if len(found) < 2:
        raise UsageError(
            f"{name} needs at least 2 calibration samples for a standard error, and got {len(found)}: give more, or "
            "several batches where a whole batch is one sample"
        )
    return found


def _cut(plan: Plan, samples: int | None, least: int) -> Iterator[Batch]:
    task = plan.workload.task
    batches = list(first(plan.workload.calibration, samples))
    size = max(1, sum(map(count, batches)) // least)
    if not _separate(plan, batches):
        size = max(map(count, batches), default=1)
    for batch in batches:
        rows = count(batch)
        runs = -(-rows // size)
        for i in range(runs):
            piece = take(batch, i * rows // runs, (i + 1) * rows // runs)
            mask = task.mask(piece)
            if mask is None or bool(mask.any()):
                yield piece


def _separate(plan: Plan, batches: Sequence[Batch]) -> bool:
    """Whether rows of a batch are samples of their own: two rows give two rows of logits."""
    several = next((batch for batch in batches if count(batch) > 1), None)
    if several is None:
        return True
    with torch.no_grad():
        return len(plan.workload.task.logits(plan.workload.model, take(several, 0, 2))) == 2
