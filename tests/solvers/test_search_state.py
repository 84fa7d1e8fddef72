"""A search that was killed goes on from its file, and ends with the answer of one that was not, byte for byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import allocator
from allocator.errors import UsageError
from allocator.formats.solutions import solution_to_json
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.statement import Basis
from solvers import annealing
from solvers.annealing import Annealing
from solvers.evolutionary import Evolutionary

RUNS: dict[str, dict[str, Any]] = {
    "evolutionary": {"generations": 12, "offspring": 24, "survivors": "8,3", "samples": "0.5,1"},
    "annealing": {"steps": 60, "restarts": 5},
}
NAMES = tuple(RUNS)
KINDS: dict[str, Any] = {"evolutionary": Evolutionary, "annealing": Annealing}


class Stop(BaseException):
    """Not an Exception: nothing between the report and the test may swallow it."""


def problem_of(seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    costs = np.sort(rng.integers(1, 40, (15, 4)), axis=1)
    basis = Basis("score", np.array([2.0, 0.5, 1.0]), rng.standard_normal((60, 3)))
    return Problem.from_arrays(
        rng.random((15, 4)), costs, budgets={"cost": int(costs.mean() * 15)}, interactions=(basis,)
    )


def fitness(choice: NDArray[np.int32], sample: float | None) -> float:
    return float(((choice - np.arange(15) % 4) ** 2).sum()) + 0.1 * float(np.sin(choice).sum()) * (sample or 1.0)


def content(solution: Any) -> tuple[bytes, Any]:
    """What has to be the same to the byte, and the statistics, which stand beside clocks."""
    document = solution_to_json(solution)
    statistics = dict(document.pop("run")["statistics"])
    document["problem"] = dict(document["problem"])
    return msgspec.json.encode(document, enc_hook=str), statistics


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annealing, "STRETCH", 7)


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_interrupted_anywhere(name: str, measured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at every fifth look at the clock, again and again until it ends."""
    monkeypatch.chdir(tmp_path)
    options = RUNS[name] | {"state": "search.json"} | ({"fitness": fitness} if measured else {})
    whole = content(allocator.solve(problem_of(), solver=name, seed=3, **options))
    on_disk = Path("search.json").read_bytes()
    Path("search.json").unlink()
    left = Limits.left
    looks = [0]

    def counted(self: Limits) -> float:
        looks[0] += 1
        if looks[0] % (97 if measured else 23) == 0:
            raise Stop
        return float(left.__get__(self))

    monkeypatch.setattr(Limits, "left", property(counted))
    stops = 0
    while True:
        try:
            resumed = allocator.solve(problem_of(), solver=name, seed=3, **options)
            break
        except Stop:
            stops += 1
            assert stops < 100
    assert stops >= (1 if name == "evolutionary" and not measured else 2)
    assert content(resumed) == whole
    assert Path("search.json").read_bytes() == on_disk  # running sums to the last bit
    monkeypatch.setattr(Limits, "left", left)
    assert content(allocator.solve(problem_of(), solver=name, seed=3, **options)) == whole  # finished: at once
    options["state"] = ""
    assert content(allocator.solve(problem_of(), solver=name, seed=3, **options))[1] == whole[1]


CHILD = """
import sys, time
import numpy as np
import allocator
from allocator.problem import Problem

rng = np.random.default_rng(1)
costs = np.sort(rng.integers(1, 40, (12, 4)), axis=1)
problem = Problem.from_arrays(rng.random((12, 4)), costs, budgets={"cost": int(costs.mean() * 12)})
pause = float(sys.argv[2])


def slow(choice, sample):
    time.sleep(pause)
    return float(np.sin(choice * np.arange(1, 13)).sum())


options = {"generations": 25, "offspring": 6, "survivors": "2", "samples": "1"} if sys.argv[1] == "evolutionary" else {
    "steps": 40, "restarts": 3}
solution = allocator.solve(problem, sys.argv[1], state="search.json", fitness=slow, seed=5, **options)
print(solution.allocation.choice.tolist(), solution.run["statistics"], solution.solver)
"""


@pytest.mark.parametrize("name", NAMES)
def test_killed_process(name: str, tmp_path: Path) -> None:
    """SIGKILL as soon as some of the work is on disk."""
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    key = {"evolutionary": "generation", "annealing": "step"}[name]

    def start(pause: float, folder: Path) -> subprocess.Popen[bytes]:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-c", CHILD, name, str(pause)]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE)

    whole, _ = start(0.0, tmp_path / "whole").communicate(timeout=120)
    victim = start(0.02, tmp_path / "killed")
    state = tmp_path / "killed" / "search.json"
    deadline = time.monotonic() + 120
    while not (state.exists() and json.loads(state.read_bytes())["progress"][key] >= 3):
        assert victim.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=60)
    assert victim.returncode == -signal.SIGKILL
    done = json.loads(state.read_bytes())["progress"][key]
    assert 3 <= done < {"evolutionary": 25, "annealing": 40}[name]
    resumed, _ = start(0.0, tmp_path / "killed").communicate(timeout=120)
    assert resumed == whole != b""


@pytest.mark.parametrize("name", NAMES)
def test_foreign_states_are_refused(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "search.json")
    options = RUNS[name] | {"state": path}
    first = allocator.solve(problem_of(), solver=name, **options)
    other = {"evolutionary": {"mutations": 2}, "annealing": {"end": 0.5}}[name]
    cases: list[tuple[str, dict[str, Any]]] = [
        (r"another problem \(.[0-9a-f]{64}. there, .[0-9a-f]{64}. here\); name another", {"problem": problem_of(1)}),
        (r"another seed \(0 there, 1 here\)", {"seed": 1}),
        (r"another start", {"start": first}),
        (rf"another options \({next(iter(other))}=.* there, .* here\)", other),
        ("fitness=None there, 'fitness' here", {"fitness": fitness}),
    ]  # fmt: skip
    before = Path(path).read_bytes()
    for text, changed in cases:
        with pytest.raises(UsageError, match=text):
            allocator.solve(**{"problem": problem_of(), "solver": name, **options, **changed})
    assert Path(path).read_bytes() == before
    wrong = {"evolutionary": "annealing", "annealing": "evolutionary"}[name]
    with pytest.raises(UsageError, match="another solver"):
        allocator.solve(problem_of(), solver=wrong, **RUNS[wrong], state=path)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_states_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    options = RUNS[name] | {"state": str(path)}
    allocator.solve(problem_of(), solver=name, **options)
    good = json.loads(path.read_bytes())
    for text in ("", "[]", "{}", '{"format": "allocation-problem"}'):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"search.json' is not the state of a search; name another file"):
            allocator.solve(problem_of(), solver=name, **options)
    for key in good["progress"]:
        broken = good | {"progress": {k: v for k, v in good["progress"].items() if k != key}}
        path.write_text(json.dumps(broken))
        with pytest.raises(UsageError, match=r"is damaged \(KeyError"):
            allocator.solve(problem_of(), solver=name, **options)
    path.write_text(json.dumps(good | {"progress": good["progress"] | {"best": [[99] * 15]}}))
    with pytest.raises(UsageError, match=r"is damaged \(ValueError: group 'g0' has choices 0 to 3"):
        allocator.solve(problem_of(), solver=name, **options)
    with pytest.raises(UsageError, match="there is no folder"):
        allocator.solve(problem_of(), solver=name, state=str(tmp_path / "no" / "s.json"))


@pytest.mark.parametrize("name", NAMES)
def test_time_limit_keeps_the_state(name: str, tmp_path: Path) -> None:
    """The clock fires in the middle of a generation; what went before is on disk, and the rest follows."""
    path = tmp_path / "search.json"

    def slow(choice: NDArray[np.int32], sample: float | None) -> float:
        time.sleep(pause)
        return fitness(choice, sample)

    options = RUNS[name] | {"state": str(path), "fitness": slow}
    pause = 0.0
    whole = allocator.solve(problem_of(), solver=name, **options)
    path.unlink()
    pause = 0.01
    short = allocator.solve(problem_of(), solver=name, time_limit=0.5, **options)
    assert short.limit == "time"
    assert short.allocation is not None
    assert path.exists()
    pause = 0.0
    again = allocator.solve(problem_of(), solver=name, **options)
    assert content(again) == content(whole)
