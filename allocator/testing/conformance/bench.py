"""What every part of the suite stands on: the solver under test, problems that it takes, and its answers to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import pytest

from allocator import registry
from allocator.errors import UnsupportedError
from allocator.pipeline import run_backend
from allocator.problem import Problem
from allocator.protocols import Limits, Solver
from allocator.reduce import Reduced, reduce
from allocator.solution import Answer, Solution
from allocator.testing.claims import tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import DETAILS, LINEAR, MASKS, PARTS, random_rows
from allocator.testing.reference import Reference
from allocator.testing.simple_problems import hard_problem, simple_rows
from allocator.verification import verify

SHOWN = 10  # failures in a message
ALLOCATIONS = 100  # of a random problem at most: the reference looks at all of them
TRIES = 6  # draws for each problem that is wanted


class ExemptionWarning(pytest.PytestWarning):
    """A test of the suite that a backend is let off, with the reason; listed at the end of every run."""


@dataclass(frozen=True, eq=False)
class Case:
    """A problem with its truth. label: the draw in words, to repeat it."""

    label: str
    rows: dict[str, Any]
    problem: Problem
    reference: Reference

    @staticmethod
    def of(label: str, rows: dict[str, Any]) -> Case:
        """From the row form."""
        return Case(label, rows, Problem.from_rows(rows), Reference(rows))


@dataclass(frozen=True, eq=False)
class Asked:
    """A case and what the backend made of it: an answer with the core's verdict, or the error that it raised."""

    case: Case
    reduced: Reduced
    answer: Answer | None = None
    solution: Solution | None = None
    error: Exception | None = None


class Bench:
    """Subclass `SolverConformance`, and give it the fixture `solver`; the rest may stay as it is.

    exempt: {test name: reason} for tests that this backend is let off; each is reported as a warning.
    problems: random problems asked, times ALLOCATOR_TEST_DEPTH; other tests ask a share of that.
    """

    exempt: ClassVar[Mapping[str, str]] = {}
    problems: ClassVar[int] = 150

    # -- what a subclass gives --------------------------------------------------------------------------------------

    @pytest.fixture
    def solver(self) -> Solver | str:
        """The solver under test: an instance, or a registry name."""
        pytest.fail("give the class a fixture `solver` that returns an instance of your solver, or its registry name")

    def parts(self, backend: Solver) -> frozenset[str]:
        """What random problems may have (see `allocator.testing.random_problems`): all that the backend declares."""
        return backend.features | MASKS | DETAILS

    def prepared(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Each problem in the row form before it is used: the place for keys that this backend reads beyond stats."""
        return rows

    def allowance(self, reference: Reference) -> float:
        """How far above the optimum an exact answer may lie, and a bound above it: 1e-12·S and rounding."""
        return tolerance(reference)

    def hard_problems(self, backend: Solver) -> Iterator[Problem]:
        """Problems that take the backend more than a moment, hardest first; the first that it does not refuse is used.

        They must have what the backend needs and no feature that it lacks.
        """
        for groups, choices in ((400, 10), (60, 6), (12, 4)):
            yield hard_problem(0, groups, choices, backend.features, backend.stats)

    # -- fixtures -----------------------------------------------------------------------------------------------------

    @pytest.fixture
    def backend(self, solver: Solver | str) -> Solver:
        """The instance under test."""
        if not isinstance(solver, str):
            return solver
        made: Solver = registry.make("solvers", solver, {})
        return made

    @pytest.fixture(autouse=True)
    def _exempted(self, request: pytest.FixtureRequest) -> None:
        name = getattr(request.node, "originalname", request.node.name)
        if reason := self.exempt.get(name):
            request.node.warn(ExemptionWarning(f"{type(self).__name__} is exempt from {name}: {reason}"))
            pytest.skip(f"exempt: {reason}")

    # -- problems -----------------------------------------------------------------------------------------------------

    def share(self, parts: int) -> int:
        """One part in so many of `problems`, times ALLOCATOR_TEST_DEPTH."""
        return times(max(self.problems // parts, 1))

    def cases(self, backend: Solver, count: int, parts: frozenset[str] = PARTS) -> Iterator[Case]:
        """Random problems that the backend takes: half with all that it declares, half of sums under budgets only."""
        allowed = self.parts(backend) & parts
        found = 0
        for seed in range(TRIES * count):
            case = _drawn(seed, allowed & LINEAR if seed % 2 else allowed, tuple(backend.stats))
            case = self._prepared(case)
            reduced = reduce(case.problem).problem
            if reduced is not None and reduced.features <= backend.features:
                found += 1
                yield case
            if found == count:
                return
        if found < count // 3:
            pytest.fail(f"only {found} of {TRIES * count} random problems suit {backend!r}: override `parts`")

    def simple_case(self, backend: Solver, seed: int) -> Case:
        """A problem that everyone solves (`allocator.testing.knapsacks.simple_rows`)."""
        return Case.of(f"simple_rows({seed}, {backend.stats})", self.prepared(simple_rows(seed, backend.stats)))

    def _prepared(self, case: Case) -> Case:
        rows = self.prepared(deepcopy(case.rows))
        return case if rows == case.rows else Case.of(case.label + ", prepared", rows)

    def ask(self, backend: Solver, case: Case, **limits: Any) -> Asked:
        """The backend's own word on a case, beside what the core makes of it."""
        reduced = reduce(case.problem)
        assert reduced.problem is not None
        try:
            answer = run_backend(backend, reduced.problem, Limits(**({"threads": 1} | limits)))
            solution = verify(case.problem, reduced, answer) if isinstance(answer, Answer) else None
        except Exception as error:  # the tests look at it
            return Asked(case, reduced, error=error)
        return Asked(case, reduced, answer, solution)

    def answers(self, backend: Solver) -> list[Asked]:
        """What the backend says to the random problems; it is asked once for all tests."""
        key = (type(self), repr(backend))
        if key not in _asked:
            _asked[key] = [self.ask(backend, case) for case in self.cases(backend, self.share(1))]
        return _asked[key]


_asked: dict[tuple[type, str], list[Asked]] = {}


@lru_cache(maxsize=4096)
def _drawn(seed: int, parts: frozenset[str], stats: tuple[str, ...]) -> Case:
    rows = random_rows(seed, parts, most_allocations=ALLOCATIONS, stats=stats)
    label = f"random_rows({seed}, {sorted(parts)}, most_allocations={ALLOCATIONS}, stats={stats})"
    return Case.of(label, rows)


def declined(asked: Asked) -> bool:
    """Whether the backend refused the combination of features, as it may."""
    return isinstance(asked.error, UnsupportedError)


def no_failures(faults: list[str], of: int) -> None:
    """Fail with the first of them."""
    shown = "\n".join(faults[:SHOWN])
    assert not faults, f"{len(faults)} faults in {of} problems:\n{shown}"


def faults_of(asked: list[Asked], look: Callable[[Asked], list[str]]) -> list[str]:
    """What a look at each answer finds, with the draw it belongs to; refusals and errors are another test's."""
    return [f"{one.case.label}: {fault}" for one in asked if one.error is None for fault in look(one)]
