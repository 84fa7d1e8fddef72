"""Shards give the same wherever they run, in the order of their keys."""

import os
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from allocator.errors import AllocatorError, UsageError
from allocator.profiling import profile
from allocator.progress import silent
from allocator.tasks.guard import untouched
from allocator.workload import Workload
from profilers._parts import Parts
from profilers._plan import plan
from profilers._shards import sharded
from profilers._travel import new_token, packed, unpacked
from profilers._workers import Workers
from profilers.weight_error import WeightError


@pytest.fixture(scope="module")
def toy():
    """The module that workers can import, with workers that begin and end here."""
    folder = str(Path(__file__).parent / "elsewhere")
    sys.path.insert(0, folder)
    import toy_shards

    joblib.externals.loky.get_reusable_executor().shutdown(kill_workers=True)
    yield toy_shards
    joblib.externals.loky.get_reusable_executor().shutdown(kill_workers=True)
    sys.path.remove(folder)


@pytest.fixture
def laid_out(toy, space):
    workload = toy.workload()
    with untouched(workload.model):
        yield plan(workload, space)


def test_other_processes_give_the_same_bytes(toy, space):
    alone = profile(toy.workload(), space, toy.Toy())
    seen = []
    spread = profile(toy.workload(), space, toy.Toy(), jobs=2, progress=lambda *call: seen.append(call))
    assert np.array_equal(alone.scores["toy"], spread.scores["toy"])
    assert alone.scores["toy"].std() > 0
    assert seen == [("toy", done, 7) for done in range(1, 8)]


@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
def test_the_backend_around_the_call_is_taken(toy, space, backend):
    alone = profile(toy.workload(), space, toy.Toy())
    with joblib.parallel_config(backend, n_jobs=2):
        spread = profile(toy.workload(), space, toy.Toy())
    assert np.array_equal(alone.scores["toy"], spread.scores["toy"])


def test_a_worker_stands_where_the_driver_stands(toy, laid_out):
    parameters = list(laid_out.workload.model.parameters())
    parameters[3].requires_grad_(False)
    laid_out.memory["seen"] = threading.Lock()  # neither read there nor sent
    away = replace(laid_out, workers=Workers(2))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            pieces = list(sharded(away, "look", toy.Look(), range(6), toy.Look().work, silent))
    finally:
        torch.set_num_threads(before)
    for piece in pieces:
        assert piece["process"] != os.getpid()
        assert piece["threads"] == 2
        assert not piece["gradients"]
        assert piece["trained"] == len(parameters) - 1  # also where a shard before it changed that
        assert piece["tied"]
        assert piece["own"]
        assert not piece["training"]
    assert max(int(piece["memory"]) for piece in pieces) > 1  # a worker keeps its plan


def test_threads_have_a_model_each(toy, laid_out):
    away = replace(laid_out, workers=Workers(None))
    with joblib.parallel_config("threading", n_jobs=2):
        pieces = list(sharded(away, "look", toy.Look(), ["slow", "slow", 1], toy.Look().work, silent))
    models = {int(piece["model"]) for piece in pieces}
    assert len(models) > 1
    assert id(laid_out.workload.model) not in models


def test_one_job_stays_home(toy, laid_out):
    with joblib.parallel_config("threading", n_jobs=2):
        (piece,) = sharded(laid_out, "look", toy.Look(), [1], toy.Look().work, silent)
    assert piece["model"] == id(laid_out.workload.model)


def test_pieces_are_kept_as_they_arrive_and_handed_on_in_order(toy, laid_out, tmp_path):
    away = replace(laid_out, workers=Workers(2), parts=Parts(tmp_path, "x"))
    look, keys = toy.Look(), ["slow", *range(5)]
    arriving = sharded(away, "look", look, keys, look.work, silent)
    first = next(arriving)
    assert len(list(tmp_path.iterdir())) > 1
    pieces = [first, *arriving]
    kept = [away.parts.take("look", look, key) for key in keys]
    assert [int(p["memory"]) for p in pieces] == [int(p["memory"]) for p in kept]
    assert len({int(p["process"]) for p in pieces}) == 2


def test_stopping_early_is_possible(toy, laid_out):
    away = replace(laid_out, workers=Workers(2))
    arriving = sharded(away, "look", toy.Look(), range(20), toy.Look().work, silent)
    next(arriving)
    with pytest.warns(UserWarning, match="cancelled"):
        arriving.close()
    assert len(list(sharded(away, "look", toy.Look(), range(3), toy.Look().work, silent))) == 3


class Told:
    def __init__(self):
        self.calls, self.found = [], []

    def __call__(self, *call):
        self.calls.append(call)

    def resumed(self, *call):
        self.found.append(call)


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_was_there_is_said_and_not_done_again(toy, laid_out, tmp_path, jobs):
    away = replace(laid_out, workers=Workers(jobs), parts=Parts(tmp_path, "x"))
    look, told = toy.Look(), Told()
    list(sharded(away, "look", look, [1, 3], look.work, told))
    assert told.found == []
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    told = Told()
    assert len(list(sharded(away, "look", look, range(5), look.work, told))) == 5
    assert told.found == [("look", 2, 5)]
    assert told.calls == [("look", done, 5) for done in range(2, 6)]
    assert {path: (tmp_path / path).stat().st_mtime_ns for path in times} == times
    told = Told()
    list(sharded(away, "look", look, range(5), look.work, told))
    assert told.calls == [("look", 5, 5)]


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_part_is_measured_again(toy, laid_out, tmp_path, damage):
    here = replace(laid_out, parts=Parts(tmp_path, "x"))
    look = toy.Look()
    list(sharded(here, "look", look, [1], look.work, silent))
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[:-30])
    else:  # the directory at the end stays whole
        content[content.index(b"NUMPY")] ^= 255
        path.write_bytes(content)
        assert zipfile.is_zipfile(path)
    (piece,) = sharded(here, "look", look, [1], look.work, silent)
    assert piece["memory"] == 2
    assert here.parts.take("look", look, 1)["memory"] == 2


def test_errors_of_a_worker_name_the_reason(toy, laid_out):
    away = replace(laid_out, workers=Workers(2))
    with pytest.raises(UsageError, match=r"^refused$"):
        list(sharded(away, "look", toy.Look(), ["refuse"], toy.Look().work, silent))
    with pytest.raises(AllocatorError, match=r"a worker process ended .*resume with fewer jobs"):
        list(sharded(away, "look", toy.Look(), ["end"], toy.Look().work, silent))


def test_what_cannot_be_sent_or_meant_is_refused(toy, space):
    workload = toy.workload()
    workload.model.lock = threading.Lock()
    with pytest.raises(UsageError, match=r"toy cannot be sent to another process .*jobs=1"):
        profile(workload, space, toy.Toy(), jobs=2)
    for jobs in (0, -2, 1.5, True):
        with pytest.raises(UsageError, match=f"jobs={jobs}: give 1 or more"):
            profile(toy.workload(), space, toy.Toy(), jobs=jobs)
    with pytest.raises(UsageError, match="threads=0: give 1 or more"):
        profile(toy.workload(), space, toy.Toy(), threads=0)

    class Foreign:
        def profile(self, workload, space):
            return WeightError().profile(workload, space)

    with pytest.raises(UsageError, match="Foreign cannot be spread over 2 jobs"):
        profile(toy.workload(), space, Foreign(), jobs=2)


def test_threads_are_set_for_the_run_only(toy, space):
    before = torch.get_num_threads()
    seen = []
    profile(toy.workload(), space, toy.Toy(), threads=3, progress=lambda *_: seen.append(torch.get_num_threads()))
    assert set(seen) == {3}
    assert torch.get_num_threads() == before


class Mapped(nn.Module):
    """Weights that look into one storage, as those of a mapped file do."""

    def __init__(self):
        super().__init__()
        everything = torch.arange(4000.0)
        self.layers = nn.ModuleList([nn.Linear(10, 10, bias=False) for _ in range(40)])
        for place, layer in enumerate(self.layers):
            layer.weight = nn.Parameter(everything[100 * place : 100 * place + 100].view(10, 10))

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def test_a_plan_travels_without_copies_and_without_evaluation_data(space):
    data = [(torch.zeros(3, 10), torch.zeros(3, dtype=torch.long))]
    held_out = [(torch.ones(9999, 10), torch.zeros(9999, dtype=torch.long))]
    there = plan(Workload(Mapped(), data, held_out), space)
    for target in there.targets:
        target.approximation(2)  # low rank: now an SVD is remembered
    content = packed(there)
    assert content.nbytes < 120_000
    copy = unpacked(content, new_token())
    for mine, theirs in zip(there.targets, copy.targets, strict=True):
        assert torch.equal(mine.unit.weight, theirs.unit.weight)
        assert mine.menu == theirs.menu
        assert torch.equal(mine.approximation(2), theirs.approximation(2))
    assert not list(copy.workload.evaluation)
