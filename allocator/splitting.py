"""Calibration data cut in two: to search and to choose, or to fit choices and to score them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

from allocator.errors import UsageError
from allocator.tasks.batches import count, digests, take
from allocator.tasks.protocol import Batch
from allocator.workload import Workload

SHARE = 4
"""One row of calibration data in so many validates."""
FEWEST = 2
"""Samples that either part needs for a standard error."""


def split(workload: Workload, share: int = SHARE) -> Workload:
    """A workload whose calibration data are the first three quarters, and whose evaluation data are the last quarter.

    Where the rows of a batch hang together (texts that are compared with each other), batches are not cut. Rows of the
    last quarter that also stand in the first three are left out. The evaluation data of the given workload are not
    touched: they go on judging whatever comes out. With another ``share``, one row in so many is in the last part.

    Raises:
        UsageError: too few samples for both parts.
    """
    batches = list(workload.calibration)
    if hang_together(workload):
        cut = len(batches) - max(FEWEST, len(batches) // share)
        first = batches[: max(cut, 0)]
        seen = _seen(first)
        last = [batch for batch in batches[max(cut, 0) :] if seen.isdisjoint(digests(batch))]
        few = min(len(first), len(last))
    else:
        rows = sum(map(count, batches))
        cut = rows - max(FEWEST, rows // share)
        first = list(_between(batches, 0, cut))
        seen = _seen(first)
        last = [part for batch in _between(batches, cut, rows) for part in _without(batch, seen)]
        few = min(sum(map(count, first)), sum(map(count, last)))
    if few < FEWEST:
        raise UsageError(
            f"the calibration data of {workload.name} have too few samples to search on some and to choose between the "
            f"results on others: {FEWEST} different ones each are the least, and some dozens are better"
        )
    return Workload(workload.model, first, last, workload.task, workload.name)


def halves(workload: Workload) -> tuple[Workload, Workload]:
    """Two workloads whose calibration data are the first and the second half: fitted to the first, choices are scored
    on the second.

    A choice that is fitted to the inputs of its layer, such as compensated rounding, looks better on those inputs than
    on others: by little with thousands of samples, several times with ten. Scored on them, the choice that is fitted
    most closely is taken for the best. With too few samples for two halves all of them do both, and a warning says so.
    """
    try:
        parted = split(workload, 2)
    except UsageError:
        warnings.warn(
            f"the calibration data of {workload.name} have too few samples to fit choices to some and to score them on "
            "others: choices that are fitted to data (gptq, weighted ranks, pruning with compensate) look better than "
            f"they are. Give {2 * FEWEST} samples or more",
            stacklevel=2,
        )
        return workload, workload

    def half(batches: Sequence[Batch]) -> Workload:
        return Workload(workload.model, batches, workload.evaluation, workload.task, workload.name)

    return half(list(parted.calibration)), half(list(parted.evaluation))


def hang_together(workload: Workload) -> bool:
    """Whether a batch is one sample: a task that makes one row of logits of several rows of data."""
    import torch

    from allocator.tasks.guard import untouched

    several = next((batch for batch in workload.calibration if count(batch) > 1), None)
    if several is None:
        return False
    with untouched(workload.model), torch.no_grad():
        return len(workload.task.logits(workload.model, take(several, 0, 2))) != 2


def _between(batches: Sequence[Batch], start: int, stop: int) -> Iterator[Batch]:
    """Rows start to stop, in the batches in which they come."""
    at = 0
    for batch in batches:
        size = count(batch)
        low, high = max(start - at, 0), min(stop - at, size)
        if low < high:
            yield batch if high - low == size else take(batch, low, high)
        at += size


def _without(batch: Batch, seen: set[str]) -> Iterator[Batch]:
    """The batch, or what is left between the rows that were seen."""
    known = [place for place, digest in enumerate(digests(batch)) if digest in seen]
    if not known:
        yield batch
        return
    for low, high in zip([0, *(place + 1 for place in known)], [*known, count(batch)], strict=True):
        if low < high:
            yield take(batch, low, high)


def _seen(batches: Sequence[Batch]) -> set[str]:
    return {digest for batch in batches for digest in digests(batch)}
