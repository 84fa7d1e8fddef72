"""Ranks of tensor formats: how many numbers are stored at some ranks, and which ranks keep to a share of a weight's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

STEPS = 1 << 12
"""How finely ranks are scaled together before single ones are raised."""

Ranks: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class RankRule:
    """How the ranks of a format follow from the shape [O, I, …kernel] of a weight.

    Attributes:
        most: the largest useful ranks of a weight of a shape.
        count: numbers stored at some ranks.
        together: ranks in proportion to which they are scaled, no larger than the largest; None: those.
        dims: of a chain whose ranks are kept to what their neighbours leave (`attainable`); None: they are not.
    """

    most: Callable[[Sequence[int]], Ranks]
    count: Callable[[Sequence[int], Ranks], int]
    together: Callable[[Sequence[int]], Ranks] | None = None
    dims: Callable[[Sequence[int]], Ranks] | None = None

    def ranks(self, shape: Sequence[int], share: float, multiple: int = 1) -> Ranks | None:
        """The ranks that store at most ``share`` of the weight's numbers: scaled together, then raised one by one.

        Each is a multiple of ``multiple``, or the most that it can be where that is less. None if even ranks of 1 store
        more; the least multiple is taken even where it stores more.
        """
        most, allowed = self.most(shape), share * math.prod(shape)
        towards = most if self.together is None else self.together(shape)

        def scaled(step: int) -> Ranks:
            return self._fitting(shape, [t * step // STEPS for t in towards], most, multiple)

        low, high = 0, STEPS
        if self.count(shape, (1,) * len(most)) > allowed:
            return None
        while low < high:  # count never falls with the step
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.count(shape, scaled(middle)) <= allowed else (low, middle - 1)
        ranks = scaled(low)
        grown = True
        while grown:
            grown = False
            for i, limit in enumerate(most):
                raised = (*ranks[:i], ranks[i] + multiple, *ranks[i + 1 :])
                fits = raised[i] <= limit and self._fitting(shape, raised, most, multiple) == raised
                if fits and self.count(shape, raised) <= allowed:
                    ranks, grown = raised, True
        return ranks

    def _fitting(self, shape: Sequence[int], ranks: Sequence[int], most: Ranks, multiple: int) -> Ranks:
        """The ranks lowered to multiples, and to what their neighbours leave."""
        found = tuple(map(granular, ranks, (multiple,) * len(most), most))
        if self.dims is None:
            return found
        left = attainable(self.dims(shape), found)
        return attainable(self.dims(shape), tuple(map(granular, left, (multiple,) * len(most), left)))


def granular(rank: int, multiple: int, most: int) -> int:
    """A rank rounded down to a multiple, at least one multiple, at most ``most``."""
    return min(most, max(1, rank // multiple) * multiple)


def attainable(dims: Sequence[int], ranks: Sequence[int]) -> Ranks:
    """The ranks of a chain of dimensions, lowered to what their neighbours leave: r_i ≤ r_(i−1)·d_i, d_(i+1)·r_(i+1).

    Higher ones store more and approximate nothing better.
    """
    found = [1, *ranks, 1]
    for i in range(1, len(dims)):
        found[i] = min(found[i], found[i - 1] * dims[i - 1])
    for i in range(len(dims) - 1, 0, -1):
        found[i] = min(found[i], dims[i] * found[i + 1])
    return tuple(found[1:-1])


def _matrix(shape: Sequence[int]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])


def _tucker_count(shape: Sequence[int], ranks: Ranks) -> int:
    (o, i, *kernel), (p, q) = shape, ranks
    return o * p + i * q + p * q * math.prod(kernel)


def chain(shape: Sequence[int]) -> tuple[int, ...]:
    """The dimensions of [O, I, …kernel] in the order of a tensor train: O, kernel, I."""
    return (shape[0], *shape[2:], shape[1])


def _tt_most(shape: Sequence[int]) -> Ranks:
    dims = chain(shape)
    return tuple(min(math.prod(dims[:i]), math.prod(dims[i:])) for i in range(1, len(dims)))


def _tt_narrow(shape: Sequence[int]) -> Ranks:
    most = _tt_most(shape)
    inner = -(-math.isqrt(shape[0] * shape[1]) // 2)
    return (most[0], *(min(inner, m) for m in most[1:-1]), most[-1])


def _tt_count(shape: Sequence[int], ranks: Ranks) -> int:
    ends = (1, *ranks, 1)
    return sum(ends[i] * size * ends[i + 1] for i, size in enumerate(chain(shape)))


SVD = RankRule(most=lambda shape: (min(_matrix(shape)),), count=lambda shape, ranks: ranks[0] * sum(_matrix(shape)))
"""The matrix O × I·kernel as two factors."""
CP = RankRule(most=lambda shape: (math.prod(shape) // max(shape),), count=lambda shape, ranks: ranks[0] * sum(shape))
"""A sum of R outer products, one vector for each dimension."""
TUCKER2 = RankRule(most=lambda shape: (shape[0], shape[1]), count=_tucker_count)
"""A core with fewer output and input channels, and a factor for each; the kernel stays whole."""
TT = RankRule(most=_tt_most, count=_tt_count)
"""A chain O – kernel – … – I, as the layers that would run it."""


RULES: Mapping[str, RankRule] = {
    "tucker2": replace(TUCKER2, dims=lambda shape: (shape[0], math.prod(shape[2:]), shape[1])),
    "cp": CP,
    "tt": replace(TT, dims=chain, together=_tt_narrow),
}
"""By kind of action. The ranks of a train within its kernel are half as large as those of its channels: at equal
numbers that leaves less error than ranks in proportion to the largest."""
