"""`math.fsum` of a long array without a list of its numbers."""

from __future__ import annotations

import math

from allocator.statement import FloatArray

FEW = 2048  # below it a list is faster
BLOCK = 1 << 16
ROUNDS = 8


def exact_sum(values: FloatArray, *more: float) -> float:
    """The sum of all numbers, rounded once: the same number as `math.fsum([*values, *more])`.

    A power of two σ ≥ n·max |x| splits each x into (x + σ) − σ, a multiple of σ·2^−53, and an exact rest: the
    multiples add up without rounding in any order, and the rest is split again (S. M. Rump, T. Ogita, S. Oishi,
    Accurate floating-point summation, SIAM J. Sci. Comput. 31, 2008).
    """
    parts = list(more)
    if len(values) <= FEW:
        return math.fsum([*parts, *values.tolist()])
    for first in range(0, len(values), BLOCK):
        parts += _parts(values[first : first + BLOCK])
    return math.fsum(parts)


def _parts(values: FloatArray) -> list[float]:
    """A few numbers whose exact sum is that of the values; what eight splits leave stands by itself."""
    parts = []
    lift = math.frexp(len(values) + 2.0)[1]
    for _ in range(ROUNDS):
        largest = max(float(values.max()), -float(values.min()))
        exponent = math.frexp(largest)[1] + lift
        if not 0 < largest < math.inf or exponent > 1022:
            break
        high = values + math.ldexp(1.0, exponent)
        high -= math.ldexp(1.0, exponent)
        parts.append(float(high.sum()))
        values = values - high
    return [*parts, *values[values != 0].tolist()]
