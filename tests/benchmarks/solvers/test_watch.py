"""Measuring processes are stopped at their limits, with all they started, and keep what they had said."""

import os
import time
from pathlib import Path

import pytest

from benchmarks.solvers.watch import run_process

SAY = 'import json, sys, time, subprocess\nprint(json.dumps({"event": "first", "n": int(sys.argv[1])}), flush=True)\n'
PLENTY = 2**34


@pytest.fixture
def run(tmp_path):
    def go(body, seconds=20.0, most_bytes=PLENTY):
        (tmp_path / "measured_thing.py").write_text(SAY + body)
        return run_process("measured_thing", "7", {"PYTHONPATH": str(tmp_path)}, seconds, most_bytes)

    return go


def test_what_was_said_is_kept(run):
    ended = run('print("a library prints")\nprint("[1]")\nprint(json.dumps({"event": "warm"}))\n')
    assert [e["event"] for e in ended.events] == ["first", "warm"]
    assert (ended.killed, ended.error, ended.first("first")["n"], ended.first("none")) == (None, "", 7, None)


def test_a_failure_is_quoted(run):
    ended = run('raise SystemExit("no such luck")\n')
    assert (ended.killed, ended.error) == (None, "no such luck")


def test_time_ends_it_and_its_children(run):
    body = 'p = subprocess.Popen(["sleep", "60"])\nprint(json.dumps({"event": "child", "pid": p.pid}), flush=True)\n'
    ended = run(body + "time.sleep(60)\n", seconds=1.0)
    assert ended.killed == "time"
    assert ended.first("first") is not None
    for _ in range(50):
        if not _runs(ended.first("child")["pid"]):
            return
        time.sleep(0.1)
    raise AssertionError("the child outlived its parent")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc, which is Linux's")
def test_memory_of_a_child_ends_it(run):
    grow = "import time; x = bytearray(300 << 20); time.sleep(60)"
    ended = run(f"subprocess.Popen([sys.executable, '-c', {grow!r}])\ntime.sleep(60)\n", most_bytes=250 << 20)
    assert ended.killed == "memory"
    assert ended.peak_bytes > 250 << 20


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # a zombie waits for an init that reaps
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
