"""A third party's solver that trusts the files alone: problem.json out, a program of any language, solution.json in."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from allocator import Answer, Exactness, Limits, Problem, load_solution, save_problem
from allocator.errors import SolverError, UnsupportedError
from allocator.features import ALL

PROGRAM = Path(__file__).with_name("loopback_program.py")


@dataclass(frozen=True, kw_only=True)
class Loopback:
    """Looks at every allocation in another process, which reads and writes the published format alone.

    most: allocations it is willing to look at.
    """

    most: int = 20_000_000

    name: ClassVar[str] = "loopback"
    features: ClassVar[frozenset[str]] = ALL
    exactness: ClassVar[Exactness] = Exactness.EXACT
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False  # it is a process already, and keeps its limit itself
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Write, run, read."""
        if math.prod(problem.sizes.tolist()) > self.most:
            raise UnsupportedError(f"loopback looks at no more than {self.most} allocations; use another solver")
        with tempfile.TemporaryDirectory() as folder:
            asked, answered = Path(folder, "problem.json"), Path(folder, "solution.json")
            save_problem(problem, asked)
            command = [sys.executable, "-I", "-S", str(PROGRAM), str(asked), str(answered)]
            if limits.time is not None:
                command.append(str(max(limits.left - 0.1, 0.01)))  # less what it takes to start a process
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SolverError(f"loopback's program failed: {done.stderr[-500:]}; report it with the problem")
            said = load_solution(answered)
        choice = None
        if said.choices:
            first = problem.indptr[:-1]
            choice = np.array([problem.row(g, said.choices[g]) for g in problem.group_names], np.int64) - first
            if limits.report is not None:
                limits.report(choice)
        bound = said.objective if said.claim == "optimal" else None
        return Answer(choice=choice, claim=said.claim, claimed_bound=bound, limit=said.limit)
