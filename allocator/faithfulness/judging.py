"""Whether a predictor is to be trusted: fixed rules over the numbers of `agreement`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from allocator.faithfulness.agreement import (
    FEWEST,
    SMALL_LOSS,
    Agreement,
    Points,
    agreement,
    pooled,
    ratio,
    within_regions,
)
from allocator.faithfulness.ordering import spearman

Verdict = Literal["trust", "trust below", "do not trust", "cannot tell"]

ORDERS = 0.7
"""Spearman's correlation within regions that a trusted predictor surely exceeds: the lower end of its interval."""
LIMITS = (1.0, 0.5, 0.3, 0.1, 0.05, 0.02, 0.01)
"""Measured losses in nats below which a predictor is tried that fails on all of them, the largest first."""
MEDIAN_WITHIN, SPREAD_WITHIN = 1.5, 3.0
"""Factors around 1 within which the median, and the central 80 %, of predicted / measured give the size of a loss."""


@dataclass(frozen=True)
class Judgement:
    """All that is said about one predictor.

    Attributes:
        verdict: "trust"; "trust below" (a measured loss of ``limit`` nats); "do not trust"; "cannot tell".
        limit: see verdict; None otherwise.
        size: whether predictions also give the size of the loss, not its order alone; None for one that does not
            claim to.
        because: the numbers that led to it, in words.
        within: Spearman's correlation of random allocations within regions, mean, with its interval.
        regions: per region and kind of allocation.
        pooled: all random allocations together; a wide range of losses makes most predictors look good here.
        singles: all single choices; None where none were measured.
        within_label: mean over labels of Spearman's correlation over groups of that label's single choices, and over
            how many labels.
    """

    verdict: Verdict
    limit: float | None
    size: bool | None
    because: str
    within: float
    within_interval: tuple[float, float]
    regions: Mapping[str, Agreement]
    pooled: Agreement | None
    singles: Agreement | None
    within_label: float
    labels: int

    @property
    def words(self) -> str:
        """The verdict as it is printed."""
        said = f"trust below {self.limit:g} nat" if self.limit is not None else self.verdict
        if self.verdict in ("do not trust", "cannot tell") or self.size:
            return said
        return f"{said}, order only"

    def to_json(self) -> dict[str, Any]:
        """Plain data; null where a number is undefined."""
        plain: dict[str, Any] = _plain({"words": self.words, **asdict(self)})
        return plain


def judge(
    regions: Mapping[str, Points],
    others: Mapping[str, Points],
    singles: Points | None,
    labels: Sequence[Points],
    in_nats: bool,
    seed: int = 0,
    repeat: float = 1.0,
) -> Judgement:
    """Judge one predictor by fixed rules.

    Order. Within each region of random allocations (at least `FEWEST` of them) predictions are ranked against
    measured losses; the mean of Spearman's correlations over regions must surely exceed `ORDERS`: the lower end of
    its bootstrap interval does. Pooled correlations do not count, since a wide range makes everything rank well. A
    predictor that fails is tried again on the allocations with a measured loss below 1, .5, .3 … nat (`LIMITS`), and
    is trusted below the first limit where it passes: up to seven tries, with no correction for their number.

    Nothing is told without `FEWEST` random allocations in a region; nor of a predictor that fails where the evaluation
    data are too few to do better: where a second measurement would itself order allocations no better than `ORDERS`,
    and the predictor, its interval's upper end divided by the root of that repeatability (the correction for
    attenuation, Spearman 1904), may.

    Size. A predictor in nats of KL also gives the size of a loss where, over random allocations measured above 2
    standard errors, and below both .3 nat and the limit, the median of predicted / measured lies within a factor of
    `MEDIAN_WITHIN` of 1 and the central 80 % within `SPREAD_WITHIN`. Otherwise only its order is to be used: fine for
    minimising under a budget of bytes, not for a budget on the loss.

    Args:
        regions: random allocations by region.
        others: other whole allocations by kind (uniform, optimal): reported, not judged by.
        singles: single choices that change a bit.
        labels: the same per label, those of several groups only.
        in_nats: whether the predictor claims to be the loss in nats.
        seed: of the bootstrap.
        repeat: `repeatability` of the measured losses within regions.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    whole = list(regions.values())
    value, ends = within_regions(whole, rng)
    verdict, limit, because = _order(whole, value, ends, repeat, rng)
    size: bool | None = None
    if in_nats and verdict in ("trust", "trust below"):
        size, more = _size(whole, limit)
        because = f"{because}; {more}"
    by_label = [r for p in labels if not math.isnan(r := spearman(p.predicted, p.measured))]
    together = pooled(whole)
    return Judgement(
        verdict=verdict,
        limit=limit,
        size=size,
        because=because,
        within=value,
        within_interval=ends,
        regions={name: agreement(p, in_nats, rng) for name, p in {**regions, **others}.items() if len(p.measured)},
        pooled=agreement(together, in_nats, rng) if len(together.measured) else None,
        singles=None if singles is None else agreement(singles, in_nats, None),
        within_label=float(np.mean(by_label)) if by_label else math.nan,
        labels=len(by_label),
    )


def _order(
    whole: Sequence[Points], value: float, ends: tuple[float, float], repeat: float, rng: np.random.Generator
) -> tuple[Verdict, float | None, str]:
    if math.isnan(value):
        return "cannot tell", None, f"fewer than {FEWEST} random allocations in every region"
    said = f"Spearman within regions {value:.2f}, {ends[0]:.2f} to {ends[1]:.2f}"
    if ends[0] > ORDERS:
        return "trust", None, said
    for limit in LIMITS:
        some = [points.where(points.measured < limit) for points in whole]
        if sum(len(points.measured) for points in some) == sum(len(points.measured) for points in whole):
            continue
        part, found = within_regions(some, rng)
        if found[0] > ORDERS:
            return "trust below", limit, f"{said}; below {limit:g} nat {part:.2f}, {found[0]:.2f} to {found[1]:.2f}"
    if repeat <= ORDERS and ends[1] > ORDERS * math.sqrt(max(repeat, 0.0)):
        return (
            "cannot tell",
            None,
            f"{said}; a second measurement of this size would reach {repeat:.2f}: too few samples",
        )
    return "do not trust", None, said


def _size(whole: Sequence[Points], limit: float | None) -> tuple[bool, str]:
    together = pooled(whole)
    found = ratio(together if limit is None else together.where(together.measured < limit))
    if found.count < FEWEST:
        return False, f"only {found.count} allocations measured well below {SMALL_LOSS} nat to compare sizes with"
    said = f"predicted / measured {found.median:.2f}, {found.q10:.2f} to {found.q90:.2f}"
    median = 1 / MEDIAN_WITHIN <= found.median <= MEDIAN_WITHIN
    return median and found.q10 >= 1 / SPREAD_WITHIN and found.q90 <= SPREAD_WITHIN, said


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
