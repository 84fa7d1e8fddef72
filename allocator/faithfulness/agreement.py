"""How well predictions order measured losses, and how near they come to their size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from allocator.faithfulness.ordering import Resampled, interval, kendall, resamples, spearman
from allocator.statement import BoolArray, FloatArray

LEVEL = 0.9
"""Share of the bootstrap draws inside an interval."""
DRAWS = 400
FEWEST = 10
"""Allocations of a region without which its ranking is not counted."""
SMALL_LOSS = 0.3
"""Losses in nats up to which predicted / measured is looked at: beyond it networks fall apart and nothing is local."""
SURE = 2.0
"""Standard errors that a measured loss must lie above 0 to stand below a ratio."""


@dataclass(frozen=True, eq=False)
class Points:
    """Allocations of one kind: what was predicted and measured [n], and measured's standard error."""

    predicted: FloatArray
    measured: FloatArray
    stderr: FloatArray

    def where(self, mask: BoolArray) -> Points:
        """Some of them."""
        return Points(self.predicted[mask], self.measured[mask], self.stderr[mask])


@dataclass(frozen=True)
class Ratio:
    """predicted / measured where a ratio says something; ``count`` such points. nan without any."""

    count: int
    q10: float
    median: float
    q90: float


@dataclass(frozen=True)
class Agreement:
    """How well predictions order the measured losses of some points, with the central 90 % of bootstrap draws."""

    count: int
    spearman: float
    spearman_interval: tuple[float, float]
    kendall: float
    kendall_interval: tuple[float, float]
    ratio: Ratio | None


def ratio(points: Points) -> Ratio:
    """Quantiles of predicted / measured over points measured above `SURE` standard errors and below `SMALL_LOSS`."""
    seen = points.where((points.measured > SURE * points.stderr) & (points.measured < SMALL_LOSS))
    if not len(seen.measured):
        return Ratio(0, math.nan, math.nan, math.nan)
    q10, median, q90 = np.quantile(seen.predicted / seen.measured, (0.1, 0.5, 0.9)).tolist()
    return Ratio(len(seen.measured), q10, median, q90)


def agreement(points: Points, in_nats: bool, rng: np.random.Generator | None) -> Agreement:
    """Correlations and ratio of some points; intervals over resampled points, (nan, nan) without a generator."""
    x, y = points.predicted, points.measured
    nothing = (math.nan, math.nan)
    if rng is None:
        return Agreement(len(x), spearman(x, y), nothing, kendall(x, y), nothing, ratio(points) if in_nats else None)
    drawn, counts = Resampled(x, y), resamples(len(x), DRAWS, rng)
    return Agreement(
        len(x),
        spearman(x, y),
        interval(drawn.spearman(counts), LEVEL),
        kendall(x, y),
        interval(drawn.kendall(counts), LEVEL),
        ratio(points) if in_nats else None,
    )


def within_regions(regions: Sequence[Points], rng: np.random.Generator) -> tuple[float, tuple[float, float]]:
    """Mean over regions of Spearman's correlation, with its interval; regions of fewer than `FEWEST` are left out.

    Every region is resampled by itself. nan without a region.
    """
    kept = [points for points in regions if len(points.measured) >= FEWEST]
    if not kept:
        return math.nan, (math.nan, math.nan)
    draws = [
        Resampled(p.predicted, p.measured).spearman(resamples(len(p.measured), DRAWS, rng)) for p in kept
    ]  # a constant column orders nothing: 0
    mean = np.mean([np.nan_to_num(d) for d in draws], axis=0)
    value = float(np.mean([np.nan_to_num(spearman(p.predicted, p.measured)) for p in kept]))
    return value, interval(mean, LEVEL)


def repeatability(halves: Sequence[FloatArray]) -> float:
    """How well a second measurement on as many other samples would order the same allocations; nan without a region.

    Spearman's r between the losses on two halves of the samples, [2, n] for each region, stepped up to the whole by
    2r / (1 + r) (Spearman and Brown, 1910), mean over regions of at least `FEWEST`.
    """
    found = [np.nan_to_num(spearman(*both)) for both in halves if both.shape[1] >= FEWEST]
    return float(np.mean([2 * r / (1 + r) if r > 0 else 0.0 for r in found])) if found else math.nan


def pooled(points: Sequence[Points]) -> Points:
    """All points of several regions."""

    def joined(name: str) -> FloatArray:
        return np.concatenate([np.zeros(0), *(getattr(p, name) for p in points)])

    return Points(joined("predicted"), joined("measured"), joined("stderr"))
