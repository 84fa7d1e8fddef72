"""`allocator profile`, killed half way and resumed, writes the bytes of a run that was left in peace."""

import os
import signal
import subprocess
import sys
import time
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
    """Start the command in a process of its own, and kill it when enough parts are there; processes that lived."""
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
        process.send_signal(signal.SIGKILL)
        process.wait()
        until = time.monotonic() + 20
        while alive(process.pid) and time.monotonic() < until:
            time.sleep(0.1)
        return alive(process.pid)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def alive(group):
    """Whether the process group of a killed driver still holds somebody; the dead wait for a slow init."""
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
        except ProcessLookupError:
            continue
    return False


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
    assert not killed(broken, "--profiler", profiler, "--jobs", first)  # workers end with their driver
    assert not (broken / "problem.json").exists()
    parts = sorted((broken / "problem.json.parts").glob("*.npz"))
    assert len(parts) >= ENOUGH
    parts[0].write_bytes(parts[0].read_bytes()[:100])  # as if the machine had lost power, too
    said = run(broken, "--profiler", profiler, f"--jobs={second}", "--resume")
    if profiler == "toy":
        assert f"toy resumed: {len(parts) - 1} of 7 parts were there" in said
    assert (broken / "problem.json").read_bytes() == (whole / "problem.json").read_bytes()
    assert not (broken / "problem.json.parts").exists()
