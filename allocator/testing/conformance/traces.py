"""A run leaves nothing behind, and the next one is the same."""

from __future__ import annotations

import hashlib
import os
import random
from typing import Any

import msgspec
import numpy as np

from allocator.errors import UnsupportedError
from allocator.formats.solutions import solution_bytes
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.protocols import Solver
from allocator.solution import Solution
from allocator.testing.conformance.bench import Bench, Case

SHARE = 8


class Traces(Bench):
    """Deterministic for a seed, and without side effects."""

    def test_runs_repeat(self, backend: Solver) -> None:
        """Two runs agree byte by byte, but for what `run` says of clock and host."""
        for case in self._cases(backend):
            try:
                first, second = (_bytes(solve(case.problem, backend, seed=3, threads=1)) for _ in range(2))
            except UnsupportedError:
                continue
            assert first == second, f"{case.label}: two runs differ:\n{first!r}\n{second!r}"

    def test_the_problem_is_left_alone(self, backend: Solver) -> None:
        """Its arrays keep every bit and stay read-only; so does the start."""
        for case in self._cases(backend):
            problem = case.problem
            start = np.zeros(problem.group_count, np.int64)
            start.setflags(write=False)
            before = _digest(problem)
            try:
                solve(problem, backend, start=start.tolist(), threads=1)
            except UnsupportedError:
                continue
            assert _digest(problem) == before, f"{case.label}: the problem's arrays were changed"
            thawed = [array for array in problem._arrays() if array.flags.writeable]
            assert not thawed, f"{case.label}: arrays of the problem can be written to"

    def test_the_process_is_left_alone(self, backend: Solver) -> None:
        """Global random states, floating-point settings, environment and folder are as before."""
        case = self.simple_case(backend, 2)
        solve(case.problem, backend, threads=1)  # what a first import sets is not the run's
        before = _surroundings()
        solve(case.problem, backend, seed=5, threads=1)
        after = _surroundings()
        changed = [name for name in before if before[name] != after[name]]
        assert not changed, f"{backend!r} changes the {', '.join(changed)}"

    def _cases(self, backend: Solver) -> list[Case]:
        return [self.simple_case(backend, 3), *self.cases(backend, self.share(SHARE))]


def _bytes(solution: Solution) -> bytes:
    """solution.json without `run`."""
    plain: dict[str, Any] = msgspec.json.decode(solution_bytes(solution))
    plain.pop("run")
    return msgspec.json.encode(plain)


def _digest(problem: Problem) -> str:
    made = hashlib.sha256()
    for array in problem._arrays():
        made.update(f"{array.dtype} {array.shape}".encode())
        made.update(np.ascontiguousarray(array).tobytes())
    return made.hexdigest()


def _surroundings() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the legacy state is the one that all share
    return {
        "state of `random`": random.getstate(),
        "state of `numpy.random`": (kind, np.asarray(keys).tobytes(), *rest),
        "settings of numpy for floating-point errors": np.geterr(),
        "environment": dict(os.environ),
        "current folder": os.getcwd(),
    }
