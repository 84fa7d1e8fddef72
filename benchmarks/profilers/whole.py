"""How well whole networks are ranked, and how true to scale they are predicted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from allocator.statement import FloatArray
from benchmarks.profilers import draws
from benchmarks.profilers.bench import Bench
from benchmarks.profilers.truth import spearman

SMALL = 0.3
"""Measured KL in nats below which predictions should be true to scale; far above it the network has collapsed."""


def whole(name: str, bench: Bench) -> Mapping[str, float]:
    """Predictions of a predictor for 160 random allocations against measured held-out KL.

    ``pooled`` and ``3-6`` (and the other ranges): Spearman. ``scale``: median of predicted over measured where the
    measured one is below 0.3 nat. ``interactions``: how many parts between groups the prediction has; 0 is additive.
    """
    predictor = bench.predictor(name)
    predicted = predictor.predict(draws.allocations(bench.subject, bench.each))
    found = judged(predicted, np.array(bench.whole_kl()), bench.each)
    return found | {"interactions": float(predictor.interactions)}


def judged(predicted: FloatArray, measured: FloatArray, each: int) -> dict[str, float]:
    """The figures of `whole` from two columns in the order of `draws.allocations`."""
    found = {"pooled": spearman(predicted, measured)}
    for low, high in draws.RANGES:
        part = draws.of_range(low, high, each)
        found[f"{low}-{high}"] = spearman(predicted[part], measured[part])
    small = measured < SMALL
    if small.any():
        found["scale"] = float(np.median(predicted[small] / measured[small]))
    return found
