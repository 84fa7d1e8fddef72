"""Correlations of two networks on the same pairs."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.compression.correlation import spearman


def test_value_and_difference_are_scipys_and_the_error_is_of_what_is_paired():
    rng = np.random.default_rng(0)
    given = rng.normal(size=400)
    base = given + rng.normal(size=400)
    own = base + 0.1 * rng.normal(size=400)
    value, gap = spearman(np.stack([given, own, base]))
    assert value.value == pytest.approx(spearmanr(own, given).statistic)
    assert gap.value == pytest.approx(spearmanr(own, given).statistic - spearmanr(base, given).statistic)
    assert 0.05 * value.stderr < gap.stderr < 0.5 * value.stderr
    same = spearman(np.stack([given, base, base]))[1]
    assert (same.value, same.stderr) == (0, 0)
