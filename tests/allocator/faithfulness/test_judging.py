"""The verdict on predictors whose faults are known."""

import math

import numpy as np
import pytest
from scipy import stats

from allocator.faithfulness.agreement import Points, agreement, ratio, repeatability
from allocator.faithfulness.judging import judge

REGIONS = {"all": (1e-3, 1.0), "low": (0.1, 2.0), "middle": (1e-2, 0.2), "high": (1e-4, 1e-2)}


def points(predict, seed=0, n=40, regions=REGIONS):
    """Random losses within each region, log-uniform, and what a rule predicts of them."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, (low, high) in regions.items():
        measured = np.exp(rng.uniform(np.log(low), np.log(high), n))
        found[name] = Points(predict(measured, rng), measured, 0.02 * measured)
    return found


def judged(predict, in_nats=True, seed=0, n=40):
    return judge(points(predict, seed, n), {}, None, [], in_nats)


def test_a_perfect_predictor_is_trusted():
    found = judged(lambda m, rng: m)
    assert (found.verdict, found.limit, found.size, found.words) == ("trust", None, True, "trust")
    assert found.within == pytest.approx(1)
    assert found.pooled.ratio.median == pytest.approx(1)
    assert found.pooled.kendall == pytest.approx(1)


def test_a_little_noise_does_no_harm():
    assert judged(lambda m, rng: m * np.exp(0.3 * rng.normal(size=len(m)))).words == "trust"


def test_noise_alone_is_not_trusted_though_pooled_it_looks_good():
    """Knows the region of an allocation, nothing within it."""
    found = judged(lambda m, rng: np.full(len(m), np.median(m)) * np.exp(0.3 * rng.normal(size=len(m))))
    assert found.words == "do not trust"
    assert found.pooled.spearman > 0.7
    assert abs(found.within) < 0.3


def test_an_anticorrelated_predictor_is_not_trusted():
    found = judged(lambda m, rng: 1e-4 / m)
    assert found.words == "do not trust"
    assert found.within == pytest.approx(-1)


@pytest.mark.parametrize("factor", [0.25, 4])
def test_a_biased_predictor_is_trusted_for_its_order_alone(factor):
    found = judged(lambda m, rng: factor * m)
    assert (found.words, found.verdict, found.size) == ("trust, order only", "trust", False)
    assert found.pooled.ratio.median == pytest.approx(factor)


def test_a_right_median_with_a_wide_spread_is_no_size():
    found = judge(points(lambda m, rng: m**2 / 0.03, regions={"all": (1e-3, 0.29)}), {}, None, [], True)
    assert found.words == "trust, order only"
    assert 1 / 1.5 < found.pooled.ratio.median < 1.5
    assert found.pooled.ratio.q90 > 3


def test_a_number_that_only_ranks_has_no_size():
    found = judged(lambda m, rng: 1e6 * m**2, in_nats=False)
    assert (found.size, found.words) == (None, "trust, order only")
    assert found.pooled.ratio is None


def test_a_predictor_that_fails_where_networks_fall_apart_is_trusted_below():
    def saturating(m, rng):
        return np.where(m < 0.1, m, 0.1 * np.exp(0.3 * rng.normal(size=len(m))))

    found = judge(points(saturating, n=60, regions={"low": (0.02, 3), "middle": (0.03, 3)}), {}, None, [], True)
    assert (found.verdict, found.limit, found.size) == ("trust below", 0.1, True)
    assert found.words == "trust below 0.1 nat"


def test_few_allocations_tell_nothing():
    assert judged(lambda m, rng: m, n=9).words == "cannot tell"
    assert judged(lambda m, rng: m, n=0).words == "cannot tell"


def test_a_wide_interval_is_no_evidence():
    """The same noise: enough allocations show that the predictor ranks well, ten in one region do not."""

    def noisy(m, rng):
        return m * np.exp(0.55 * rng.normal(size=len(m)))

    one = {"middle": (1e-2, 0.2)}
    few = judge(points(noisy, seed=4, n=10, regions=one), {}, None, [], True)
    many = judge(points(noisy, seed=4, n=400, regions=one), {}, None, [], True)
    assert few.within > 0.7 > few.within_interval[0]
    assert few.verdict != "trust"
    assert many.verdict == "trust"


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_repeatability_is_what_a_second_measurement_reaches(noise):
    rng = np.random.default_rng(0)
    found, reached = [], []
    for _ in range(40):
        truth = rng.normal(size=60)
        parts = truth + noise * math.sqrt(2) * rng.normal(size=(2, 60))
        found.append(repeatability([parts]))
        again = truth + noise * rng.normal(size=60)
        reached.append(stats.spearmanr(parts.mean(0), again).statistic)
    assert np.mean(found) == pytest.approx(np.mean(reached), abs=0.04)
    assert repeatability([np.array([np.arange(20.0), -np.arange(20.0)])]) == 0
    assert math.isnan(repeatability([np.zeros((2, 9))]))


def test_what_too_few_samples_cannot_show_is_not_held_against_a_predictor():
    noisy = points(lambda m, rng: m * np.exp(0.9 * rng.normal(size=len(m))))
    useless = points(lambda m, rng: rng.random(len(m)))

    def words(given, repeat):
        return judge(given, {}, None, [], True, repeat=repeat).words

    assert [words(noisy, repeat) for repeat in (0.99, 0.5)] == ["do not trust", "cannot tell"]
    assert [words(useless, repeat) for repeat in (0.99, 0.5)] == ["do not trust", "do not trust"]


def test_ratios_leave_out_what_is_not_surely_above_0_and_what_has_fallen_apart():
    found = ratio(Points(np.array([1.0, 2, 3, 9]), np.array([0.1, 0.2, 0.29, 0.4]), np.array([0.01, 0.2, 0.01, 0.01])))
    assert (found.count, found.median) == (2, pytest.approx((10 + 3 / 0.29) / 2))
    assert ratio(Points(np.zeros(0), np.zeros(0), np.zeros(0))).count == 0


def test_layers_are_ranked_within_each_label():
    up = Points(np.arange(5.0), np.arange(5.0), np.zeros(5))
    down = Points(-np.arange(5.0), np.arange(5.0), np.zeros(5))
    flat = Points(np.zeros(5), np.arange(5.0), np.zeros(5))
    found = judge(points(lambda m, rng: m), {}, up, [up, up, down, flat], True)
    assert (found.within_label, found.labels) == (pytest.approx(1 / 3), 3)


def test_the_same_seed_gives_the_same_numbers_and_json_has_no_nan():
    first, second = (judged(lambda m, rng: m * np.exp(rng.normal(size=len(m)))).to_json() for _ in range(2))
    assert first == second
    empty = judge({}, {}, None, [], True).to_json()
    assert (empty["within"], empty["pooled"], empty["words"]) == (None, None, "cannot tell")


def test_agreement_without_a_generator_has_no_interval():
    found = agreement(points(lambda m, rng: m)["all"], False, None)
    assert found.spearman == pytest.approx(1)
    assert all(math.isnan(end) for end in (*found.spearman_interval, *found.kendall_interval))
