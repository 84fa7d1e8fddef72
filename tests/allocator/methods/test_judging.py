import copy

import numpy as np
import pytest
import torch

import allocator
from allocator.errors import AllocatorError
from allocator.methods.judging import Judged, compared, interval, paired
from allocator.profiling import profile
from allocator.tasks.measurement import measure


def judged(values, counts=None):
    values = np.asarray(values, float)
    return Judged({"kl": values}, {"kl": np.ones(len(values)) if counts is None else np.asarray(counts, float)})


def test_values_are_those_of_measure(workload, space):
    solution = allocator.solve(profile(workload, space, "weight_error"), budgets="weight_bytes=50%")
    applied = allocator.apply_(copy.deepcopy(workload.model), solution)
    found, wanted = compared(workload, applied), measure(workload, applied, workload.model)
    for metric in ("kl", "loss", "accuracy"):
        assert found.value(metric).value == pytest.approx(wanted[metric].value)
        assert found.value(metric).stderr == pytest.approx(wanted[metric].stderr)
    plain = measure(workload)
    assert found.original.value("loss").value == pytest.approx(plain["loss"].value)
    assert paired(found, found.original, "loss").value == pytest.approx(wanted["loss"].value - plain["loss"].value)
    assert found.samples == 40


def test_an_interval_by_hand():
    """Two samples, differences 0 and 1: a resample has mean 0, ½ or 1 with ¼, ½, ¼."""
    found = interval(judged([1, 2]), judged([1, 1]), "kl")
    assert (found.value, found.low, found.high) == (0.5, 0, 1)
    assert not found.separated
    assert interval(judged([2, 2]), judged([1, 1]), "kl").separated
    assert not interval(judged([1, 3]), judged([1, 3]), "kl").separated  # nothing differs: 0 to 0


def test_positions_weigh_samples():
    found = interval(judged([6, 1], [3, 1]), judged([0, 0], [3, 1]), "kl")
    assert found.value == 7 / 4  # Σ difference / Σ count
    assert (found.low, found.high) == (1, 2)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = unpaired = 0
    for seed in range(200):
        shared = rng.exponential(1.0, 60)
        one, other = shared + rng.normal(0.1, 0.2, 60), shared
        found = interval(judged(one), judged(other), "kl", seed=seed, draws=400)
        held += found.low <= 0.1 <= found.high
        unpaired += interval(judged(one), None, "kl", seed=seed, draws=400).separated
        assert found.high - found.low < 0.2  # the shared part has gone: alone it would be ± .25
    assert 0.88 <= held / 200 <= 0.99
    assert unpaired == 200


def test_equal_seeds_draw_equal_samples():
    one, other = judged(np.arange(30.0)), judged(np.zeros(30))
    assert interval(one, other, "kl", seed=1) == interval(one, other, "kl", seed=1)
    assert interval(one, other, "kl", seed=1) != interval(one, other, "kl", seed=2)


def test_what_cannot_be_paired_or_judged_is_refused(workload):
    with pytest.raises(AllocatorError, match="different samples"):
        interval(judged([1, 2]), judged([1, 2, 3]), "kl")
    broken = copy.deepcopy(workload.model)
    with torch.no_grad():
        broken.head.weight.fill_(float("nan"))
    with pytest.raises(AllocatorError, match="not numbers"):
        compared(workload, broken)
