"""Sums of long arrays are those of math.fsum, to the last bit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from allocator.sums import BLOCK, FEW, exact_sum
from allocator.testing.depth import times

RNG = np.random.default_rng(0)
KINDS: dict[str, Callable[[int], np.ndarray]] = {
    "uniform": lambda n: RNG.random(n),
    "signed": lambda n: RNG.standard_normal(n),
    "wide": lambda n: RNG.standard_normal(n) * 10.0 ** RNG.integers(-150, 150, n),
    "narrow": lambda n: 1.0 + RNG.random(n) * 1e-12,
    "cancelling": lambda n: np.concatenate([x := RNG.standard_normal(n // 2) * 1e10, -x[::-1], [1e-20]]),
    "minute": lambda n: RNG.integers(-9, 9, n) * 5e-324,
    "near the end of the range": lambda n: RNG.random(n) * 1e300,
    "integers": lambda n: RNG.integers(-(2**52), 2**52, n).astype(np.float64),
    "zeros": lambda n: np.zeros(n),
    "one large": lambda n: np.append(RNG.random(n), 1e200),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 7, FEW, FEW + 1, 20_000, BLOCK + 1])
def test_the_sum_is_rounded_once(kind: str, count: int) -> None:
    for _ in range(times(3)):
        values = KINDS[kind](count)
        kept = values.copy()
        assert exact_sum(values) == math.fsum(values.tolist())
        assert exact_sum(values, 0.1, -1e-30) == math.fsum([*values.tolist(), 0.1, -1e-30])
        assert (values == kept).all()


def test_what_is_not_finite_stays_so() -> None:
    assert exact_sum(np.full(FEW + 1, np.inf)) == math.inf
    assert math.isnan(exact_sum(np.full(FEW + 1, np.nan)))
