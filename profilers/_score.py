"""What one statistic says about every choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Score:
    """One column of a problem.

    Attributes:
        value: per target, per choice.
        stderr: standard errors over samples in the same shape; None for a statistic that is exact.
        remainder: ≥ 0 in the same shape: how far the measured loss may lie from the score; None where unmeasured.
        unit: ``nat`` or ``1``.
        target: what the number stands for: ``kl``, or ``proxy`` for a number that only ranks.
        per: what a ``nat`` is counted per: sample, token, text; None where that says nothing.
    """

    value: Sequence[Sequence[float]]
    stderr: Sequence[Sequence[float]] | None
    unit: str
    target: Literal["kl", "ce", "metric", "proxy"]
    per: str | None = None
    remainder: Sequence[Sequence[float]] | None = None
