"""Stages in a chain under one budget: the least Σ value + Σ tables between neighbours, exactly.

A Lagrangian over the budget gives a price, a bound and allocations to begin with. Lists of states are then worked
through from both ends of the chain: a state is a choice of its stage, what has been used and lost so far; one that
another of the same choice undercuts in both is dropped, and so is one that cannot come below a cut even with the
best completion at the price. The two sides meet where the lists are shortest together. The cut begins close to the
bound and rises until something lies below it: that is then the optimum, whatever was known before. (Nemhauser and
Ullmann 1969: lists without dominated states; Bertelè and Brioschi 1972: stages in a chain.)
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from allocator.engine import native
from allocator.statement import FloatArray, IntArray

MOST_STATES = 8_000_000  # in the lists of one cut: 192 MB
LIMITS = {0: None, 1: "time", 2: "states"}
FOREVER = 1e9  # seconds


@dataclass(frozen=True, eq=False)
class Chain:
    """min Σ value[k_i] + Σ_i table_i[k_i, k_i+1] with Σ cost[k_i] ≤ capacity, one choice k_i of every stage i.

    start [n+1], n ≥ 2: choices of each stage. value [m]. cost [m]: int64, ≥ 0, a choice of 0 in every stage; the
    largest of all stages add up to less than 2^63. table: [size_i, size_i+1] of each i < n−1, one after another in
    one array, begin [n] the first entry of each and the end.
    """

    start: IntArray
    value: FloatArray
    cost: IntArray
    table: FloatArray
    begin: IntArray
    capacity: int


@dataclass(frozen=True, eq=False)
class Chained:
    """taken: a choice of each stage [n], an index into `value`; None where nothing keeps the capacity.

    value: of it. bound: no allocation's value is below it, to rounding; the value itself where it is optimal.
    price: per unit of the capacity. states: in all lists. cuts: that were tried. limit: None, "time" or "states".
    """

    taken: IntArray | None
    value: float
    bound: float
    price: float = 0.0
    states: int = 0
    cuts: int = 0
    limit: str | None = None


def solve_chain(
    chain: Chain,
    *,
    tolerance: float,
    gap: float = 0.0,
    offset: float = 0.0,
    seconds: float = math.inf,
    most_states: int = MOST_STATES,
    engine: str | None = None,
) -> Chained:
    """The best allocation and a bound, equal where no limit fired.

    Args:
        chain: what to solve.
        tolerance: gains up to it may be left alone.
        gap: stop where value − bound ≤ gap·|value + offset|.
        offset: what the objective has beside the value.
        seconds: stop after so many, with what there is.
        most_states: in the lists of one cut.
        engine: "c" or "numpy"; None takes C where it is there.
    """
    if chain.capacity < 0:
        return Chained(None, math.inf, math.inf)
    lift = _lift(chain)
    value, table = np.ldexp(chain.value, lift), np.ldexp(chain.table, lift)  # near 1: prices keep their digits
    lifted = Chain(chain.start, value, chain.cost, table, chain.begin, chain.capacity)
    aims = (math.ldexp(tolerance, lift), gap, math.ldexp(offset, lift), min(max(seconds, 0.0), FOREVER))
    kernels = native() if engine != "numpy" else None
    if kernels is None:
        from allocator.engine import chain_numpy

        found = chain_numpy.solve(lifted, *aims, most_states)
    else:
        taken, numbers, counts = np.empty(len(chain.start) - 1, np.int64), np.array([*aims, 0.0]), np.zeros(3, np.int64)
        arrays = (chain.start, value, chain.cost, table, chain.begin, taken, numbers, counts)
        sizes = [len(taken), chain.capacity, most_states]
        frame = np.array([*sizes, *(a.ctypes.data for a in arrays)], np.int64)
        if kernels.chain(frame.ctypes.data) < 0:
            raise MemoryError("the lists of a chain do not fit the memory")
        states, cuts, limit = counts.tolist()
        best, bound, price = numbers[:3].tolist()
        found = Chained(taken, best, bound, price, states, cuts, LIMITS[limit])
    best, bound, price = (math.ldexp(x, -lift) for x in (found.value, found.bound, found.price))
    return dataclasses.replace(found, value=best, bound=bound, price=price)


def _lift(chain: Chain) -> int:
    """The power of two that brings the largest value near 1."""
    largest = max(float(np.abs(chain.value).max(initial=0.0)), float(np.abs(chain.table).max(initial=0.0)))
    return -math.frexp(largest)[1]
