"""A solver with a clock around it: wall, CPU, memory, and the seconds inside a MIP library, where it really runs.

The clock travels with the solver into its worker process, so imports, pickling and pipes are not counted
against a library, and its CPU seconds are read by the process that spends them.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator import Answer, Limits, Problem
from allocator.protocols import Solver

LIBRARY = {
    "scipy_milp": ("scipy.optimize", "milp"),
    "ortools_cpsat": ("ortools.sat.python.cp_model", "CpSolver.solve"),
    "ortools_mip": ("ortools.math_opt.python.mathopt", "solve"),
}
"""The call in which each MIP backend hands over to its library: module, attribute."""

CLOCK = "benchmark_clock"


@dataclass
class Clock:
    """Seconds of one stretch of work: wall and CPU of this process (and of children that it waited for)."""

    wall: float = 0.0
    cpu: float = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Add what passes inside."""
        cpu, wall = cpu_seconds(), time.perf_counter()
        try:
            yield
        finally:
            self.wall += time.perf_counter() - wall
            self.cpu += cpu_seconds() - cpu

    def to_json(self) -> dict[str, float]:
        """Plain data."""
        return dataclasses.asdict(self)


def cpu_seconds() -> float:
    """CPU seconds of this process so far, with those of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@dataclass(frozen=True, kw_only=True)
class Clocked:
    """Any backend, unchanged but for `statistics[CLOCK]`: clocks of the call and of its library, extra bytes."""

    inner: Solver
    memory: bool = False
    name: str = field(init=False)
    features: frozenset[str] = field(init=False)
    exactness: Any = field(init=False)
    stats: tuple[str, ...] = field(init=False)
    isolate: bool = field(init=False)
    imports: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("name", "features", "exactness", "stats", "isolate", "imports"):
            object.__setattr__(self, name, getattr(self.inner, name))

    @property
    def solver(self) -> Any:
        """Itself, for callers that want a `Solver`: what that declares per class, this has per instance."""
        return self

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """The inner backend's answer."""
        call, library = Clock(), Clock()
        peak = Peak() if self.memory else None
        with timed_library(self.inner.name, library), call.running():
            answer = self.inner.solve(problem, limits, start)
        clocks: dict[str, Any] = {"call": call.to_json()}
        if self.inner.name in LIBRARY:
            clocks["library"] = library.to_json()
        if peak is not None:
            clocks["extra_bytes"] = peak.extra()
        return dataclasses.replace(answer, statistics={**answer.statistics, CLOCK: clocks})


def clocks_of(answer: Answer | None) -> Mapping[str, Any]:
    """What `Clocked` noted; empty where the backend was killed or returned nothing."""
    return {} if answer is None else answer.statistics.get(CLOCK, {})


@contextlib.contextmanager
def timed_library(name: str, clock: Clock) -> Iterator[None]:
    """Run the library's own entry under a clock of its own; a backend without library is left alone."""
    if name not in LIBRARY:
        yield
        return
    module, path = LIBRARY[name]
    owner: Any = import_module(module)
    *outer, attribute = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original = getattr(owner, attribute)
    setattr(owner, attribute, under(clock, original))
    try:
        yield
    finally:
        setattr(owner, attribute, original)


def under(clock: Clock, call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call, its seconds added to a clock."""

    def timed(*args: Any, **options: Any) -> Any:
        with clock.running():
            return call(*args, **options)

    return timed


class Peak:
    """The most memory that this process holds beyond what it held at the start (Linux; None elsewhere)."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # freed heap that is held back would be taken again unseen
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is held now
            self.before = resident("VmRSS")
        except OSError:
            self.before = None

    def extra(self) -> int | None:
        """Bytes."""
        top = resident("VmHWM")
        return None if self.before is None or top is None else max(top - self.before, 0)


def resident(key: str) -> int | None:
    """Bytes that this process holds (VmRSS) or held at most (VmHWM); Linux, None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)
