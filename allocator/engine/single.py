"""One budget, exactly: the linear relaxation, reduced-cost fixing, and a list program on what survives.

Both engines, C and numpy, take a `Knapsack` and return `Found`. (Dyer 1984, Zemel 1984: relaxation without a
general LP solver; Pisinger 1995: list program on a growing core.)
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from allocator.engine import native
from allocator.engine.found import Found
from allocator.engine.knapsack import Knapsack
from allocator.statement import FloatArray, IntArray

MOST_NODES = 48_000_000
LIMITS = {0: None, 1: "time", 2: "states"}
INT64 = 2**63 - 1
MINUTE = 1e-270  # values that are all below it lose digits once they are divided by costs


def solve_single(
    knapsack: Knapsack,
    *,
    tolerance: float | None = None,
    seconds: float = math.inf,
    most_nodes: int = MOST_NODES,
    start: IntArray | None = None,
    engine: str | None = None,
) -> Found:
    """Least Σ value within the capacity.

    Args:
        knapsack: the normal form.
        tolerance: gains up to it may be left alone; default a quarter of 1e-12·Σ_g max |value|.
        seconds: stop after so many, with what there is.
        most_nodes: changes remembered at most (8 bytes each).
        start: rows [G] of an allocation to begin from; one over the capacity is left out.
        engine: "c" or "numpy"; default C where the extension is there.
    """
    if start is not None and sum(knapsack.cost[start].tolist()) > knapsack.capacity:
        start = None
    if (power := _lift(knapsack.value)) != 0:
        return _lifted(knapsack, power, tolerance, seconds, most_nodes, start, engine)
    kernels = native() if engine != "numpy" else None
    if kernels is None:
        from allocator.engine import single_numpy

        return single_numpy.solve(knapsack, tolerance, seconds, most_nodes, start)
    groups = len(knapsack.indptr) - 1
    taken = np.empty(groups, np.int64)
    numbers = np.zeros(12)
    kernels.single(
        knapsack.indptr,
        knapsack.value,
        knapsack.cost,
        knapsack.free,
        start,
        min(max(knapsack.capacity, -INT64), INT64),
        -1.0 if tolerance is None else tolerance,
        min(seconds, 1e9),
        most_nodes,
        taken,
        numbers,
    )
    infeasible, limit, multiplier, short, *counts = numbers.tolist()
    names = ("divisor", "core_divisor", "states", "longest", "core_groups", "passes", "open")
    statistics = {"engine": "c", **{n: int(v) for n, v in zip(names, counts, strict=False)}}
    return Found(None if infeasible else taken, multiplier, short, LIMITS[int(limit)], statistics)


def _lift(value: FloatArray) -> int:
    """The power of two that brings values which are all minute near 1; 0 where they are not."""
    if np.abs(value[:64]).max() >= MINUTE:
        return 0
    largest = float(np.abs(value).max())
    return -math.frexp(largest)[1] if 0 < largest < MINUTE else 0


def _lifted(
    knapsack: Knapsack,
    power: int,
    tolerance: float | None,
    seconds: float,
    most_nodes: int,
    start: IntArray | None,
    engine: str | None,
) -> Found:
    """The same with all values times 2^power, which is exact."""
    larger = dataclasses.replace(knapsack, value=np.ldexp(knapsack.value, power))
    close = tolerance
    if tolerance is not None:  # beyond the sum of all values it is as good as infinite
        close = math.ldexp(tolerance, power) if tolerance < 1e20 * MINUTE else math.inf
    found = solve_single(larger, tolerance=close, seconds=seconds, most_nodes=most_nodes, start=start, engine=engine)
    back = -power
    return dataclasses.replace(
        found, multiplier=math.ldexp(found.multiplier, back), short=math.ldexp(found.short, back)
    )
