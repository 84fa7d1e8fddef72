import numpy as np
import pytest

from allocator.logit_sum import Positions


def drawn(rng, positions=200, classes=60, size=0.7):
    return 2 * rng.normal(size=(positions, classes)), size * rng.normal(size=(positions, classes))


def test_without_a_tail_it_is_the_divergence(folding):
    folded, dense = folding
    rng = np.random.default_rng(0)
    logits, delta = drawn(rng)
    found, kept = folded(logits, delta, 60, 8, rng)
    assert found.width == 60
    np.testing.assert_allclose(found.divergence(kept), dense(logits, delta), rtol=1e-9, atol=1e-14)


def test_with_a_tail_it_comes_closer_as_more_is_kept(folding):
    folded, dense = folding
    rng = np.random.default_rng(1)
    logits, delta = drawn(rng)
    true = dense(logits, delta)
    errors = {}
    for top, sketches in [(4, 1), (4, 8), (4, 512), (32, 8), (56, 8)]:
        found, kept = folded(logits, delta, top, sketches, rng)
        assert kept.shape[1] == found.width == top + 1 + sketches
        errors[top, sketches] = np.abs(found.divergence(kept) - true).mean() / true.mean()
        assert found.divergence(kept).mean() == pytest.approx(true.mean(), rel=0.15 if sketches == 1 else 0.03)
    assert errors[4, 1] > 2 * errors[4, 8] > 4 * errors[4, 512]
    assert errors[4, 512] < 0.06  # the third order of the tail's spread is left
    assert errors[4, 8] > 5 * errors[32, 8] > 50 * errors[56, 8]


def test_the_random_sums_are_unbiased(folding):
    folded, _ = folding
    rng = np.random.default_rng(2)
    logits, delta = drawn(rng, positions=1)
    p = np.sort(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())[0][::-1]
    repeated = [np.repeat(part, 4000, 0) for part in (logits, delta)]
    kept = folded(*repeated, 10, 2, rng)[1]
    order = np.argsort(-logits[0])[10:]
    share = p[10:] / p[10:].sum()
    variance = share @ (delta[0, order] - share @ delta[0, order]) ** 2
    squares = (kept[:, 11:] ** 2).sum(1)
    error = squares.std() / np.sqrt(len(squares))
    assert abs(squares.mean() - variance) < 4 * error < 0.1 * variance


@pytest.mark.parametrize("top", [60, 6])
def test_tangents_give_the_curvature(folding, top):
    folded, _ = folding
    rng = np.random.default_rng(3)
    logits, delta = drawn(rng, positions=7)
    found, kept = folded(logits, np.stack([delta, *rng.normal(size=(3, 7, 60))]), top, 3, rng)
    here, steps = kept[0], kept[1:]
    tangents = found.tangents(here, steps).astype(np.float64)
    products, h = tangents @ tangents.T, 1e-3

    def total(a, b):
        return found.divergence(here + a + b).sum()

    for i, a in enumerate(h * steps):
        for j, b in enumerate(h * steps):
            mixed = (total(a, b) - total(a, -b) - total(-a, b) + total(-a, -b)) / (4 * h * h)
            assert products[i, j] == pytest.approx(mixed, rel=1e-3, abs=1e-3 * products[i, i])


def test_a_collapsed_network_stays_finite():
    found = Positions(np.array([[0.5, 0.25]]), np.array([0.25]), 2, np.array([1]))
    delta = np.array([[900.0, -900.0, 3.0, 1.0, 1.0]])
    assert found.divergence(delta)[0] == pytest.approx(np.log(0.5) + 900 - (450 - 225 + 0.75), rel=1e-12)


def test_parts_join_and_split():
    rng = np.random.default_rng(4)
    p = rng.dirichlet(np.ones(4), 5)
    parts = [Positions(p[:3], p[:3, 0], 2, np.array([1, 2])), Positions(p[3:], p[3:, 0], 2, np.array([0, 2]))]
    joined = Positions.joined(parts)
    assert joined.sample.tolist() == [0, 1, 1, 3, 3]
    assert len(joined.first(2).top) == 3
    assert np.array_equal(joined.take(np.array([1, 4])).tail, p[[1, 4], 0])
