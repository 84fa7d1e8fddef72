"""Tensor formats as approximations of a weight: what CP, Tucker, TT and SVD leave of it at a given number of numbers.

The decompositions are those of tensorly (extra ``study``), in float64; the ranks are chosen here, so that a format
stores at most the share of the weight's numbers that it is allowed, and as many of them as ranks permit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from allocator.errors import UnavailableError, UsageError
from allocator.statement import FloatArray

ITERATIONS = 60
"""Of alternating least squares for CP."""
STEPS = 1 << 12
"""How finely ranks are scaled together before single ones are raised."""

Ranks = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Approximated:
    """A weight as a format returns it: ``weight`` in the shape that it had, and how many numbers are stored."""

    weight: FloatArray
    parameters: int
    ranks: Ranks


@dataclass(frozen=True)
class Format:
    """One tensor format.

    Attributes:
        name: short.
        most: the largest useful ranks of a weight of a shape.
        count: numbers stored at some ranks.
        approximate: the weight [O, I, …kernel] at some ranks; the seed is for formats with a random start.
    """

    name: str
    most: Callable[[Sequence[int]], Ranks]
    count: Callable[[Sequence[int], Ranks], int]
    approximate: Callable[[FloatArray, Ranks, int], FloatArray]

    def ranks(self, shape: Sequence[int], share: float) -> Ranks | None:
        """The ranks that store at most ``share`` of the weight's numbers: scaled together, then raised one by one.

        None if even ranks of 1 store more.
        """
        most, allowed = self.most(shape), share * math.prod(shape)

        def scaled(step: int) -> Ranks:
            return tuple(max(1, m * step // STEPS) for m in most)

        low, high = 0, STEPS
        if self.count(shape, scaled(low)) > allowed:
            return None
        while low < high:  # count never falls with the step
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.count(shape, scaled(middle)) <= allowed else (low, middle - 1)
        ranks = scaled(low)
        grown = True
        while grown:
            grown = False
            for i, limit in enumerate(most):
                raised = (*ranks[:i], ranks[i] + 1, *ranks[i + 1 :])
                if ranks[i] < limit and self.count(shape, raised) <= allowed:
                    ranks, grown = raised, True
        return ranks

    def __call__(self, weight: FloatArray, share: float, seed: int = 0) -> Approximated | None:
        """The weight [O, I, …kernel] at the largest ranks that a share of its numbers allows; None if none does."""
        ranks = self.ranks(weight.shape, share)
        if ranks is None:
            return None
        made = self.approximate(np.asarray(weight, np.float64), ranks, seed)
        return Approximated(made.reshape(weight.shape), self.count(weight.shape, ranks), ranks)


# -- SVD: the matrix O × I·kernel as two factors ---------------------------------------------------------------------


def _matrix(shape: Sequence[int]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])


def _svd(weight: FloatArray, ranks: Ranks, seed: int) -> FloatArray:
    u, s, vt = np.linalg.svd(weight.reshape(_matrix(weight.shape)), full_matrices=False)
    r = ranks[0]
    return np.asarray((u[:, :r] * s[:r]) @ vt[:r], np.float64)


# -- CP: a sum of R outer products, one vector for each dimension ----------------------------------------------------


def _cp_most(shape: Sequence[int]) -> Ranks:
    return (math.prod(shape) // max(shape),)


def _cp(weight: FloatArray, ranks: Ranks, seed: int) -> FloatArray:
    from tensorly import cp_to_tensor
    from tensorly.decomposition import parafac

    with warnings.catch_warnings():  # ranks beyond a dimension start at random there, as they must
        warnings.simplefilter("ignore")
        found = parafac(weight, ranks[0], n_iter_max=ITERATIONS, init="svd", random_state=seed, l2_reg=1e-10)
    return np.asarray(cp_to_tensor(found), np.float64)


# -- Tucker: a core with fewer output and input channels, and a factor for each; the kernel stays whole --------------


def _tucker_count(shape: Sequence[int], ranks: Ranks) -> int:
    (o, i, *kernel), (p, q) = shape, ranks
    return o * p + i * q + p * q * math.prod(kernel)


def _tucker(weight: FloatArray, ranks: Ranks, seed: int) -> FloatArray:
    from tensorly.decomposition import partial_tucker
    from tensorly.tenalg import multi_mode_dot

    (core, factors), _ = partial_tucker(weight, list(ranks), modes=[0, 1], init="svd", random_state=seed)
    return np.asarray(multi_mode_dot(core, factors, modes=[0, 1]), np.float64)


# -- TT: a chain O – kernel – … – I, as the layers that would run it ---------------------------------------------------


def _chain(shape: Sequence[int]) -> list[int]:
    return [shape[0], *shape[2:], shape[1]]


def _tt_most(shape: Sequence[int]) -> Ranks:
    dims = _chain(shape)
    return tuple(min(math.prod(dims[:i]), math.prod(dims[i:])) for i in range(1, len(dims)))


def _tt_count(shape: Sequence[int], ranks: Ranks) -> int:
    ends = (1, *ranks, 1)
    return sum(ends[i] * size * ends[i + 1] for i, size in enumerate(_chain(shape)))


def _tt(weight: FloatArray, ranks: Ranks, seed: int) -> FloatArray:
    from tensorly import tt_to_tensor
    from tensorly.decomposition import tensor_train

    with warnings.catch_warnings():  # a rank that its neighbours do not allow is lowered
        warnings.simplefilter("ignore")
        found = tensor_train(np.moveaxis(weight, 1, -1), [1, *ranks, 1])
    return np.moveaxis(np.asarray(tt_to_tensor(found), np.float64), -1, 1)


FORMATS: Mapping[str, Format] = {
    made.name: made
    for made in (
        Format("CP", _cp_most, lambda shape, ranks: ranks[0] * sum(shape), _cp),
        Format("Tucker", lambda shape: (shape[0], shape[1]), _tucker_count, _tucker),
        Format("TT", _tt_most, _tt_count, _tt),
        Format("SVD", lambda s: (min(_matrix(s)),), lambda s, ranks: ranks[0] * sum(_matrix(s)), _svd),
    )
}
"""By name. Of a matrix all four are the same, so linear layers and 1 × 1 convolutions are approximated by SVD alone."""


def formats_named(names: Sequence[str]) -> list[Format]:
    """The formats of these names, in any case.

    Raises:
        UsageError: there is none of a name, or no name at all.
        UnavailableError: tensorly is not installed, which all but SVD need.
    """
    if not names:
        raise UsageError(f"no tensor format was given: take some of {', '.join(FORMATS)}")
    known = {name.lower(): one for name, one in FORMATS.items()}
    for name in names:
        if name.lower() not in known:
            raise UsageError(f"there is no tensor format {name!r}: take some of {', '.join(FORMATS)}")
    found = list(dict.fromkeys(known[name.lower()] for name in names))
    if any(one.name != "SVD" for one in found) and find_spec("tensorly") is None:
        raise UnavailableError("tensor formats need 'tensorly'; pip install 'compression-allocator[study]'")
    return found


def suits(tensor_format: Format, shape: Sequence[int]) -> bool:
    """Whether a format says something of its own about a weight of this shape."""
    return tensor_format.name == "SVD" or math.prod(shape[2:]) > 1
