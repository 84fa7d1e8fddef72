"""A mixed-integer program as engines that compute in floats want it: one matrix, scaled to their tolerances."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from allocator.milp import Milp
from allocator.milp_terms import Block
from allocator.statement import FloatArray, IntArray

FINITE = 1e15  # engines take what is larger for infinite
REACH = 23  # what an engine sees runs up to 2^23, so that its absolute tolerance of 1e-6 is 1e-13 of it


@dataclass(frozen=True, eq=False)
class Scaled:
    """A program for engines that compute in floats: matrix in compressed rows, assignment rows first.

    The objective is 2^exponent times the program's; rows whose coefficients are large, and all float rows,
    are multiplied by a power of two, `row_exponent`. budget and unit: of each row's block.
    """

    model: Milp
    objective: FloatArray
    exponent: int
    indptr: IntArray
    index: IntArray
    value: FloatArray
    lo: FloatArray
    hi: FloatArray
    row_exponent: IntArray
    budget: IntArray
    unit: FloatArray

    def offset(self, gap: float) -> float:
        """What the scaled objective leaves out; 0 where nobody looks at it, or where an engine may call it infinite."""
        constant = math.ldexp(self.model.constant, self.exponent)
        return constant if gap and abs(constant) < FINITE else 0.0

    @property
    def error(self) -> float:
        """What a tolerance of 1e-6 on the scaled objective is in the program's own."""
        return math.ldexp(1e-6, -self.exponent) if self.objective.any() else 0.0

    def total(self, value: float) -> float:
        """The program's objective for a scaled one without its offset."""
        return math.ldexp(value, -self.exponent) + self.model.constant


def scaled(model: Milp) -> Scaled:
    """Scale a program so that an absolute tolerance of about 1e-6 is 1e-13 of what matters."""
    groups = len(model.start) - 1
    tops = np.maximum.reduceat(model.objective[: len(model.row)], model.start[:-1])
    rest = np.abs(model.objective[len(model.row) :])
    exponent = _exponent(np.concatenate([tops, rest]))
    choices = np.arange(len(model.row))
    ones = np.ones(groups)
    parts = [Block(model.start, choices, np.ones(len(choices)), ones, ones)]
    parts += [*model.blocks, *(m.rows.under(m.variable) for m in model.maxima)]
    powers, budgets, units = [], [], []
    for i, block in enumerate(parts):
        wide = block.reach > 2.0**REACH or (block.value.dtype.kind == "f" and i > 0)
        power = _exponent(np.array([block.reach])) if wide else 0
        powers.append(np.full(block.count, power, np.int64))
        budgets.append(np.full(block.count, block.budget, np.int64))
        units.append(np.full(block.count, float(block.unit)))
    lo, hi = zip(*(b.float_limits() for b in parts), strict=True)
    lengths = np.concatenate([np.diff(b.indptr) for b in parts])
    row_exponent = np.concatenate(powers)
    value = np.concatenate([b.value.astype(np.float64) for b in parts])
    return Scaled(
        model=model,
        objective=np.ldexp(model.objective, exponent),
        exponent=exponent,
        indptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        index=np.concatenate([b.index for b in parts]),
        value=np.ldexp(value, np.repeat(row_exponent, lengths)),
        lo=_finite(np.ldexp(np.concatenate(lo), row_exponent), -1),
        hi=_finite(np.ldexp(np.concatenate(hi), row_exponent), 1),
        row_exponent=row_exponent,
        budget=np.concatenate(budgets),
        unit=np.concatenate(units),
    )


def _finite(limits: FloatArray, side: int) -> FloatArray:
    """Limits far beyond any sum, which engines refuse: none on their own side, out of reach on the other."""
    return side * np.where(side * limits > FINITE, np.inf, np.maximum(side * limits, -FINITE))


def _exponent(sizes: FloatArray) -> int:
    """The power of two that brings the sum of these sizes to just under 2^23."""
    largest = float(sizes.max(initial=0.0))
    if largest == 0.0:
        return 0
    _, high = math.frexp(largest)
    _, more = math.frexp(math.fsum(np.ldexp(sizes, -high).tolist()))
    return REACH - high - more
