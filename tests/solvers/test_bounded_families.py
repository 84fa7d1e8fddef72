"""dynamic_program, graph, cvxpy_qp and cvxpy_sdp on random problems: what they say is true, and says much."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from allocator import features
from allocator.checks.lagrangian import proves_infeasible
from allocator.errors import UnsupportedError, UsageError
from allocator.evaluation import Outcome
from allocator.linear import linearise
from allocator.pipeline import run_backend
from allocator.problem import Problem
from allocator.protocols import Limits, Solver
from allocator.reduce import reduce
from allocator.solution import Answer
from allocator.statement import Pairs
from allocator.testing.claims import tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import DETAILS, LINEAR, MASKS, random_rows
from allocator.testing.reference import Reference
from solvers.cvxpy_qp import CvxpyQp
from solvers.cvxpy_sdp import CvxpySdp
from solvers.dynamic_program import DynamicProgram
from solvers.graph import Graph

DRAWS: dict[str, tuple[Solver, int]] = {
    "dynamic_program": (DynamicProgram(), 250),
    "dynamic_program, rounded": (DynamicProgram(cells=12), 150),
    "graph": (Graph(kicks=5), 200),
    "cvxpy_qp": (CvxpyQp(kicks=5), 100),
    "cvxpy_sdp": (CvxpySdp(kicks=5), 60),
}
ANY = (CvxpyQp(kicks=2), CvxpySdp(kicks=2), Graph(kicks=2))


def ask(solver: Solver, problem: Problem, start: NDArray[np.int64] | None = None, **limits: Any) -> Answer:
    return run_backend(solver, problem, Limits(**limits), start)


def outcome(problem: Problem, answer: Answer) -> Outcome:
    assert answer.choice is not None
    found = problem.evaluate(answer.choice)
    assert found.violations == ()
    return found


def judge(problem: Problem, answer: Answer, reference: Reference, label: object) -> str:
    """Nothing that the backend says may be false; returns how the answer compares with the optimum."""
    best, slip = reference.best, tolerance(reference)
    if best is None:
        assert answer.choice is None, label
        assert answer.claim in (None, "infeasible"), label
        if answer.certificate is not None and answer.claim == "infeasible":
            assert proves_infeasible(linearise(problem, with_interactions=True), answer.certificate.values), label  # type: ignore[union-attr]  # prices, or the test fails
        return f"infeasible, {answer.claim}"
    assert answer.claim != "infeasible", label
    if answer.claimed_bound is not None:
        assert answer.claimed_bound <= best.objective + slip, label
    if answer.choice is None:
        assert answer.claim is None, label
        return "nothing found"
    found = outcome(problem, answer)
    hit = found.objective <= best.objective + slip
    if answer.claim == "optimal":
        assert hit, (label, found.objective, best.objective)
        assert answer.claimed_bound is not None, label
        return "optimal"
    return "optimum found" if hit else "worse"


@pytest.mark.parametrize("name", DRAWS)
def test_random_problems(name: str) -> None:
    solver, count = DRAWS[name]
    seen: Counter[str] = Counter()
    parts = LINEAR | solver.features | DETAILS | MASKS
    for seed in range(40_000, 40_000 + times(count)):
        rows = random_rows(seed, parts, most_allocations=150)
        problem = reduce(Problem.from_rows(rows)).problem
        if problem is None or not problem.features <= solver.features:
            continue
        try:
            answer = ask(solver, problem)
        except UnsupportedError:  # a p-norm in a mixture
            seen["refused"] += 1
            continue
        seen[judge(problem, answer, Reference(rows), seed)] += 1
    asked = sum(seen.values())
    compared = asked - sum(n for what, n in seen.items() if what.startswith("infeasible"))
    assert asked >= count // 3, seen
    assert seen["refused"] <= asked // 10, seen
    assert seen["nothing found"] <= asked // 25, seen
    assert seen["worse"] <= asked // 20, seen
    assert seen["infeasible, infeasible"] > seen["infeasible, None"], seen
    floor = {"dynamic_program": 0.3, "dynamic_program, rounded": 0.02, "cvxpy_sdp": 0.02}.get(name, 0.3)
    assert seen["optimal"] >= floor * compared, seen


def coupled(seed: int, groups: int = 4, choices: int = 3, ties: bool = False) -> Problem:
    """Every two choices of different groups add a number of either sign; one budget."""
    rng = np.random.default_rng(seed)
    n = groups * choices
    a, b = np.nonzero(np.triu(np.arange(n)[:, None] // choices != np.arange(n)[None, :] // choices))
    value = rng.integers(-2, 3, len(a)).astype(float) if ties else rng.normal(size=len(a))
    loss = rng.integers(0, 3, (groups, choices)).astype(float) if ties else rng.normal(size=(groups, choices))
    costs = rng.integers(1, 20, (groups, choices))
    budget = int(costs.min(axis=1).sum() + 0.5 * (costs.max(axis=1) - costs.min(axis=1)).sum())
    problem = Problem.from_arrays({"s": loss}, {"bytes": costs}, budgets={"bytes": budget})
    return problem.replace(interactions=(Pairs("s", np.stack([a, b], axis=1), value),))


def best_of(problem: Problem) -> float:
    every = np.indices(problem.sizes).reshape(problem.group_count, -1).T
    return min(o.objective for o in map(problem.evaluate, every) if o.feasible)


@pytest.mark.parametrize("solver", ANY, ids=lambda s: s.name)
@pytest.mark.parametrize("ties", [False, True])
def test_dense_indefinite_interactions(solver: Solver, ties: bool) -> None:
    hits = 0
    for seed in range(times(20)):
        problem = coupled(seed, ties=ties)
        best = best_of(problem)
        answer = ask(solver, problem)
        found = outcome(problem, answer).objective
        assert answer.claimed_bound is not None
        assert answer.claimed_bound <= best + 1e-12, seed
        if answer.claim == "optimal":
            assert found <= best + 1e-12, seed
        hits += found <= best + 1e-12
    assert hits >= times(20) * 0.9


@pytest.mark.parametrize("solver", [*ANY, DynamicProgram(), DynamicProgram(cells=10)], ids=repr)
def test_answers_repeat_a_start_is_kept_and_reports_get_better(solver: Solver) -> None:
    problem = coupled(3)
    if solver.name == "dynamic_program":
        problem = problem.replace(interactions=())
    first, second = ask(solver, problem, seed=5), ask(solver, problem, seed=5)
    assert first.choice is not None
    assert np.array_equal(first.choice, second.choice)  # type: ignore[arg-type]  # both have one
    assert (first.claimed_bound, first.statistics) == (second.claimed_bound, second.statistics)
    seen: list[float] = []
    again = ask(solver, problem, first.choice, report=lambda c: seen.append(problem.evaluate(c).objective))
    assert outcome(problem, again).objective <= outcome(problem, first).objective
    assert seen
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == outcome(problem, again).objective


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DynamicProgram(cells=0), "cells=0"),
        (lambda: Graph(width=-1), "width=-1"),
        (lambda: CvxpyQp(kicks=-2), "kicks=-2"),
        (lambda: CvxpySdp(most=0), "most=0"),
    ],
)
def test_options_that_cannot_be_meant_are_named(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize("solver", [*ANY, DynamicProgram()], ids=lambda s: s.name)
def test_what_they_declare(solver: Solver) -> None:
    assert solver.features <= features.ALL
    assert repr(solver).startswith(type(solver).__name__)
