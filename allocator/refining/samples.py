"""How many samples of calibration data can be had, and how few are of no use."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from allocator.splitting import FEWEST, hang_together
from allocator.tasks.batches import count
from allocator.workload import Workload

FEWEST_POSITIONS = 32
"""Positions (images, tokens, texts) below which measured divergences are too noisy to solve with."""


def cuts(workload: Workload) -> Sequence[int]:
    """Numbers of rows after which the calibration data may be cut, rising; the first gives 32 positions if any does.

    Any number of two or more; where the rows of a batch hang together, two batches or more.
    """
    batches = list(workload.calibration)
    ends = list(accumulate(map(count, batches)))
    least = FEWEST_POSITIONS / _positions(workload)
    if hang_together(workload):
        whole = ends[FEWEST - 1 :]
        return [end for end in whole if end >= least] or whole[-1:]
    return range(min(ends[-1], max(FEWEST, -int(-least // 1))), ends[-1] + 1)


def _positions(workload: Workload) -> float:
    """Positions that count in a row of the first batch, on average; one at least."""
    import torch

    from allocator.tasks.guard import untouched
    from allocator.tasks.positions import per_sample

    task, batch = workload.task, next(iter(workload.calibration))
    with untouched(workload.model), torch.no_grad():
        shape = task.logits(workload.model, batch).shape[:-1]
    return max(1.0, float(per_sample(torch.ones(shape), task.mask(batch))[1].sum()) / count(batch))
