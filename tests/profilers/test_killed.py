"""`allocator profile`, killed half way and resumed, writes the bytes of a run that was left in peace."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import joblib
import psutil
import pytest

from allocator import registry
from allocator.cli import main

HERE = Path(__file__).parent / "elsewhere"
COMMAND = ["profile", "toy_shards:workload", "--bits", "2,4", "--ranks", "0.5", "--out", "problem.json"]
ENOUGH = 2
"""Parts after which a run is killed."""


@pytest.fixture
def run(monkeypatch, capfd):
    """The command in this process, in a folder; what it said."""
    monkeypatch.syspath_prepend(str(HERE))
    registry._others.cache_clear()

    def call(folder, *words):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["allocator", *COMMAND, *words])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capfd.readouterr().err
        assert not stop.value.code, said
        return said

    yield call
    registry._others.cache_clear()
    joblib.externals.loky.get_reusable_executor().shutdown(kill_workers=True)


def killed(folder, *words):
    """Start the command in a process of its own, and kill it when enough parts are there."""
    paths = [str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    env = os.environ | {"TOY_PAUSE": "0.05", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    code = "from allocator.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *COMMAND, *words],
        cwd=folder,
        env=env,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 120
        while len(list(folder.glob("problem.json.parts/*.npz"))) < ENOUGH:
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        end(process.pid)


def end(group):
    """Whoever is left of a process group: workers that had not begun when their driver was killed."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@pytest.mark.parametrize(
    ("profiler", "first", "second"),
    [
        ("kl", "1", "1"),
        ("toy", "2", "1"),
        pytest.param("toy", "2", "2", marks=pytest.mark.long),
        pytest.param("toy", "1", "2", marks=pytest.mark.long),
    ],
)
def test_a_killed_run_ends_with_the_same_bytes(run, tmp_path, profiler, first, second):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert "resumed" not in run(whole, "--profiler", profiler)
    killed(broken, "--profiler", profiler, "--jobs", first)
    assert not (broken / "problem.json").exists()
    parts = sorted((broken / "problem.json.parts").glob("*.npz"))
    assert len(parts) >= ENOUGH
    parts[0].write_bytes(parts[0].read_bytes()[:100])  # as if the machine had lost power, too
    said = run(broken, "--profiler", profiler, f"--jobs={second}", "--resume")
    if profiler == "toy":
        assert f"toy resumed: {len(parts) - 1} of 7 parts were there" in said
    assert (broken / "problem.json").read_bytes() == (whole / "problem.json").read_bytes()
    assert not (broken / "problem.json.parts").exists()


DRIVER = """
import sys, toy_shards
from allocator.space import Space
from profilers._plan import plan
from allocator.progress import silent
from profilers._shards import sharded
from profilers._workers import Workers
from dataclasses import replace

if __name__ == "__main__":
    there = replace(plan(toy_shards.workload(), Space.simple()), workers=Workers(2))
    look = toy_shards.Look()
    for piece in sharded(there, "look", look, ["slow"] * 1000, look.work, silent):
        print(int(piece["process"]), flush=True)
"""


@pytest.mark.long
def test_workers_end_with_their_driver(tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, "driver.py"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        workers = set()
        while len(workers) < 2:
            workers.add(int(process.stdout.readline()))
        assert all(map(runs, workers))
        process.kill()
        until = time.monotonic() + 60
        while any(map(runs, workers)) and time.monotonic() < until:
            time.sleep(0.1)
        assert not any(map(runs, workers))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        end(process.pid)


def runs(worker):
    try:
        return psutil.Process(worker).status() != psutil.STATUS_ZOMBIE  # a slow init has not buried it yet
    except psutil.NoSuchProcess:
        return False
