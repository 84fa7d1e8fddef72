"""Tensor formats as approximations of a weight: what CP, Tucker, TT and SVD leave of it at a given number of numbers.

The decompositions are those of tensorly (extra ``torch``), in float64; the ranks are chosen here, so that a format
stores at most the share of the weight's numbers that it is allowed, and as many of them as ranks permit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from allocator.actions import tensor_ranks
from allocator.actions.tensor_ranks import RankRule, Ranks
from allocator.errors import UnavailableError, UsageError
from allocator.statement import FloatArray

ITERATIONS = 60
"""Of alternating least squares for CP."""


@dataclass(frozen=True, eq=False)
class Approximated:
    """A weight as a format returns it: ``weight`` in the shape that it had, and how many numbers are stored."""

    weight: FloatArray
    parameters: int
    ranks: Ranks


@dataclass(frozen=True, kw_only=True)
class Format(RankRule):
    """One tensor format.

    Attributes:
        name: short.
        approximate: the weight [O, I, …kernel] at some ranks; the seed is for formats with a random start.
    """

    name: str
    approximate: Callable[[FloatArray, Ranks, int], FloatArray]

    @staticmethod
    def of(name: str, rule: RankRule, approximate: Callable[[FloatArray, Ranks, int], FloatArray]) -> Format:
        """The format that chooses its ranks by a rule."""
        return Format(name=name, most=rule.most, count=rule.count, approximate=approximate)

    def __call__(self, weight: FloatArray, share: float, seed: int = 0) -> Approximated | None:
        """The weight [O, I, …kernel] at the largest ranks that a share of its numbers allows; None if none does."""
        ranks = self.ranks(weight.shape, share)
        if ranks is None:
            return None
        made = self.approximate(np.asarray(weight, np.float64), ranks, seed)
        return Approximated(made.reshape(weight.shape), self.count(weight.shape, ranks), ranks)


def _svd(weight: FloatArray, ranks: Ranks, seed: int) -> FloatArray:
    u, s, vt = np.linalg.svd(weight.reshape(len(weight), -1), full_matrices=False)
    r = ranks[0]
    return np.asarray((u[:, :r] * s[:r]) @ vt[:r], np.float64)


def _cp(weight: FloatArray, ranks: Ranks, seed: int) -> FloatArray:
    from tensorly import cp_to_tensor
    from tensorly.decomposition import parafac

    with warnings.catch_warnings():  # ranks beyond a dimension start at random there, as they must
        warnings.simplefilter("ignore")
        found = parafac(weight, ranks[0], n_iter_max=ITERATIONS, init="svd", random_state=seed, l2_reg=1e-10)
    return np.asarray(cp_to_tensor(found), np.float64)


def _tucker(weight: FloatArray, ranks: Ranks, seed: int) -> FloatArray:
    from tensorly.decomposition import partial_tucker
    from tensorly.tenalg import multi_mode_dot

    (core, factors), _ = partial_tucker(weight, list(ranks), modes=[0, 1], init="svd", random_state=seed)
    return np.asarray(multi_mode_dot(core, factors, modes=[0, 1]), np.float64)


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
        Format.of("CP", tensor_ranks.CP, _cp),
        Format.of("Tucker", tensor_ranks.TUCKER2, _tucker),
        Format.of("TT", tensor_ranks.TT, _tt),
        Format.of("SVD", tensor_ranks.SVD, _svd),
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
        raise UnavailableError("tensor formats need 'tensorly'; pip install 'compression-allocator[torch]'")
    return found


def suits(tensor_format: Format, shape: Sequence[int]) -> bool:
    """Whether a format says something of its own about a weight of this shape."""
    return tensor_format.name == "SVD" or math.prod(shape[2:]) > 1
