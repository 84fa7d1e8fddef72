"""How well the score of a single choice ranks what the choice does to held-out data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.profilers.bench import Bench
from benchmarks.profilers.truth import spearman


def single(bench: Bench) -> Mapping[str, float]:
    """Spearman of ggn's unary scores with measured held-out KL.

    ``all``: over all layers and choices. ``within``: of the layers within one width, the mean over widths.
    """
    return agreement(bench.predictor("ggn").unary, bench.single_kl(), bench.subject.labels)


def agreement(predicted: ArrayLike, measured: ArrayLike, labels: Sequence[str]) -> dict[str, float]:
    """Rank correlations of two columns over choices with labels."""
    first, second, label = np.asarray(predicted), np.asarray(measured), np.asarray(labels)
    within = [spearman(first[label == one], second[label == one]) for one in dict.fromkeys(labels)]
    return {"all": spearman(first, second), "within": float(np.mean(within))}
