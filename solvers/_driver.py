"""The course that searches share: go on from a state, or begin, and step until done or out of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from allocator.problem import Problem
from allocator.protocols import Limits, Solver
from allocator.solution import Answer
from allocator.statement import IntArray
from solvers._fitness import OutOfTimeError
from solvers._ground import Ground
from solvers._state import StateFile


class Search(Protocol):
    """What a search must offer; `OutOfTimeError` may end begin and advance."""

    def begin(self, start: IntArray | None) -> bool:
        """First allocations; False where none is feasible."""
        ...

    def resume(self, earlier: dict[str, Any]) -> bool:
        """Go on from the state of an earlier run."""
        ...

    @property
    def done(self) -> bool:
        """Whether all generations or steps that were asked for are over."""
        ...

    def advance(self) -> None:
        """Some work, and its state to disk."""
        ...

    def answer(self, limit: str | None) -> Answer:
        """The best allocation so far."""
        ...


def driven(
    make: Callable[[Ground, StateFile], Search],
    solver: Solver,
    problem: Problem,
    limits: Limits,
    start: IntArray | None,
) -> Answer:
    """Run a search to its end; a start that breaks a row is left out."""
    if start is not None and not problem.evaluate(start).feasible:
        start = None
    state = StateFile(solver, problem, limits, start)
    earlier = state.load()
    ground = Ground.of(problem)
    if ground is None:
        return Answer()
    search = make(ground, state)
    try:
        found = search.begin(start) if earlier is None else search.resume(earlier)
        while found and len(ground.movable) and not search.done:
            search.advance()
    except OutOfTimeError:
        return search.answer("time")
    return search.answer("time" if not found and limits.left <= 0 else None)
