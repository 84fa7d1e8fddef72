"""The worker process: limits that hold, crashes that are told apart, chatter, interrupts, scripts without a guard."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allocator import isolation
from allocator.errors import SolverError, UnavailableError, UnsupportedError, UsageError
from allocator.isolation import Interrupted, shutdown, solve_isolated, warm_up
from allocator.problem import Problem
from allocator.protocols import Limits

HOSTILE = """
import ctypes, os, sys, time
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from allocator.errors import UnsupportedError
from allocator.features import ALL
from allocator.protocols import Exactness
from allocator.solution import Answer

@dataclass(frozen=True, kw_only=True)
class Hostile:
    name: ClassVar[str] = "hostile"
    features, exactness, stats, isolate, imports = ALL, Exactness.HEURISTIC, (), True, ("json",)
    do: str = "answer"

    def solve(self, problem, limits, start=None):
        choice = np.zeros(problem.group_count, np.int64)
        if self.do == "chatter":
            print("x" * 200_000, flush=True)
            os.write(1, b"raw")
            os.system("echo child; echo child >&2")
        elif self.do == "segfault":
            os.write(2, b"last words")
            sys.stderr.flush()
            ctypes.string_at(0)
        elif self.do == "exit":
            os._exit(7)
        elif self.do == "spin":
            limits.report(choice + 1)
            while True:
                pass
        elif self.do == "native":
            limits.report(choice)
            limits.report(choice + 1)
            ctypes.PyDLL(None).sleep(1000)
        elif self.do == "raise":
            raise ValueError("no such luck")
        elif self.do == "refuse":
            raise UnsupportedError("not this one")
        elif self.do == "memory":
            raise MemoryError
        elif self.do == "lambda":
            return Answer(statistics={"unreadable": lambda: 0})
        if start is not None:
            choice = start
        seen = {"pid": os.getpid(), "left": limits.left, "seed": limits.seed, "gap": limits.gap,
                "omp": os.environ["OMP_NUM_THREADS"], "groups": problem.group_count}
        return Answer(choice=choice, statistics=seen)

@dataclass(frozen=True, kw_only=True)
class Broken(Hostile):
    name: ClassVar[str] = "broken"
    imports = ("no_such_package",)
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "hostile_plugin.py").write_text(HOSTILE)
    sys.path.insert(0, str(folder))
    import hostile_plugin  # type: ignore[import-not-found]  # written above

    yield hostile_plugin
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem.from_arrays(np.arange(15.0).reshape(5, 3), np.ones((5, 3), np.int64))


def pid(hostile: Any, problem: Problem) -> int:
    return int(solve_isolated(hostile.Hostile(), problem, Limits()).statistics["pid"])


def test_answers_from_another_process_that_is_kept(hostile: Any, problem: Problem) -> None:
    limits = Limits(time=60, seed=4, gap=0.5)
    answer = solve_isolated(hostile.Hostile(), problem, limits, np.array([2, 1, 0, 1, 2]))
    assert answer.choice is not None
    assert answer.choice.tolist() == [2, 1, 0, 1, 2]
    seen = answer.statistics
    assert (seen["seed"], seen["gap"], seen["omp"], seen["groups"]) == (4, 0.5, "1", 5)
    assert seen["pid"] not in (os.getpid(),)
    assert pid(hostile, problem) == seen["pid"]


def test_the_clock_starts_in_the_worker(hostile: Any, problem: Problem) -> None:
    warm_up(hostile.Hostile())
    limits = Limits(time=2)
    time.sleep(0.3)
    assert solve_isolated(hostile.Hostile(), problem, limits).statistics["left"] > 1.8


def test_what_a_library_prints_does_no_harm(hostile: Any, problem: Problem, capfd: pytest.CaptureFixture[str]) -> None:
    answer = solve_isolated(hostile.Hostile(do="chatter"), problem, Limits())
    assert answer.choice is not None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("do", "last"), [("spin", 1), ("native", 1)])
def test_a_solver_that_overruns_is_killed_and_its_last_allocation_stands(
    hostile: Any, problem: Problem, do: str, last: int
) -> None:
    warm_up(hostile.Hostile())
    seen: list[Any] = []
    begun = time.monotonic()
    answer = solve_isolated(hostile.Hostile(do=do), problem, Limits(time=0.2, report=seen.append))
    assert time.monotonic() - begun < 1.0
    assert answer.limit == "time"
    assert answer.claim is None
    assert answer.choice is not None
    assert answer.choice.tolist() == [last] * 5 == seen[-1].tolist()
    assert solve_isolated(hostile.Hostile(), problem, Limits()).choice is not None


@pytest.mark.parametrize(
    ("do", "words"),
    [
        ("segfault", ("SIGSEGV", "last words")),
        ("exit", ("exit code 7",)),
        ("raise", ("ValueError: no such luck",)),
        ("memory", ("MemoryError",)),
    ],
)
def test_a_crash_is_an_error_and_the_next_call_starts_anew(
    hostile: Any, problem: Problem, do: str, words: tuple[str, ...]
) -> None:
    before = pid(hostile, problem)
    with pytest.raises(SolverError) as caught:
        solve_isolated(hostile.Hostile(do=do), problem, Limits())
    assert all(word in str(caught.value) for word in ("'hostile'", *words))
    assert pid(hostile, problem) != before


def test_an_answer_that_cannot_be_sent_is_an_error(hostile: Any, problem: Problem) -> None:
    with pytest.raises(SolverError, match="pickle"):
        solve_isolated(hostile.Hostile(do="lambda"), problem, Limits())


def test_our_own_errors_come_back_and_the_worker_stays(hostile: Any, problem: Problem) -> None:
    before = pid(hostile, problem)
    with pytest.raises(UnsupportedError, match=r"^not this one$"):
        solve_isolated(hostile.Hostile(do="refuse"), problem, Limits())
    assert pid(hostile, problem) == before


def test_a_missing_package_is_told_by_name(hostile: Any, problem: Problem) -> None:
    with pytest.raises(UnavailableError, match=r"'broken'.*no_such_package"):
        solve_isolated(hostile.Broken(), problem, Limits())


def test_a_solver_of_the_script_itself_is_refused(hostile: Any, problem: Problem, monkeypatch: Any) -> None:
    monkeypatch.setattr(hostile.Hostile, "__module__", "__main__")
    with pytest.raises(UsageError, match="module that can be imported"):
        solve_isolated(hostile.Hostile(), problem, Limits())


def test_threads_reach_the_environment(hostile: Any, problem: Problem) -> None:
    assert solve_isolated(hostile.Hostile(), problem, Limits(threads=3)).statistics["omp"] == "3"
    assert solve_isolated(hostile.Hostile(), problem, Limits()).statistics["omp"] == "1"


def test_interrupt_kills_the_worker_and_carries_the_incumbent(hostile: Any, problem: Problem) -> None:
    before = pid(hostile, problem)

    def interrupt(choice: Any) -> None:
        threading.Timer(0.1, _thread.interrupt_main).start()

    with pytest.raises(Interrupted) as caught:
        solve_isolated(hostile.Hostile(do="spin"), problem, Limits(report=interrupt))
    assert isinstance(caught.value, KeyboardInterrupt)
    assert caught.value.choice is not None
    assert caught.value.choice.tolist() == [1] * 5
    assert pid(hostile, problem) != before


def test_an_error_in_the_callers_report_passes_and_leaves_nothing_behind(hostile: Any, problem: Problem) -> None:
    def fail(choice: Any) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        solve_isolated(hostile.Hostile(do="native"), problem, Limits(report=fail))
    assert solve_isolated(hostile.Hostile(), problem, Limits()).choice is not None


def test_a_report_cannot_solve(hostile: Any, problem: Problem) -> None:
    def solve_again(choice: Any) -> None:
        solve_isolated(hostile.Hostile(), problem, Limits())

    with pytest.raises(UsageError, match="report"):
        solve_isolated(hostile.Hostile(do="spin"), problem, Limits(time=5, report=solve_again))


def test_threads_of_the_caller_take_turns(hostile: Any, problem: Problem) -> None:
    found: list[Any] = []

    def work() -> None:
        found.append(solve_isolated(hostile.Hostile(), problem, Limits()).choice)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4


def test_large_problems_pass(hostile: Any) -> None:
    rng = np.random.default_rng(0)
    large = Problem.from_arrays(rng.random((100_000, 8)), rng.integers(0, 9, (100_000, 8)))
    assert solve_isolated(hostile.Hostile(), large, Limits()).statistics["groups"] == 100_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forking exists on POSIX only")
def test_a_forked_child_leaves_the_worker_alone(hostile: Any, problem: Problem) -> None:
    before = pid(hostile, problem)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            shutdown()  # of nothing: the worker is the parent's
            code = 0 if pid(hostile, problem) != before else 2
            shutdown()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert pid(hostile, problem) == before


SCRIPT = """
    import numpy as np
    from allocator.isolation import solve_isolated
    from allocator.problem import Problem
    from allocator.protocols import Limits
    from solvers.scipy_milp import ScipyMilp
    problem = Problem.from_arrays([[3.0, 1.0], [2.0, 0.0]], [[1, 2], [1, 3]], budgets={"cost": 4})
    answer = solve_isolated(ScipyMilp(), problem, Limits(time=30))
    print(answer.choice.tolist(), answer.claim, answer.statistics["engine_calls"])
"""


def test_scripts_without_a_main_guard_and_side_by_side(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "numpy.py").write_text("raise ImportError('a file of the user, not numpy')")
    command = [sys.executable, "-P", str(script)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        for _ in range(2)
    ]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert (out, err, process.returncode) == ("[0, 1] optimal 1\n", "", 0)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")
def test_the_worker_ends_with_its_parent(hostile: Any, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(hostile.__file__).parent)!r})
        import numpy as np
        from hostile_plugin import Hostile
        from allocator import isolation
        from allocator.problem import Problem
        from allocator.protocols import Limits
        isolation.warm_up(Hostile())
        print(isolation._worker.process.pid, flush=True)
        problem = Problem.from_arrays([[1.0]], [[1]])
        isolation.solve_isolated(Hostile(do="spin"), problem, Limits())
        """)
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        stat = Path(f"/proc/{worker}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return  # dead; nobody in this container reaps it
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")


def test_shutdown_ends_it(hostile: Any, problem: Problem) -> None:
    pid(hostile, problem)
    worker = isolation._worker
    assert worker is not None
    shutdown()
    assert worker.process.poll() is not None
    assert isolation._worker is None
