"""KL(float ‖ compressed) on the evaluation data, of many allocations, each kept once it is measured."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from allocator.applier.statistics import Statistics, digest
from allocator.errors import AllocatorError, UsageError
from allocator.faithfulness.held_out import HeldOut
from allocator.faithfulness.weights import Weights
from allocator.progress import Progress
from allocator.statement import FloatArray, IntArray
from allocator.tasks.measurement import Measured, ratio
from allocator.tasks.positions import divergence, per_sample
from allocator.workload import Workload
from profilers._groups import model_sha256, versions
from profilers._parts import Parts
from profilers._replay import Recording

NOISY = 0.1
"""Share of the measured loss beyond which its standard error says that there are too few samples."""


@dataclass(frozen=True, eq=False)
class Losses:
    """Measured losses of allocations, in nats per position, with standard errors over samples.

    Attributes:
        found: one for each allocation, in order.
        sums: divergence of each sample, its positions added up [allocations, S].
        counts: positions of each sample [S].
        samples: rows of evaluation data that were used.
    """

    found: tuple[Measured, ...]
    sums: FloatArray
    counts: FloatArray
    samples: int

    @property
    def halves(self) -> FloatArray:
        """The losses on the first, third, … and on the other samples [2, allocations]."""
        parts = [self.sums[:, start::2].sum(1) / max(self.counts[start::2].sum(), 1e-300) for start in (0, 1)]
        return np.array(parts, np.float64)

    def difference(self, one: int, other: int) -> Measured:
        """Loss of one allocation less that of another, with the standard error of the paired difference."""
        return ratio(torch.from_numpy(self.sums[one] - self.sums[other]), torch.from_numpy(self.counts))


def kept_parts(workload: Workload, folder: Path | None, statistics: Statistics) -> Parts:
    """Where finished measurements on evaluation data are kept, of choices fitted to ``statistics``; None: nowhere."""
    task, fitted = workload.task, digest(statistics)
    what = (model_sha256(workload.model), workload.digests("evaluation"), repr(task), fitted, versions())
    return Parts(folder, hashlib.sha256(repr(what).encode()).hexdigest())


def measured(
    held_out: HeldOut, weights: Weights, allocations: Sequence[IntArray], parts: Parts, progress: Progress
) -> Losses:
    """Mean KL(float ‖ changed) of every allocation: the rows that are taken, other weights as they are.

    The divergence Σ_c p_c log(p_c/q_c) is in float64; positions add up per sample, and the value is
    Σ divergence / Σ positions. Equal allocations are measured once. To be called inside `untouched`.

    Raises:
        UsageError: fewer than 2 evaluation samples.
        AllocatorError: a loss that is not a number: the changed network overflows.
    """
    keys = [weights.key(rows) for rows in allocations]
    wanted = dict(zip(keys, allocations, strict=True))
    cells: dict[tuple[object, ...], list[dict[str, Tensor]]] = {key: [] for key in wanted}
    samples = 0
    with torch.no_grad():
        for done, recordings in held_out.chunks(weights.modules):
            samples += sum(len(recording.logits) for recording in recordings)
            for place, (key, rows) in enumerate(wanted.items()):
                name = ("divergence", key, done, len(recordings), held_out.samples)
                piece = parts.take(*name)
                if piece is None:
                    piece = _divergences(held_out, weights, rows, recordings)
                    parts.keep(piece, *name)
                cells[key].append(piece)
                progress("measured", place + 1, len(wanted))
    if samples < 2:
        raise UsageError(
            f"a standard error needs at least 2 evaluation samples, and {held_out.workload.name} has {samples}: give "
            "more, or several batches where a whole batch is one sample"
        )
    joined = {key: _joined(pieces) for key, pieces in cells.items()}
    found = {key: ratio(*columns) for key, columns in joined.items()}
    sums = torch.stack([joined[key][0] for key in keys]) if keys else torch.zeros(0, samples)
    if any(math.isnan(loss.value) for loss in found.values()):
        raise AllocatorError(
            "a compressed network gives logits that are not numbers, so there is no divergence to compare with: leave "
            "out the choices that make it overflow"
        )
    counts = next(iter(joined.values()))[1] if joined else torch.zeros(samples)
    return Losses(tuple(found[key] for key in keys), sums.double().numpy(), counts.double().numpy(), samples)


def _divergences(held_out: HeldOut, weights: Weights, rows: IntArray, recordings: list[Recording]) -> dict[str, Tensor]:
    """``sum`` and ``count`` of every sample [n]."""
    task = held_out.workload.task
    logits = held_out.logits(recordings, weights.changes(rows))
    cells = [
        per_sample(divergence(r.logits, changed), task.mask(r.batch))
        for r, changed in zip(recordings, logits, strict=True)
    ]
    return {"sum": torch.cat([s for s, _ in cells]), "count": torch.cat([c for _, c in cells])}


def _joined(pieces: Sequence[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """``sum`` and ``count`` of all samples."""
    return torch.cat([piece["sum"] for piece in pieces]), torch.cat([piece["count"] for piece in pieces])
