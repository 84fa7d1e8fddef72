"""Random whole allocations in four groups of widths: what predictions for a network are tested on."""

from __future__ import annotations

import numpy as np

from allocator.statement import IntArray
from benchmarks.profilers.subject import Subject
from benchmarks.solvers.case import Draw

RANGES = ((2, 8), (2, 4), (3, 6), (5, 8))
EACH, SEED = 40, 160


def allocations(subject: Subject, each: int = EACH) -> IntArray:
    """[4·each, G] indices within groups: every group's width uniform over a range of bits, range after range."""
    draw, groups = Draw(SEED), subject.plain.group_count
    by_bits = np.stack([subject.uniform(f"int{bits}") for bits in range(2, 9)])
    bits = np.concatenate([draw.integers(low, high, each, groups) for low, high in RANGES])
    return np.take_along_axis(by_bits, bits - 2, 0)


def of_range(low: int, high: int, each: int = EACH) -> slice:
    """Where the allocations of one range stand."""
    place = RANGES.index((low, high))
    return slice(place * each, (place + 1) * each)
