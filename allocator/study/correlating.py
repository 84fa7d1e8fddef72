"""Kendall's τ between an error of approximations and what they cost the network, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from allocator.faithfulness.ordering import Resampled, interval, kendall, resamples
from allocator.study.errors_of_layers import ERRORS

LEVEL, DRAWS = 0.9, 400
STRONG = 0.5
"""The published figure shows the levels from here on."""
FEWEST = 4
"""Approximations without which a selection is left out."""


class Approximation(Protocol):
    """What is needed of a row of the study."""

    @property
    def tensor_format(self) -> str:
        """What the layer is approximated by."""

    @property
    def fewer(self) -> float:
        """Share of the weights taken away."""

    @property
    def errors(self) -> dict[str, float]:
        """The six errors."""

    @property
    def drops(self) -> dict[str, float]:
        """What the network loses."""


@dataclass(frozen=True)
class Correlation:
    """One error against one drop over a selection of approximations.

    Attributes:
        error: one of the six, or ``kl``: a measured divergence as a predictor of the other drops.
        drop: ``kl``, ``loss`` or ``accuracy``.
        selection: ``all``, ``50 % fewer and more`` (the published figure's), one level, or one format.
        count: approximations.
        tau: τ-b.
        interval: central 90 % of bootstrap draws over approximations.
        tau_a: τ-a = 2(concordant − discordant)/(m(m−1)), the published definition, which ties draw towards 0.
    """

    error: str
    drop: str
    selection: str
    count: int
    tau: float
    interval: tuple[float, float]
    tau_a: float


def correlations(rows: Sequence[Approximation], seed: int) -> list[Correlation]:
    """Every error against every drop, over all rows, the strong levels, each level and each format."""
    found: list[Correlation] = []
    rng = np.random.default_rng(seed)
    for name, some in selections(rows):
        counts = resamples(len(some), DRAWS, rng)
        for drop in some[0].drops:
            lost = [row.drops[drop] for row in some]
            named = {error: [row.errors[error] for row in some] for error in ERRORS}
            if drop != "kl":
                named["kl"] = [row.drops["kl"] for row in some]
            for error, values in named.items():
                ends = interval(Resampled(values, lost).kendall(counts), LEVEL)
                tau, plain = kendall(values, lost), kendall(values, lost, ties=False)
                found.append(Correlation(error, drop, name, len(some), tau, ends, plain))
    return found


def selections(rows: Sequence[Approximation]) -> Iterator[tuple[str, list[Approximation]]]:
    """Selections of at least `FEWEST` rows, with their names."""
    strong = [row for row in rows if row.fewer >= STRONG]
    named: dict[str, list[Approximation]] = {"all": list(rows), f"{100 * STRONG:g} % fewer and more": strong}
    for level in sorted({row.fewer for row in rows}):
        named[f"{100 * level:g} % fewer"] = [row for row in rows if row.fewer == level]
    for one in dict.fromkeys(row.tensor_format for row in rows):
        named[one] = [row for row in rows if row.tensor_format == one]
    for name, some in named.items():
        if len(some) >= FEWEST:
            yield name, some
