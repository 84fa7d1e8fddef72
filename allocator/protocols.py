"""What a plug-in must offer: one method each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from allocator.errors import UsageError
from allocator.problem import Problem
from allocator.solution import Answer

if TYPE_CHECKING:
    from allocator.space import Space
    from allocator.workload import Workload

Report = Callable[[NDArray[np.int64]], None]


class Exactness(Enum):
    """What a solver promises when no limit fires."""

    EXACT = "exact"
    BOUNDED = "bounded"
    HEURISTIC = "heuristic"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that mean the same for every backend.

    time: seconds on the clock, from the moment the backend is ready; None is none.
    threads: at most so many; None leaves it to the backend.
    seed: of whatever is random.
    gap: relative gap (objective − bound)/|objective| at which the search may stop.
    report: called with each better allocation [G] as it is found.
    expand: from an allocation [G] of the problem that the backend was given to that of the problem as stated (without
    pins and merged groups); None where they are one. For backends that call functions of the user.
    """

    time: float | None = None
    threads: int | None = None
    seed: int = 0
    gap: float = 0.0
    report: Report | None = None
    expand: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = field(default=None, compare=False, repr=False)
    started: float = field(default_factory=monotonic, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.time is not None and not (math.isfinite(self.time) and self.time > 0):
            raise UsageError(f"time limit {self.time}: give seconds above 0, or none")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads {self.threads}: give 1 or more, or leave it out")
        if not (math.isfinite(self.gap) and self.gap >= 0):
            raise UsageError(f"gap {self.gap}: give 0 or more")
        if self.seed < 0 or self.seed >= 2**31:
            raise UsageError(f"seed {self.seed}: give an integer from 0 to 2^31 − 1")

    @property
    def left(self) -> float:
        """Seconds left on the clock; infinite without a limit."""
        return math.inf if self.time is None else self.started + self.time - monotonic()


@runtime_checkable
class Solver(Protocol):
    """A backend: a frozen keyword-only dataclass whose fields are its options and whose repr reproduces the run.

    name: registry name. features: what it understands (`allocator.features`). exactness: its promise.
    stats: per-layer numbers it needs from the groups. isolate: whether it runs in the worker process,
    because its library overruns limits or fights over shared objects. imports: the heavy modules, loaded
    before the clock starts.
    """

    name: ClassVar[str]
    features: ClassVar[frozenset[str]]
    exactness: ClassVar[Exactness]
    stats: ClassVar[tuple[str, ...]]
    isolate: ClassVar[bool]
    imports: ClassVar[tuple[str, ...]]

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        """Choose one choice per group; `problem` has no pins, no forbidden choices and no same_choice left."""
        ...


def options_of(solver: Solver) -> dict[str, Any]:
    """The solver's options by name; a solver is a dataclass, and its fields are its options."""
    fields: Any = dataclasses.fields(solver)  # type: ignore[arg-type]  # a protocol cannot say that it is a dataclass
    return {f.name: getattr(solver, f.name) for f in fields}


@runtime_checkable
class Profiler(Protocol):
    """A statistic of each choice: a frozen keyword-only dataclass named after its score."""

    name: ClassVar[str]

    def profile(self, workload: Workload, space: Space) -> Problem:
        """Measure every choice of the space on the workload's calibration data."""
        ...
