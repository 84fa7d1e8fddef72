"""A part of an earlier run is taken only where everything that it depends on is the same."""

import numpy as np
import pytest
import torch
from torch import nn

import profilers._run
from allocator.profiling import profile
from allocator.space import Space
from allocator.tasks.classification import Classification
from allocator.workload import Workload
from profilers._groups import versions
from profilers.kl import Kl

SPACE = Space.simple(bits=(2, 4), ranks=())


class Cooler(Classification):
    """Halves the logits."""

    def logits(self, model, batch):
        return super().logits(model, batch) / 2


def make(*, seed=0, act=nn.Tanh, data=1, rows=(4, 4), task="classification", stride=1):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv1d(1, 4, 3, stride=stride), act(), nn.AdaptiveAvgPool1d(2), nn.Flatten())
        net.append(nn.Linear(8, 3))
        torch.manual_seed(data)
        inputs, targets = torch.randn(8, 1, 9).split(list(rows)), torch.randint(3, (8,)).split(list(rows))
        held_out = [(torch.randn(2, 1, 9), torch.zeros(2, dtype=torch.long))]
    return Workload(net, list(zip(inputs, targets, strict=True)), held_out, task)


def files(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_the_same_run_measures_nothing_again(tmp_path):
    first = profile(make(), SPACE, Kl(), resume=tmp_path)
    before = files(tmp_path)
    again = profile(make(), SPACE, Kl(), resume=tmp_path)
    assert before
    assert files(tmp_path) == before
    assert np.array_equal(first.scores["kl"], again.scores["kl"])


@pytest.mark.parametrize(
    ("changed", "space", "statistic"),
    [
        ({"seed": 1}, SPACE, Kl()),
        ({"act": nn.ReLU}, SPACE, Kl()),
        ({"stride": 2}, SPACE, Kl()),
        ({"data": 2}, SPACE, Kl()),
        ({"rows": (5, 3)}, SPACE, Kl()),
        ({"task": Cooler()}, SPACE, Kl()),
        ({}, SPACE, Kl(samples=5)),
        ({}, Space.simple(bits=(2, 3), ranks=()), Kl()),
        ({}, Space.simple(bits=(2, 4), ranks=(), scheme="asymmetric"), Kl()),
    ],
    ids=["weights", "activation", "stride", "data", "batches", "task", "option", "space", "scheme"],
)
def test_another_run_takes_no_part(tmp_path, changed, space, statistic):
    profile(make(), SPACE, Kl(), resume=tmp_path)
    before = files(tmp_path)
    found = profile(make(**changed), space, statistic, resume=tmp_path)
    fresh = profile(make(**changed), space, statistic)
    after = files(tmp_path)
    assert np.array_equal(found.scores["kl"], fresh.scores["kl"])
    assert {name: after[name] for name in before} == before
    assert len(after) == 2 * len(before)


@pytest.mark.parametrize("package", ["compression-allocator", "torch", "numpy"])
def test_another_version_takes_no_part(tmp_path, monkeypatch, package):
    profile(make(), SPACE, Kl(), resume=tmp_path)
    before = files(tmp_path)
    monkeypatch.setattr(profilers._run, "versions", lambda: versions() | {package: "99"})
    profile(make(), SPACE, Kl(), resume=tmp_path)
    assert len(files(tmp_path)) == 2 * len(before)
