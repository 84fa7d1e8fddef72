"""What takes long says how far it has got."""

import itertools

import pytest
import torch
from torch import nn

from allocator import Workload, apply_, compress
from allocator.methods.judging import compared
from allocator.progress import told
from allocator.tasks.measurement import measure


@pytest.fixture
def heard():
    calls = []
    return calls, lambda *call: calls.append(call)


@pytest.fixture
def workload():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    batches = [(torch.randn(5, 4), torch.randint(3, (5,))) for _ in range(5)]
    return Workload(model, batches[:2], batches[2:], "classification")


ACTION = {"kind": "quantize", "bits": 4}
SOLUTION = {name: {"action": ACTION, "modules": [name]} for name in ("0", "2")}


def test_a_unit_is_told_when_it_is_done(heard):
    calls, progress = heard
    units = told(progress, "work", "ab")
    assert next(units) == "a"
    assert calls == []
    assert list(units) == ["b"]
    assert calls == [("work", 1, 2), ("work", 2, 2)]


def test_nothing_is_told_of_units_that_nobody_can_count(heard):
    calls, progress = heard
    assert list(itertools.islice(told(progress, "work", itertools.count()), 3)) == [0, 1, 2]
    assert calls == []


@pytest.mark.parametrize("packed", [False, True])
def test_every_group_that_is_compressed(workload, heard, packed):
    calls, progress = heard
    apply_(workload.model, SOLUTION, packed, progress=progress)
    assert calls == [("compressing", 1, 2), ("compressing", 2, 2)]


def test_every_group_that_is_written(workload, heard, tmp_path):
    calls, progress = heard
    compress(workload.model, SOLUTION, tmp_path, progress=progress)
    assert calls == [("compressing", 1, 2), ("compressing", 2, 2)]


@pytest.mark.parametrize("judge", [measure, compared])
def test_every_batch_that_judges(workload, heard, judge):
    calls, progress = heard
    judge(workload, workload.model, progress=progress)
    assert calls == [("judging", done, 3) for done in (1, 2, 3)]
