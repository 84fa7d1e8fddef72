"""Rank correlations against scipy's, and resamples against those of the drawn points themselves."""

import math

import numpy as np
import pytest
from scipy import stats

from allocator.faithfulness import ordering
from allocator.faithfulness.ordering import Resampled, interval, kendall, mid_ranks, resamples, spearman


def columns(seed, n, ties):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = 0.6 * x + rng.normal(size=n)
    return (np.round(x, 0), np.round(y, 1)) if ties else (x, y)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 3, 17, 160])
def test_both_correlations_are_those_of_scipy(n, ties):
    x, y = columns(n, n, ties)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12, nan_ok=True)
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12, nan_ok=True)
    assert np.array_equal(mid_ranks(x), stats.rankdata(x))


def test_tau_a_counts_ties_as_neither():
    assert kendall([1, 2, 3], [1, 1, 2], ties=False) == pytest.approx(2 / 3)
    assert kendall([1, 2, 3], [1, 1, 2]) == pytest.approx(2 / math.sqrt(6))


def test_blocks_change_nothing(monkeypatch):
    x, y = columns(3, 101, True)
    whole = kendall(x, y)
    monkeypatch.setattr(ordering, "BLOCK", 300)
    assert kendall(x, y) == whole


@pytest.mark.parametrize("ties", [False, True])
def test_resamples_are_those_of_repeated_points(ties):
    x, y = columns(5, 40, ties)
    counts = resamples(40, 25, np.random.default_rng(0))
    assert counts.sum(1).tolist() == [40] * 25
    drawn = Resampled(x, y)
    rho, tau = drawn.spearman(counts), drawn.kendall(counts)
    for i, count in enumerate(counts):
        a, b = np.repeat(x, count), np.repeat(y, count)
        assert rho[i] == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-5)
        assert tau[i] == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-5)


def test_what_has_no_order_has_no_number():
    assert math.isnan(spearman([1, 1], [1, 2]))
    assert math.isnan(kendall([1, 1], [1, 2]))
    assert math.isnan(spearman([1], [1]))
    assert math.isnan(kendall([], []))
    assert all(math.isnan(end) for end in interval(np.array([np.nan]), 0.9))
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5, 95))


def test_the_interval_covers_the_truth():
    """ρ of a bivariate normal with correlation r is 6/π·asin(r/2); the interval should hold it about 9 times in 10."""
    truth, hits = 6 / math.pi * math.asin(0.7 / 2), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=80)
        y = 0.7 * x + math.sqrt(1 - 0.49) * rng.normal(size=80)
        low, high = interval(Resampled(x, y).spearman(resamples(80, 200, rng)), 0.9)
        hits += low <= truth <= high
    assert 45 <= hits <= 60
