"""Tensor formats: ranks within the share, and approximations that are what they say."""

import math

import numpy as np
import pytest

from allocator.errors import UsageError
from allocator.study.tensor_formats import FORMATS, formats_named, suits

pytest.importorskip("tensorly")

SHAPES = [(12, 8, 3, 3), (5, 16, 3, 3), (9, 7, 5), (20, 14)]
RNG = np.random.default_rng(0)


def weight(shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_ranks_are_the_largest_within_the_share(name, shape, share):
    one = FORMATS[name]
    if not suits(one, shape):
        return
    ranks, allowed = one.ranks(shape, share), share * math.prod(shape)
    if ranks is None:
        assert one.count(shape, tuple(1 for _ in one.most(shape))) > allowed
        return
    assert one.count(shape, ranks) <= allowed
    assert all(1 <= r <= most for r, most in zip(ranks, one.most(shape), strict=True))
    for i, most in enumerate(one.most(shape)):
        raised = (*ranks[:i], ranks[i] + 1, *ranks[i + 1 :])
        assert ranks[i] == most or one.count(shape, raised) > allowed


@pytest.mark.parametrize("name", ["Tucker", "TT", "SVD"])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_full_ranks_give_the_weight_back(name, shape):
    one = FORMATS[name]
    made = one.approximate(weight(shape), one.most(shape), 0)
    assert np.allclose(made.reshape(shape), weight(shape), atol=1e-10)


def test_cp_finds_a_weight_that_is_a_sum_of_products():
    factors = [RNG.normal(size=(n, 2)) for n in (8, 6, 3, 3)]
    given = np.einsum("ar,br,cr,dr->abcd", *factors)
    made = FORMATS["CP"].approximate(given, (2,), 0)
    assert np.linalg.norm(made - given) < 1e-2 * np.linalg.norm(given)


def test_svd_is_the_best_matrix_of_its_rank():
    given = weight((12, 8, 3, 3))
    made = FORMATS["SVD"](given, 0.5)
    assert made.ranks == (5,)
    assert made.parameters == 5 * (12 + 72) <= 0.5 * given.size
    rest = np.linalg.svd(given.reshape(12, 72), compute_uv=False)[5:]
    assert np.linalg.norm(made.weight - given) == pytest.approx(np.linalg.norm(rest))
    assert np.linalg.matrix_rank(made.weight.reshape(12, 72)) == 5


@pytest.mark.parametrize("name", FORMATS)
def test_more_numbers_leave_less_error(name):
    given = weight((12, 8, 3, 3))
    errors = [np.linalg.norm(FORMATS[name](given, share).weight - given) for share in (0.1, 0.3, 0.6, 0.9)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def test_tucker_and_tt_have_the_ranks_that_are_counted():
    given = weight((12, 8, 3, 3))
    made = FORMATS["Tucker"](given, 0.4)
    assert np.linalg.matrix_rank(made.weight.reshape(12, -1)) == made.ranks[0]
    assert np.linalg.matrix_rank(made.weight.swapaxes(0, 1).reshape(8, -1)) == made.ranks[1]
    made = FORMATS["TT"](given, 0.4)
    chain = np.moveaxis(made.weight, 1, -1)
    for i, rank in enumerate(made.ranks, 1):
        assert np.linalg.matrix_rank(chain.reshape(math.prod(chain.shape[:i]), -1)) <= rank
    assert made.parameters == FORMATS["TT"].count(given.shape, made.ranks)


def test_the_same_seed_gives_the_same_weight():
    given = weight((12, 8, 3, 3))
    first, second = (FORMATS["CP"](given, 0.9, seed=1).weight for _ in range(2))
    assert np.array_equal(first, second)


def test_unknown_formats_are_named():
    assert [one.name for one in formats_named(["cp", "svd", "CP"])] == ["CP", "SVD"]
    with pytest.raises(UsageError, match="'hosvd'"):
        formats_named(["hosvd"])
    with pytest.raises(UsageError, match="no tensor format was given"):
        formats_named([])


def test_a_matrix_has_one_format():
    for shape in ((20, 14), (20, 14, 1, 1)):
        assert [name for name, one in FORMATS.items() if suits(one, shape)] == ["SVD"]
    assert all(suits(one, (20, 14, 1, 3)) for one in FORMATS.values())
