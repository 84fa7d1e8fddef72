"""The curvature of a choice from few projections: pulled towards what its output features say one by one.

With few samples u² is a sum of few squares, right in the mean but wide. Σ_f u_f² over output features f leaves out
what features have in common: narrow, but off by a factor that differs from layer to layer. Their ratio R_j is known
with its standard error s_j, and over the layers of a family it spreads by τ. So the logarithm of R_j is drawn towards
the family's by the share of noise in it, s_j² / (τ² + s_j²): the empirical-Bayes estimate of normal means (Efron and
Morris 1975), on the logarithm. With many samples nothing is drawn, with very few all layers share one factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from allocator.tasks.measurement import ratio
from profilers._families import family
from profilers._score import Score
from profilers._sketch import Sketched

FEWEST = 8
"""Ratios beyond one per family without which their spread is not estimated and nothing is drawn."""


@dataclass(frozen=True)
class _Cell:
    """A choice whose two estimates are above 0; ``noise`` is the relative standard error of their ratio."""

    target: int
    place: int
    family: str
    ratio: float
    noise: float


def shrunk(found: Sketched) -> tuple[Score, float]:
    """The score with its standard errors, and the mean share of the full projection in it (1: nothing was drawn)."""
    full, rows = found.score([u.square().mean(0) for u in found.projections]), found.score(found.rows)
    cells = _cells(found)
    kept = _kept(cells)
    if kept is None or full.stderr is None or rows.stderr is None:
        return full, 1.0
    centre = _centres(cells)
    values = [list(row) for row in full.value]
    errors = [list(row) for row in full.stderr]
    for cell, share in zip(cells, kept.tolist(), strict=True):
        t, k = cell.target, cell.place
        middle = centre[cell.family]
        value = rows.value[t][k] * middle * (cell.ratio / middle) ** share
        wide, narrow = full.stderr[t][k] / full.value[t][k], rows.stderr[t][k] / rows.value[t][k]
        values[t][k] = value
        errors[t][k] = value * math.sqrt(share * wide**2 + (1 - share) * narrow**2)
    return Score(values, errors, full.unit, full.target, full.per), float(kept.mean())


def _cells(found: Sketched) -> list[_Cell]:
    cells = []
    for t, target in enumerate(found.plan.targets):
        squares = found.projections[t].square().mean(0)
        for column, place in enumerate(found.places[t]):
            measured = ratio(squares[:, column], found.rows[t][:, column])
            if math.isfinite(measured.stderr) and measured.value > 0:
                noise = measured.stderr / measured.value
                cells.append(_Cell(t, place, family(target.menu[place]), measured.value, noise))
    return cells


def _centres(cells: list[_Cell]) -> dict[str, float]:
    """Mean ratio of every family: the mean, not that of logarithms, because noise does not move it."""
    gathered: dict[str, list[float]] = {}
    for cell in cells:
        gathered.setdefault(cell.family, []).append(cell.ratio)
    return {name: float(np.mean(ratios)) for name, ratios in gathered.items()}


def _kept(cells: list[_Cell]) -> NDArray[np.float64] | None:
    """Share of each choice's own ratio, τ² / (τ² + s²); None where τ cannot be estimated."""
    families: dict[str, list[int]] = {}
    for i, cell in enumerate(cells):
        families.setdefault(cell.family, []).append(i)
    free = len(cells) - len(families)
    if free < FEWEST:
        return None
    logs, noise = np.log([cell.ratio for cell in cells]), np.square([cell.noise for cell in cells])
    spread = sum(float(((logs[own] - logs[own].mean()) ** 2).sum()) for own in families.values()) / free
    between = max(0.0, spread - float(noise.mean()))
    shares: NDArray[np.float64] = np.ones(len(cells)) if not noise.any() else between / (between + noise)
    return shares
