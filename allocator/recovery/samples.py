"""The data of a recovery: apart from those that judge it, and a tenth held back."""

from __future__ import annotations

from collections.abc import Iterable

from allocator.errors import UsageError
from allocator.splitting import split
from allocator.tasks.batches import digests
from allocator.tasks.protocol import Batch
from allocator.workload import Workload

SHARE = 10
"""One row in so many is held back, and two at least."""


def parted(workload: Workload, data: Iterable[Batch] | None) -> Workload:
    """A workload whose calibration data are trained on, and whose evaluation data are the rows held back, the last.

    ``data``: None for the calibration data of the workload.

    Raises:
        UsageError: samples of the workload's evaluation data among them; too few for two parts; see `Workload.check`.
    """
    if data is None:
        workload.check()
        batches = list(workload.calibration)
    else:
        batches = list(data)
        _require_apart(workload, batches)
    return split(Workload(workload.model, batches, workload.evaluation, workload.task, workload.name), SHARE)


def _require_apart(workload: Workload, batches: list[Batch]) -> None:
    judges = set(workload.digests("evaluation"))
    shared = sum(digest in judges for batch in batches for digest in digests(batch))
    if shared:
        raise UsageError(
            f"{shared} of the samples to train on are evaluation samples of {workload.name}: what was trained on them "
            "would be judged by them. Give other data"
        )
