"""The same bytes from a real cluster on this machine; run by `make test-long`."""

import os
import re
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch

import allocator
from allocator.progress import silent
from profilers._plan import plan
from profilers._shards import sharded
from profilers._workers import Workers

HERE = Path(__file__).parent / "elsewhere"
PAGE = Path(__file__).parents[2] / "docs/profilers.md"
pytestmark = pytest.mark.long


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))  # for the workers
    import toy_shards

    yield toy_shards
    sys.modules.pop("toy_shards")


def test_the_example_of_the_page_gives_the_same_bytes(toy, space, tmp_path):
    """The statistic is the toy, whose every part goes to the cluster."""
    section = PAGE.read_text().partition("## Long work")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names = {"workload": toy.workload(), "space": space, "profiler": toy.Toy()}
    exec(code, names)
    alone = allocator.profile(toy.workload(), space, toy.Toy(), threads=1)
    for name, problem in (("alone", alone), ("spread", names["problem"])):
        allocator.save_problem(problem, tmp_path / f"{name}.json")
    assert (tmp_path / "alone.json").read_bytes() == (tmp_path / "spread.json").read_bytes()


def test_a_dask_cluster_does_the_work(toy, space, tmp_path):
    from dask.distributed import Client, LocalCluster

    alone = allocator.profile(toy.workload(), space, ("kl", "ggn", toy.Toy()))
    laid_out = plan(toy.workload(), space)
    laid_out = type(laid_out)(laid_out.workload, laid_out.targets, laid_out.skipped, workers=Workers(None))
    local = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(host="127.0.0.1", **local) as cluster, Client(cluster):
        with joblib.parallel_config("dask"):
            spread = allocator.profile(toy.workload(), space, ("kl", "ggn", toy.Toy()), resume=tmp_path)
            pieces = list(sharded(laid_out, "look", toy.Look(), ["slow", *range(5)], toy.Look().work, silent))
        jobs = allocator.profile(toy.workload(), space, toy.Toy(), jobs=2)
    for name, column in alone.scores.items():
        assert np.array_equal(column, spread.scores[name])
    assert np.array_equal(alone.scores["toy"], jobs.scores["toy"])
    processes = {int(piece["process"]) for piece in pieces}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert {int(piece["threads"]) for piece in pieces} == {torch.get_num_threads()}
    assert len(list(tmp_path.iterdir())) >= 7  # the parts came home


def test_a_ray_cluster_does_the_work(toy, space):
    ray = pytest.importorskip("ray", reason="Ray is 240 MB and in no extra; where it is installed this must hold")
    from ray.util.joblib import register_ray

    alone = allocator.profile(toy.workload(), space, toy.Toy())
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}})
    try:
        register_ray()
        with joblib.parallel_config("ray", n_jobs=-1):
            spread = allocator.profile(toy.workload(), space, toy.Toy())
    finally:
        ray.shutdown()
    assert np.array_equal(alone.scores["toy"], spread.scores["toy"])
