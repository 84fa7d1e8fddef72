"""The level at which clipped linear shares use up a given amount: exact, by sorting where they start and stop."""

from __future__ import annotations

import numpy as np

from allocator.statement import FloatArray

FARTHEST = 1e300  # differences of levels stay finite


def shares(base: FloatArray, rate: FloatArray, lo: FloatArray, hi: FloatArray, total: float) -> FloatArray:
    """clip(base + rate·t, lo, hi) [G] for the level t at which the shares add up to the total.

    Their sum does not fall in t and is piecewise linear, so that t comes from one sort of the 2G places where a
    share leaves lo or reaches hi; no iteration. A total below Σ lo gives lo, one above what can be reached gives
    the largest shares.

    Args:
        base: share at level 0 [G].
        rate: of each share, ≥ 0; a share of rate 0 is constant.
        lo: least share [G].
        hi: largest share [G], ≥ lo.
        total: what the shares are to add up to.
    """
    moving = (rate > 0) & (hi > lo)
    fixed = np.clip(np.where(moving, lo, base), lo, hi)
    b, r = base[moving], rate[moving]
    with np.errstate(over="ignore"):  # a share that hardly moves leaves its limits at a level beyond all floats
        places = np.concatenate([(lo[moving] - b) / r, (hi[moving] - b) / r])
    places = np.clip(places, -FARTHEST, FARTHEST)
    if not len(places) or total <= fixed.sum():
        return fixed
    order = np.argsort(places, kind="stable")
    places, turns = places[order], np.concatenate([r, -r])[order]
    sums = fixed.sum() + np.concatenate([[0.0], np.cumsum(np.cumsum(turns)[:-1] * np.diff(places))])
    after = int(np.searchsorted(sums, total))
    if after == len(sums):
        return np.where(moving, hi, fixed)
    t = float(places[after - 1] + (places[after] - places[after - 1]) * _part(sums, after, total))
    return np.where(moving, np.clip(base + rate * t, lo, hi), fixed)


def _part(sums: FloatArray, after: int, total: float) -> float:
    step = float(sums[after] - sums[after - 1])
    return (total - float(sums[after - 1])) / step if step > 0 else 0.0
