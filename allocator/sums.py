"""`math.fsum` of a long array without a list of its numbers."""

from __future__ import annotations

import math

from allocator.statement import FloatArray

FEW = 4096  # below it a list is faster
ROUNDS = 8


def exact_sum(values: FloatArray, *more: float) -> float:
    """The sum of all numbers, rounded once: the same number as `math.fsum([*values, *more])`.

    A power of two σ ≥ n·max |x| splits each x into (x + σ) − σ, a multiple of σ·2^−53, and an exact rest: the
    multiples add up without rounding in any order, and the rest is split again (Rump, Ogita, Oishi: Accurate
    floating-point summation, 2008).
    """
    parts = list(more)
    if len(values) > FEW:
        lift = math.frexp(len(values) + 2.0)[1]
        for _ in range(ROUNDS):
            largest = max(abs(float(values.max())), abs(float(values.min())))
            if not 0 < largest < math.inf:
                break
            exponent = math.frexp(largest)[1] + lift
            if exponent > 1022:
                break
            high = values + math.ldexp(1.0, exponent)
            high -= math.ldexp(1.0, exponent)
            parts.append(float(high.sum()))
            values = values - high
        values = values[values != 0]
    return math.fsum([*parts, *values.tolist()])
