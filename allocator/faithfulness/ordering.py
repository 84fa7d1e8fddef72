"""Rank correlations, also of many weighted resamples at once: how alike two columns order the same things."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allocator.statement import FloatArray

BLOCK = 1 << 24
"""Pairs compared at a time."""


def mid_ranks(values: ArrayLike) -> FloatArray:
    """Ranks from 1 in float64; ties share their mean rank."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    shared = np.cumsum(counts) - (counts - 1) / 2
    return np.asarray(shared[inverse], np.float64)


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's ρ: Pearson's correlation of the mid-ranks; nan where either column is constant or has one entry."""
    a, b = (mid_ranks(column) for column in (x, y))
    if len(a) < 2:
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    size = float(a @ a) * float(b @ b)
    return float(a @ b) / math.sqrt(size) if size else math.nan


def kendall(x: ArrayLike, y: ArrayLike, ties: bool = True) -> float:
    """Kendall's τ in [−1, 1]: (concordant − discordant pairs) / a number of pairs; nan where undefined.

    Args:
        x: one column [n].
        y: the other [n].
        ties: τ-b, whose number of pairs is √(pairs untied in x · pairs untied in y); else τ-a, all n(n−1)/2, as in
            the study of Schuurmans et al. (2023), which ties draw towards 0.
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n = len(a)
    agree = in_a = in_b = 0.0
    step = max(1, BLOCK // max(n, 1))
    for start in range(0, n, step):
        s = _signs(a[start : start + step], a)
        t = _signs(b[start : start + step], b)
        agree += float((s * t).sum(dtype=np.float64))
        in_a, in_b = in_a + float(np.count_nonzero(s)), in_b + float(np.count_nonzero(t))
    pairs = math.sqrt(in_a * in_b) if ties else float(n * (n - 1))
    return agree / pairs if pairs else math.nan


class Resampled:
    """Both correlations of one pair of columns under many resamples, without sorting each of them anew.

    A resample is how often each entry occurs [n], not which. The sign matrices S_ij = sign(x_i − x_j) and T of y are
    taken once. With counts w the centred mid-ranks are ½ S w and ½ T w, so
    ρ = Σ w_i (Sw)_i (Tw)_i / √(Σ w_i (Sw)_i² · Σ w_i (Tw)_i²) and τ-b = wᵀ(S∘T)w / √(wᵀ|S|w · wᵀ|T|w).

    Args:
        x: one column [n].
        y: the other [n].
    """

    def __init__(self, x: ArrayLike, y: ArrayLike) -> None:
        a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
        self._x, self._y = (_signs(column, column).astype(np.float32) for column in (a, b))

    def spearman(self, counts: NDArray[Any]) -> FloatArray:
        """ρ of every resample [B], from counts [B, n]; nan where a column is constant in it."""
        w = counts.astype(np.float32)
        a, b = w @ self._x.T, w @ self._y.T
        return _quotient((w * a * b).sum(1, np.float64), *((w * c * c).sum(1, np.float64) for c in (a, b)))

    def kendall(self, counts: NDArray[Any]) -> FloatArray:
        """τ-b of every resample [B]."""
        w = counts.astype(np.float32)
        return _quotient(*((w @ m * w).sum(1, np.float64) for m in (self._x * self._y, self._x**2, self._y**2)))


def resamples(n: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each of n entries occurs in each of ``count`` bootstrap samples of size n: [count, n]."""
    return rng.multinomial(n, np.full(n, 1 / max(n, 1)), size=count) if n else np.zeros((count, 0), np.int64)


def interval(draws: FloatArray, level: float) -> tuple[float, float]:
    """The central share ``level`` of the draws that are numbers; (nan, nan) without one."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def _signs(a: FloatArray, b: FloatArray) -> NDArray[np.int8]:
    return (a[:, None] > b).astype(np.int8) - (a[:, None] < b).astype(np.int8)


def _quotient(top: FloatArray, left: FloatArray, right: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(left * right > 0, top / np.sqrt(left * right), np.nan)
