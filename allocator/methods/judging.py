"""A compressed network judged sample by sample, and two networks compared on the same samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from allocator.errors import AllocatorError
from allocator.progress import Progress, silent, told
from allocator.statement import FloatArray
from allocator.tasks.guard import untouched
from allocator.tasks.measurement import Measured, ratio
from allocator.tasks.positions import divergence, per_sample
from allocator.workload import Workload

DRAWS = 2000
LEVEL = 0.95
INDICES_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class Judged:
    """What a network does on each of S samples: per metric Σ over a sample's positions, and their number [S].

    Attributes:
        sums: ``kl`` (from the float network), ``agreement`` (positions where both rank the same class first) and the
            task's metrics, such as ``loss`` and ``accuracy``.
        counts: in the same names.
        original: the float network on the same samples; None for itself.
    """

    sums: Mapping[str, FloatArray]
    counts: Mapping[str, FloatArray]
    original: Judged | None = field(default=None, repr=False)

    @property
    def samples(self) -> int:
        """S."""
        return len(next(iter(self.sums.values())))

    def value(self, metric: str) -> Measured:
        """Σ sum / Σ count with its standard error over samples."""
        return ratio(torch.from_numpy(self.sums[metric]), torch.from_numpy(self.counts[metric]))


@dataclass(frozen=True)
class Interval:
    """A difference and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def separated(self) -> bool:
        """Whether the interval excludes 0: only then is a difference claimed."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, float | bool]:
        """Plain data."""
        return {"value": self.value, "low": self.low, "high": self.high, "separated": self.separated}


def compared(workload: Workload, network: Module, progress: Progress = silent) -> Judged:
    """The network, a compressed copy, and the float one on the evaluation data, told after every batch.

    Raises:
        AllocatorError: the network gives numbers that are none.
    """
    task = workload.task
    rows: dict[str, list[tuple[Tensor, Tensor]]] = {}
    base: dict[str, list[tuple[Tensor, Tensor]]] = {}
    with untouched(workload.model), untouched(network), torch.no_grad():
        for batch in told(progress, "judging", workload.evaluation):
            logits, plain = task.logits(network, batch), task.logits(workload.model, batch)
            mask, own = task.mask(batch), plain.argmax(-1)
            found = {"kl": per_sample(divergence(plain, logits), mask), **task.metrics(logits, batch)}
            found["agreement"] = per_sample(own == logits.argmax(-1), mask)
            itself = {
                "agreement": per_sample(torch.ones_like(own, dtype=torch.bool), mask),
                **task.metrics(plain, batch),
            }
            for kept, one in ((rows, found), (base, itself)):
                for name, row in one.items():
                    kept.setdefault(name, []).append(row)
    judged = Judged(*_columns(rows), original=Judged(*_columns(base)))
    if any(np.isnan(column).any() for column in judged.sums.values()):
        raise AllocatorError(
            "the compressed network gives logits that are not numbers, so it cannot be judged: leave out the choices "
            "that make it overflow"
        )
    return judged


def paired(one: Judged, other: Judged | None, metric: str) -> Measured:
    """Metric of one network less that of the other, with the standard error of the paired difference."""
    sums, counts = _difference(one, other, metric)
    return ratio(torch.from_numpy(sums), torch.from_numpy(counts))


def interval(one: Judged, other: Judged | None, metric: str, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Metric of one network less that of the other, with a paired percentile bootstrap over samples.

    Samples are drawn with replacement, the same ones for both networks and, for one seed, for all comparisons on the
    same data; the ends are the 2.5 % and 97.5 % quantiles of Σ difference / Σ count. Without another network: of the
    metric itself.
    """
    sums, counts = _difference(one, other, metric)
    size = len(sums)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7,)))
    found: list[FloatArray] = []
    step = max(1, INDICES_AT_ONCE // size)
    for start in range(0, draws, step):
        taken = rng.integers(size, size=(min(step, draws - start), size))
        found.append(sums[taken].sum(1) / np.maximum(counts[taken].sum(1), 1e-300))
    low, high = np.quantile(np.concatenate(found), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))


def _difference(one: Judged, other: Judged | None, metric: str) -> tuple[FloatArray, FloatArray]:
    if other is None:
        return one.sums[metric], one.counts[metric]
    if one.samples != other.samples or not np.array_equal(one.counts[metric], other.counts[metric]):
        raise AllocatorError("two networks were judged on different samples, so that they cannot be paired")
    return one.sums[metric] - other.sums[metric], one.counts[metric]


def _columns(rows: Mapping[str, list[tuple[Tensor, Tensor]]]) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    sums = {name: torch.cat([s for s, _ in row]).double().numpy() for name, row in rows.items()}
    counts = {name: torch.cat([c for _, c in row]).double().numpy() for name, row in rows.items()}
    return sums, counts
