"""The suite passes an honest solver, and each of its tests notices the fault that it is there for."""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from allocator import Answer, Exactness, Limits, Problem, pipeline
from allocator.certificate import Multipliers
from allocator.errors import UnsupportedError, UsageError
from allocator.features import LINEAR
from allocator.testing import SolverConformance
from allocator.testing.conformance import bench
from allocator.testing.simple_problems import hard_problem
from solvers.brute_force import BruteForce

TRUE = BruteForce(most=10**30)  # it keeps a time limit, however much there is to look at
Spoil = Callable[[Answer, Problem, Limits], Any]


@dataclass(frozen=True, kw_only=True)
class Honest:
    turns: int = 3

    name: ClassVar[str] = "honest"
    features: ClassVar[frozenset[str]] = LINEAR
    exactness: ClassVar[Exactness] = Exactness.EXACT
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: Any = None) -> Answer:
        found: Answer = self.spoil(TRUE.solve(problem, limits, start), problem, limits)
        return found

    def spoil(self, answer: Answer, problem: Problem, limits: Limits) -> Any:
        return answer


class Suite(SolverConformance):
    """Not collected: its name does not start with Test."""

    problems = 60

    def hard_problems(self, backend: Any) -> Any:
        yield hard_problem(0, 12, 4, backend.features)


class TestHonest(Suite):
    @pytest.fixture
    def solver(self) -> Honest:
        return Honest()


# -- what answers may be ----------------------------------------------------------------------------------------------


def changed(**changes: Callable[[Answer, Problem], Any]) -> Spoil:
    """Other fields, where there is an allocation."""

    def spoil(answer: Answer, problem: Problem, limits: Limits) -> Answer:
        if answer.choice is None:
            return answer
        return dataclasses.replace(answer, **{name: change(answer, problem) for name, change in changes.items()})

    return spoil


def cheapest(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    """The first choice of each group, where that is feasible."""
    choice = np.zeros(problem.group_count, np.int64)
    return Answer(choice=choice if problem.evaluate(choice).feasible else None)


def boastful(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    found = cheapest(answer, problem, limits)
    return dataclasses.replace(found, claim=None if found.choice is None else "optimal")


def crash(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    if len(problem.budgets) == 2:
        raise KeyError("two")
    return answer


def picky(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    if problem.group_count % 2:
        raise UnsupportedError("an odd number of groups is not taken; use another solver")
    return answer


def curt(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    if problem.group_count == 3:
        raise UnsupportedError("no")
    return answer


# -- what guises and limits bring out ---------------------------------------------------------------------------------


def where(bad: Callable[[Problem], Any]) -> Spoil:
    """The cheapest choices instead of the optimum, on some problems."""
    return lambda answer, problem, limits: cheapest(answer, problem, limits) if bad(problem) else answer


def asleep(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    if problem.group_count > 10:
        time.sleep(1.0)
    return answer


def hasty(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    """A gap is leave for anything, and for calling it optimal."""
    if not limits.gap or answer.choice is None:
        return answer
    found = cheapest(answer, problem, limits)
    return answer if found.choice is None else dataclasses.replace(answer, choice=found.choice)


def one_thread(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    if limits.threads == 2:
        raise UsageError("this cannot be honoured")
    return answer


def reporting(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    if limits.report is not None:
        limits.report(np.zeros(problem.group_count, np.int64))
    return answer


class Overreaching(Honest):
    """Declares couplings, and leaves them out."""

    features = LINEAR | {"max_distinct", "cardinality", "implies"}

    def solve(self, problem: Problem, limits: Limits, start: Any = None) -> Answer:
        return super().solve(problem.replace(couplings=()), limits)


class Led(Honest):
    def solve(self, problem: Problem, limits: Limits, start: Any = None) -> Answer:
        return super().solve(problem, limits) if start is None else Answer(choice=start)


# -- what a run may leave behind --------------------------------------------------------------------------------------


def thrown(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    choice = np.array([np.random.randint(size) for size in problem.sizes])  # noqa: NPY002 - the fault
    return Answer(choice=choice if problem.evaluate(choice).feasible else None)


def seeding(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    random.seed(random.random())
    return answer


def environment(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    os.environ["HONEST_RUNS"] = os.environ.get("HONEST_RUNS", "") + "x"
    return answer


def writing(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    for column in problem.scores.values():
        column.setflags(write=True)
        column[0] += 1.0
        column.setflags(write=False)
    return answer


def thawing(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    problem.indptr.setflags(write=True)
    return answer


def needy(answer: Answer, problem: Problem, limits: Limits) -> Answer:
    problem.stats["alpha"]
    return answer


# -- what a solver may be ---------------------------------------------------------------------------------------------


@dataclass
class Mutable:
    turns: int = 3
    name: ClassVar[str] = "mutable"


@dataclass(frozen=True, kw_only=True)
class Required(Honest):
    must: int


@dataclass(frozen=True, kw_only=True)
class Unwritable(Honest):
    pair: tuple[int, int] = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Hidden(Honest):
    secret: int = dataclasses.field(default=1, repr=False)


@dataclass(frozen=True, kw_only=True)
class Unpicklable(Honest):
    helper: Any = dataclasses.field(default_factory=lambda: lambda: 3)


def spoiled(spoil: Spoil, **declared: Any) -> Any:
    """An honest solver with one fault."""
    body = {"spoil": lambda self, answer, problem, limits: spoil(answer, problem, limits), **declared}
    return type("Spoiled", (Honest,), body)()


def declaring(**declared: Any) -> Any:
    return type("Declaring", (Honest,), declared)()


HEURISTIC, BOUNDED = {"exactness": Exactness.HEURISTIC}, {"exactness": Exactness.BOUNDED}
FAULTS: list[tuple[str, Any, str]] = [
    ("it_takes_what_it_declares", spoiled(crash), "KeyError: 'two'"),
    ("it_takes_what_it_declares", spoiled(picky), "are refused whose features are declared"),
    ("it_takes_what_it_declares", spoiled(curt), "must name the part and the way out|are refused"),
    ("answers_have_the_right_shape", spoiled(lambda a, p, x: "none"), "'str', not an Answer"),
    ("answers_have_the_right_shape", spoiled(changed(choice=lambda a, p: a.choice.tolist())), "not list"),
    ("answers_have_the_right_shape", spoiled(changed(choice=lambda a, p: a.choice.astype(float))), "not float64"),
    ("answers_have_the_right_shape", spoiled(changed(choice=lambda a, p: a.choice[1:])), "has shape"),
    (
        "answers_have_the_right_shape",
        spoiled(changed(choice=lambda a, p: a.choice + p.indptr[:-1])),
        "within the group",
    ),
    ("answers_have_the_right_shape", spoiled(changed(claimed_bound=lambda a, p: float("nan"))), "not a finite number"),
    ("answers_have_the_right_shape", spoiled(changed(claim=lambda a, p: "infeasible")), "beside an allocation"),
    ("answers_have_the_right_shape", spoiled(changed(claim=lambda a, p: "best")), "claim 'best'"),
    (
        "answers_have_the_right_shape",
        spoiled(changed(certificate=lambda a, p: Multipliers((0.0,) * (len(p.budgets) + 1)))),
        "prices for",
    ),
    ("answers_have_the_right_shape", spoiled(changed(limit=lambda a, p: 3)), "limit 3 is not text"),
    ("allocations_are_feasible", spoiled(lambda a, p, x: Answer(choice=np.zeros(p.group_count, int))), "not feasible"),
    ("allocations_are_feasible", Overreaching(), r"coupling \d is broken"),
    (
        "infeasible_problems_get_no_allocation",
        spoiled(lambda a, p, x: Answer(claim="infeasible"), **HEURISTIC),
        "yet something is feasible",
    ),
    ("claims_are_true", spoiled(boastful, **HEURISTIC), "claims an optimum at"),
    ("claims_are_true", spoiled(changed(claimed_bound=lambda a, p: a.claimed_bound + 1e12)), "above the optimum"),
    ("random_problems_are_solved_as_well_as_promised", spoiled(cheapest), "the optimum is|found nothing"),
    ("simple_problems_are_solved", spoiled(lambda a, p, x: Answer(), **HEURISTIC), "nothing was found"),
    ("simple_problems_are_solved", spoiled(lambda a, p, x: Answer(choice=a.choice), **BOUNDED), "gives a bound"),
    ("order_does_not_matter", spoiled(where(lambda p: p.sizes[0] < p.sizes[-1])), "follows from the other guise|can"),
    ("the_size_of_losses_does_not_matter", spoiled(where(lambda p: np.abs(p.unary).max() < 1e-6)), "follows|can be"),
    (
        "the_unit_of_costs_does_not_matter",
        spoiled(where(lambda p: max(abs(c).max() for c in p.costs.values()) > 1e5)),
        "follows|can be",
    ),
    ("a_dominated_choice_changes_nothing", spoiled(where(lambda p: p.sizes.max() > 4)), "follows|can be"),
    ("a_constant_only_shifts_the_objective", spoiled(where(lambda p: p.unary.min() < 0)), "follows|can be"),
    ("a_larger_budget_is_never_worse", spoiled(where(lambda p: len(p.budgets) == 1)), "follows|can be"),
    ("a_time_limit_is_kept", spoiled(asleep), "under a limit of 0.2 s"),
    ("a_gap_is_kept", spoiled(hasty), "further than 30%|claims an optimum"),
    ("seed_and_threads_are_taken", spoiled(one_thread), "must name threads"),
    ("reports_are_feasible_and_never_better_than_the_answer", spoiled(reporting), "which is not feasible"),
    (
        "reports_are_feasible_and_never_better_than_the_answer",
        spoiled(lambda a, p, x: Answer(), **HEURISTIC),
        "after a feasible report",
    ),
    ("a_start_is_taken", Led(), "optimum"),
    ("missing_stats_are_refused_by_name", spoiled(needy, stats=("alpha",)), "failed: KeyError"),
    ("runs_repeat", spoiled(thrown, **HEURISTIC), "two runs differ"),
    ("the_problem_is_left_alone", spoiled(writing), "arrays were changed"),
    ("the_problem_is_left_alone", spoiled(thawing), "can be written to"),
    ("the_process_is_left_alone", spoiled(seeding), "state of `random`"),
    ("the_process_is_left_alone", spoiled(thrown), "state of `numpy.random`"),
    ("the_process_is_left_alone", spoiled(environment), "environment"),
    ("declarations_have_the_right_types", declaring(features=frozenset({"telepathy"})), "telepathy"),
    ("declarations_have_the_right_types", declaring(features={"pairs"}), "frozenset"),
    ("declarations_have_the_right_types", declaring(stats="alpha"), "stats must be a tuple"),
    ("declarations_have_the_right_types", declaring(name="my solver"), "snake_case"),
    ("declarations_have_the_right_types", declaring(exactness="exact"), "Exactness"),
    ("declarations_have_the_right_types", declaring(isolate=None), "isolate"),
    ("declarations_have_the_right_types", Mutable(), "lacks one of"),
    ("imports_exist", declaring(imports=("no_such_module.at_all",)), "no_such_module"),
    ("options_are_the_fields_of_a_frozen_keyword_only_dataclass", Mutable(), "must be frozen"),
    ("options_are_the_fields_of_a_frozen_keyword_only_dataclass", object(), "must be a dataclass"),
    ("every_option_has_a_default", Required(must=1), "must"),
    ("options_can_be_written", Unwritable(), "do not survive JSON"),
    ("repr_reproduces_the_solver", Hidden(secret=2), "makes another solver"),
    ("it_can_be_pickled", Unpicklable(), "pickle|local object"),
]


@pytest.mark.parametrize(("test", "solver", "said"), FAULTS, ids=[test for test, _, _ in FAULTS])
def test_the_fault_is_noticed(test: str, solver: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_asked", {})  # equal reprs, other faults
    with pytest.raises((Exception, pytest.fail.Exception), match=said):
        getattr(Suite(), f"test_{test}")(solver)


def test_a_core_that_refuses_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_refuse_unsupported", lambda backend, problem: None)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        Suite().test_undeclared_features_are_refused_by_name(declaring(features=frozenset()))


def test_an_entry_point_that_leads_elsewhere_is_noticed() -> None:
    with pytest.raises(AssertionError, match="leads to 'honest'"):
        Suite().test_the_registry_knows_it_by_its_name("greedy", Honest())


@pytest.mark.parametrize(
    ("exempt", "said"),
    [
        ({"test_no_such_thing": "a reason"}, "has no test"),
        ({"allowance": "a reason"}, "not the name of a test"),
        ({"test_runs_repeat": " "}, "lacks its reason"),
        ({"test_runs_repeat": None}, "must be text"),
    ],
)
def test_an_exemption_has_a_test_and_a_reason(exempt: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        type("Exempt", (Suite,), {"exempt": exempt})().test_exemptions_have_a_test_and_a_reason()


def test_each_test_of_the_suite_is_seen_to_fail() -> None:
    by_name = {f"test_{test}" for test, _, _ in FAULTS}
    alone = {
        "test_exemptions_have_a_test_and_a_reason",
        "test_the_registry_knows_it_by_its_name",
        "test_undeclared_features_are_refused_by_name",
    }
    assert {name for name in dir(Suite) if name.startswith("test_")} == by_name | alone | CORE


CORE = {"test_solutions_are_true", "test_solutions_can_be_written"}
"""They look at what the core makes of an answer; no answer is known that would make them fail."""
