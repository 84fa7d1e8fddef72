"""Backends that lie: whatever they return, the status is never wrong, and the lie is named."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import allocator
from allocator.certificate import Core, Enumeration, Multipliers, Threshold
from allocator.errors import SolverError
from allocator.features import ALL
from allocator.formats.solutions import solution_bytes
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.testing.claims import false_claims
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, PARTS, random_rows
from allocator.testing.reference import Reference


@dataclass(frozen=True, kw_only=True)
class Liar:
    """Returns what it was told to, whatever the problem."""

    answer: Any = field(default=None, repr=False)

    name: ClassVar[str] = "liar"
    features: ClassVar[frozenset[str]] = ALL
    exactness: ClassVar[Exactness] = Exactness.EXACT
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        answer: Answer = self.answer(problem) if callable(self.answer) else self.answer
        return answer


def told(rows: dict[str, Any], answer: Any) -> allocator.Solution:
    return allocator.solve(rows, solver=Liar(answer=answer))


WILD = [math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 0.0, -1.0, 1e9, 1e-9]


def a_lie(rng: Random, problem: Problem) -> Answer:
    """A random allocation, right or wrong, under random claims."""
    choice = np.array([rng.randrange(n) for n in problem.sizes.tolist()])
    prices = tuple(rng.choice(WILD) for _ in range(rng.randint(0, 4)))
    return Answer(
        choice=choice if rng.random() < 0.8 else None,
        claim=rng.choice([None, "optimal", "optimal", "infeasible"]),
        claimed_bound=rng.choice([None, *WILD, -1e12, 1e12]),
        certificate=rng.choice([None, Multipliers(prices), Core(prices), Threshold(prices, prices), Enumeration()]),
    )


@pytest.mark.parametrize("parts", [PARTS, LINEAR], ids=["everything", "linear"])
def test_no_lie_makes_the_core_say_something_false(parts: frozenset[str]) -> None:
    rng = Random(0)
    statuses: dict[str, int] = {}
    for seed in range(times(300)):
        rows = random_rows(seed, parts, most_allocations=60)
        reference = Reference(rows)
        problem = Problem.from_rows(rows)
        for _ in range(3):
            solution = allocator.solve(problem, solver=Liar(answer=lambda given: a_lie(rng, given)))
            assert not false_claims(reference, solution), (seed, solution)
            statuses[solution.status] = statuses.get(solution.status, 0) + 1
    assert set(statuses) >= {"optimal", "feasible", "infeasible", "unknown"}


def knapsack(budget: int = 3) -> dict[str, Any]:
    """Two groups; the optimum under the budget of 3 is (1, 1) at 4, (0, 1) costs 2 at 6, (2, 2) breaks it."""
    choices = [{"name": str(k), "cost": {"c": 2 * k - (k == 1)}, "score": {"s": float(4 - 2 * k)}} for k in range(3)]
    return {
        "format": "allocation-problem",
        "version": 1,
        "groups": [{"name": n, "choices": choices} for n in "gh"],
        "budgets": [{"resource": "c", "max": budget}],
    }


def test_the_best_is_what_the_docstring_says() -> None:
    best = Reference(knapsack()).best
    assert best is not None
    assert (best.places, best.objective) == ((1, 1), 4.0)


@pytest.mark.parametrize(
    "choice",
    [
        [0.0, 1.0],
        [0.5, 1.0],
        [True, False],
        ["0", "1"],
        [None, None],
        [math.nan, 0.0],
        [0],
        [0, 0, 0],
        [],
        [[0, 0]],
        [[0, 0], [1]],
        [-1, 0],
        [0, 3],
        [2**40, 0],
        np.array([2**64 - 1, 0], np.uint64),
        np.zeros(2, complex),
        "11",
        7,
        object(),
        {"g": 0, "h": 0},
    ],
    ids=lambda choice: "object" if type(choice) is object else repr(choice),
)
@pytest.mark.parametrize("claim", [None, "optimal", "infeasible"])
def test_what_is_no_allocation_is_not_taken(choice: Any, claim: Any) -> None:
    solution = told(knapsack(), Answer(choice=choice, claim=claim))
    assert solution.status == "unknown"
    assert solution.allocation is None
    assert solution.objective is None
    assert solution.reasons[0].startswith("the backend's answer is not an allocation")


def test_an_allocation_over_the_budget_is_not_taken() -> None:
    solution = told(knapsack(), Answer(choice=np.array([2, 2]), claim="optimal", claimed_bound=0.0))
    assert solution.status == "unknown"
    assert "c: 8 is over the max 3" in solution.reasons[0]


def test_a_false_optimum_stays_feasible_and_the_better_one_is_mentioned() -> None:
    solution = told(knapsack(), Answer(choice=np.array([0, 1]), claim="optimal", claimed_bound=6.0))
    assert (solution.status, solution.claim, solution.objective) == ("feasible", "optimal", 6.0)
    assert solution.proven_bound is not None
    assert solution.proven_bound <= 4.0
    assert any("claims optimal, but" in reason for reason in solution.reasons)


def test_a_true_optimum_is_proved_without_any_help() -> None:
    solution = told(knapsack(), Answer(choice=np.array([1, 1])))
    assert (solution.status, solution.claim, solution.proven_bound, solution.gap) == ("optimal", None, 4.0, 0.0)
    assert solution.certificate is not None
    assert solution.certificate["checked"] is True


@pytest.mark.parametrize("bound", [5.0, 1e9, math.nextafter(4.0, 5.0) + 1e-6])
def test_a_bound_above_the_truth_is_named(bound: float) -> None:
    solution = told(knapsack(), Answer(choice=np.array([1, 1]), claimed_bound=bound))
    assert solution.proven_bound == 4.0
    assert solution.claimed_bound == bound
    assert any("it is wrong" in reason for reason in solution.reasons)


@pytest.mark.parametrize("bound", [math.nan, math.inf, -math.inf, "4", None, [4.0], 10**400])
def test_a_bound_that_is_no_number_is_left_out(bound: Any) -> None:
    solution = told(knapsack(), Answer(choice=np.array([1, 1]), claimed_bound=bound))
    assert solution.status == "optimal"
    assert solution.claimed_bound is None
    assert bound is None or any("is not a finite number" in reason for reason in solution.reasons)


def test_a_false_infeasible_stays_unknown() -> None:
    solution = told(knapsack(), Answer(claim="infeasible"))
    assert (solution.status, solution.claim) == ("unknown", "infeasible")
    assert any("could not prove it" in reason for reason in solution.reasons)
    beside = told(knapsack(), Answer(choice=np.array([1, 1]), claim="infeasible"))
    assert beside.status == "optimal"
    assert any("yet its own allocation is feasible" in reason for reason in beside.reasons)


def test_an_infeasible_problem_is_seen_through_whatever_is_claimed() -> None:
    for answer in (Answer(), Answer(claim="infeasible"), Answer(choice=np.array([0, 0]), claim="optimal")):
        solution = told(knapsack(budget=-1), answer)
        assert solution.status == "infeasible"
        assert solution.claim is None
        assert solution.certificate == {"kind": "multipliers", "checked": True}
        assert solution.multipliers == (1.0,)
        assert solution.slack == (None,)


@pytest.mark.parametrize(
    "certificate",
    [
        Multipliers((math.nan,)),
        Multipliers((math.inf,)),
        Multipliers((-5.0,)),
        Multipliers((1e308,)),
        Multipliers(()),
        Multipliers((1.0, 2.0, 3.0)),
        Multipliers((None,)),  # type: ignore[arg-type]  # what an untyped plug-in may send
        Multipliers(("1",)),  # type: ignore[arg-type]  # likewise
        Multipliers(("x",)),  # type: ignore[arg-type]  # likewise
        Multipliers(None),  # type: ignore[arg-type]  # likewise
        Multipliers((10**400,)),
        Core((math.nan,)),
        Core((-5.0,)),
        Core((1e308,)),
        Core(()),
        Core(None),  # type: ignore[arg-type]  # likewise
        Threshold((math.nan,), (math.nan,)),
        Threshold(None, None),  # type: ignore[arg-type]  # likewise
        Enumeration(),
        "proof",
        7,
    ],
    ids=str,
)
def test_bad_certificates_prove_nothing_false(certificate: Any) -> None:
    reference = Reference(knapsack())
    for choice in (np.array([0, 1]), np.array([1, 1]), None):
        for claim in (None, "optimal", "infeasible"):
            solution = told(knapsack(), Answer(choice=choice, claim=claim, certificate=certificate))  # type: ignore[arg-type]  # a loop over a literal
            assert not false_claims(reference, solution)
            for price in solution.multipliers:
                assert price is None or (math.isfinite(price) and price >= 0)


def test_a_claim_of_no_meaning_is_named() -> None:
    solution = told(knapsack(), Answer(choice=np.array([1, 1]), claim="surely"))  # type: ignore[arg-type]  # as a plug-in may
    assert solution.claim is None
    assert any("'surely' means nothing" in reason for reason in solution.reasons)


@pytest.mark.parametrize("answer", [None, 7, [0, 1], np.array([1, 1]), Answer], ids=str)
def test_what_is_no_answer_is_an_error_that_names_the_solver(answer: Any) -> None:
    with pytest.raises(SolverError, match=r"'liar' returned .* not an Answer"):
        told(knapsack(), answer if answer is not Answer else (lambda _: Answer))


def test_a_crash_is_an_error_that_names_the_solver() -> None:
    def crash(_: Problem) -> Answer:
        raise ZeroDivisionError("oops")

    with pytest.raises(SolverError, match="'liar' failed: ZeroDivisionError: oops"):
        told(knapsack(), crash)


def test_the_callers_own_exception_comes_back_as_it_is() -> None:
    class MineError(Exception):
        pass

    def stop(_: NDArray[np.int64]) -> None:
        raise MineError

    with pytest.raises(MineError):
        allocator.solve(knapsack(), solver="brute_force", report=stop)


def test_an_interrupt_keeps_the_best_allocation_seen() -> None:
    from allocator.pipeline import Interrupted

    def stop(_: NDArray[np.int64]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        allocator.solve(knapsack(), solver="brute_force", report=stop)
    solution = caught.value.solution
    assert solution.limit == "interrupt"
    assert solution.allocation is not None
    assert not false_claims(Reference(knapsack()), solution)


def test_whatever_a_backend_says_can_be_written_down() -> None:
    statistics = {"nodes": np.int64(3), "gap": np.float32(0.5), "who": object, "nan": math.nan}
    solution = told(knapsack(), Answer(choice=np.array([1, 1], np.int8), statistics=statistics))
    assert b'"nodes": 3' in solution_bytes(solution)


def test_large_infeasible_problems_are_not_multiplied_out() -> None:
    """The number of allocations of 300,000 groups has 180,000 digits; the check must not wait for it."""
    problem = Problem.from_arrays(np.zeros((300_000, 4)), np.ones((300_000, 4), int), budgets={"cost": 300_000})
    solution = allocator.solve(problem, solver=Liar(answer=Answer(claim="infeasible")))
    assert solution.status == "unknown"


def test_infeasible_loss_rows_under_a_maximum_name_the_right_budget() -> None:
    rows = knapsack() | {"loss": {"terms": {"s": 1.0}, "aggregate": "max"}}
    rows["budgets"] = [{"loss": True, "max": 3.0}, {"resource": "c", "max": -1}]
    solution = told(rows, Answer(claim="infeasible"))
    assert solution.status == "infeasible"
    assert "budget row 1 (c)" in solution.reasons[0]


def test_a_group_without_any_choice_left_is_named() -> None:
    rows = knapsack() | {"resources": {"c": {"aggregate": "max"}}, "budgets": [{"resource": "c", "max": -1}]}
    solution = told(rows, Answer(claim="infeasible"))
    assert solution.status == "infeasible"
    assert "group 'g'" in solution.reasons[0]
