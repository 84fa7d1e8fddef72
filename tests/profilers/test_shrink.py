"""Noisy curvatures are drawn towards narrow ones as far as the data say, and no further."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from allocator.actions import Quantize
from allocator.menu_items import MenuItem
from profilers._shrink import drawn, measured, shrunk
from profilers._sketch import Sketched

MENU = [MenuItem(f"int{b}", f"int{b}", Quantize(bits=b, scheme="symmetric", granularity="channel")) for b in (2, 4)]


def made(samples, layers, bias, seed=0):
    """u, and narrow squares that are off by a factor of e^(bias · normal) per layer; the truth is known."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    truth = torch.exp(normal(layers, 2))
    wide = [normal(1, samples, 2) * t.sqrt() for t in truth]
    factor = torch.exp(bias * normal(layers, 2))
    narrow = [t / f * (1 + 0.01 * normal(samples, 2)) for t, f in zip(truth, factor, strict=True)]
    plan = SimpleNamespace(
        targets=[SimpleNamespace(menu=MENU)] * layers, workload=SimpleNamespace(task=SimpleNamespace(per="sample"))
    )
    none = [torch.zeros(samples, 0, dtype=torch.float64)] * layers
    positions = torch.ones(samples, dtype=torch.float64)
    found = Sketched(plan, [[0, 1]] * layers, [[1.0, 1.0]] * layers, wide, narrow, none, positions)
    return found, truth.numpy() / 2


def error(values, truth):
    logs = np.log(np.array(values) / truth)
    return float((logs - logs.mean(0)).std())  # a factor common to a family moves no choice


@pytest.mark.parametrize("bias", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("samples", [8, 40, 200])
def test_drawn_estimate_is_no_worse_than_the_better_of_the_two(samples, bias):
    found, truth = made(samples, 120, bias)
    score, share = shrunk(found)
    wide = found.score([u.square().mean(0) for u in found.projections])
    narrow = found.score(found.rows)
    best = min(error(wide.value, truth), error(narrow.value, truth))
    assert error(score.value, truth) < best + 0.05 * error(wide.value, truth)  # the share is itself estimated
    assert 0 <= share <= 1


def test_many_samples_or_a_bad_narrow_estimate_leave_the_full_one():
    assert shrunk(made(4000, 60, 1.0)[0])[1] > 0.97
    assert shrunk(made(8, 200, 0.02)[0])[1] < 0.15


def test_the_mean_over_a_family_stays_right():
    found, truth = made(16, 400, 0.2)
    score, _ = shrunk(found)
    assert np.mean(np.array(score.value) / truth) == pytest.approx(1, abs=0.1)


def test_too_few_choices_or_samples_leave_it_as_it_is():
    for found, _ in (made(3, 60, 0.2), made(40, 2, 0.2)):
        wide = measured([u.square().mean(0) for u in found.projections], found.positions)
        assert drawn(found, wide, measured(found.rows, found.positions)) is wide
        assert shrunk(found)[1] == 1.0


def test_standard_errors_lie_between_those_of_the_two():
    found, _ = made(12, 120, 0.2)
    score, _ = shrunk(found)
    wide, narrow = found.score([u.square().mean(0) for u in found.projections]), found.score(found.rows)
    for s, w, n in zip(*(np.array(x.stderr) / np.array(x.value) for x in (score, wide, narrow)), strict=True):
        assert (s <= np.maximum(w, n) * 1.0001).all()
        assert (s >= np.minimum(w, n) * 0.9999).all()
