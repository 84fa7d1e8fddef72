"""From sums per sample to the columns of a score: means and their standard errors over samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from allocator.errors import UsageError
from allocator.tasks.measurement import Measured, ratio
from profilers._score import Score


def enough(name: str, samples: int) -> None:
    """Refuse a single sample, which says nothing about its own error."""
    if samples < 2:
        raise UsageError(
            f"{name} needs at least 2 calibration samples for a standard error, and got {samples}: give more, or "
            "several batches where a whole batch is one sample"
        )


def means(
    sums: Sequence[Tensor],
    counts: Sequence[Tensor],
    *,
    unit: str,
    target: Literal["kl", "ce", "proxy"],
    per: str | None = None,
) -> Score:
    """Σ_n sums / Σ_n counts of every choice with its standard error, see `ratio`; 0 where all counts are 0.

    Args:
        sums: per target [N, choices], in float64.
        counts: per target [N].
        unit: of the score.
        target: of the score.
        per: of the score.
    """
    cells = [
        [ratio(column, count) if bool(count.any()) else Measured(0.0, 0.0) for column in own.T]
        for own, count in zip(sums, counts, strict=True)
    ]
    values = [[cell.value for cell in row] for row in cells]
    errors = [[cell.stderr for cell in row] for row in cells]
    return Score(values, errors, unit=unit, target=target, per=per)


def joined(pieces: Sequence[dict[str, Tensor]], kind: str, places: int) -> list[Tensor]:
    """``{kind}/{place}`` of all pieces along the samples, per target."""
    return [torch.cat([piece[f"{kind}/{place}"] for piece in pieces]) for place in range(places)]
