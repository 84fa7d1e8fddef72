"""The mixed-integer program against the problem itself, and the driver against engines that err or lie."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from allocator.errors import UnsupportedError
from allocator.evaluation import Outcome, scale_of
from allocator.milp import Milp, build
from allocator.milp_driver import Found, _Run, _Search, solve_milp
from allocator.milp_scaled import scaled
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.reduce import reduce
from allocator.statement import Basis, Budget, Cardinality, Loss, Pairs
from allocator.testing.depth import times
from allocator.testing.random_problems import PARTS, random_rows


def drawn(count: int, first: int = 50_000) -> Iterator[tuple[int, Problem]]:
    """Random problems as a backend gets them, few allocations each."""
    for seed in range(first, first + count):
        rows = random_rows(seed, PARTS, most_allocations=60)
        try:
            problem = reduce(Problem.from_rows(rows)).problem
        except UnsupportedError:
            continue
        if problem is not None:
            yield seed, problem


def allocations(problem: Problem) -> Iterator[NDArray[np.int64]]:
    for places in itertools.product(*map(range, problem.sizes.tolist())):
        yield np.array(places, np.int64)


def best_of(problem: Problem) -> Outcome | None:
    feasible = [o for o in map(problem.evaluate, allocations(problem)) if o.feasible]
    return min(feasible, key=lambda o: (o.objective, o.tie), default=None)


def breach(model: Milp, x: NDArray[np.float64]) -> float:
    """By how much the worst row is missed, as a share of what it can reach."""
    worst = 0.0
    for block in model.blocks:
        lo, hi = block.float_limits()
        use = np.array(block.times(x))
        worst = max(worst, float(np.maximum(use - hi, lo - use).max(initial=0.0)) / max(block.reach, 1.0))
    return worst


def test_every_allocation_means_the_same_in_the_program() -> None:
    compared = 0
    for seed, problem in drawn(times(250)):
        try:
            model = build(problem)
        except UnsupportedError:
            continue
        tolerance = 1e-9 * (scale_of(problem) + abs(model.constant))
        for choice in allocations(problem):
            outcome = problem.evaluate(choice)
            x = None if model.hopeless is not None else model.vector_of(choice)
            if x is None:
                assert not outcome.feasible, seed  # a mask or a hopeless row
                continue
            assert np.array_equal(model.choice_of(x), choice)
            total = float(model.objective @ x) + model.constant
            if model.linear.power != 1.0:
                total = model.linear.objective(total)
            assert abs(total - outcome.objective) <= tolerance, seed
            if outcome.feasible:
                assert breach(model, x) <= 1e-12, seed
            compared += 1
    assert compared > times(2000)


def test_rows_keep_out_what_is_infeasible_by_more_than_rounding() -> None:
    kept_out = 0
    for seed, problem in drawn(times(250), 60_000):
        try:
            model = build(problem)
        except UnsupportedError:
            continue
        if model.hopeless is not None:
            continue
        for choice in allocations(problem):
            outcome = problem.evaluate(choice)
            x = model.vector_of(choice)
            if outcome.feasible or x is None:
                continue
            close = any(
                limit is not None and abs(use - limit) <= 1e-9 * (abs(limit) + scale_of(problem))
                for row, use in zip(problem.budgets, outcome.used, strict=True)
                for limit in (row.max, row.min)
            )
            assert close or breach(model, x) > 0, seed
            kept_out += not close
    assert kept_out > times(500)


def test_scaling_is_undone() -> None:
    for exponent in (-40, 0, 40):
        rng = np.random.default_rng(0)
        loss = rng.normal(size=(5, 4)) * 10.0**exponent
        problem = Problem.from_arrays(loss, rng.integers(0, 10**12, (5, 4)), budgets={"cost": 2 * 10**12})
        program = scaled(build(problem))
        reach = np.maximum.reduceat(program.objective, program.model.start[:-1]).sum()
        assert 2.0**22 <= reach <= 2.0**23
        assert (np.abs(program.value) <= 2.0**23).all()
        x = program.model.vector_of(np.array([0, 1, 2, 3, 0]))
        assert x is not None
        total = program.total(float(program.objective @ x))
        assert math.isclose(total, problem.evaluate(np.array([0, 1, 2, 3, 0])).objective, rel_tol=1e-12)


def test_exact_rows_are_divided_and_idle_rows_left_out() -> None:
    costs = np.array([[1000, 3000], [2000, 8000]])
    row = build(Problem.from_arrays(np.zeros((2, 2)), costs, budgets={"cost": 10_999})).blocks[0]
    assert (row.value.tolist(), row.hi.tolist(), row.unit) == ([1, 3], [3], 2000)
    assert build(Problem.from_arrays(np.zeros((2, 2)), costs, budgets={"cost": 11_000})).blocks == ()
    assert "cost" in str(build(Problem.from_arrays(np.zeros((2, 2)), costs, budgets={"cost": 2_999})).hopeless)


def test_what_is_not_linear_is_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    plain = Problem.from_arrays(rng.random((40, 7)), rng.integers(0, 9, (40, 7)))
    vectors = Basis("score", np.ones(2), rng.normal(size=(280, 2)))
    with pytest.raises(UnsupportedError, match="64974 products"):
        build(
            Problem.from_arrays(rng.random((52, 7)), rng.random((52, 7))).replace(
                interactions=(Basis("score", np.ones(2), rng.normal(size=(364, 2))),)
            )
        )
    assert len(build(plain.replace(interactions=(vectors,))).products.first) == 40 * 39 // 2 * 49
    with pytest.raises(UnsupportedError, match="p-norm"):
        build(plain.replace(loss=Loss({"score": 1.0}, "pnorm", 2.0), minimize={"loss": 1.0, "cost": 1.0}))
    with pytest.raises(UnsupportedError, match="negative weight"):
        build(plain.replace(loss=Loss({"score": 1.0}, "max"), minimize={"loss": -1.0, "cost": 1.0}))


def test_products_are_built_in_the_direction_that_is_needed() -> None:
    index = np.array([[0, 2], [1, 3]])
    plain = Problem.from_arrays(np.zeros((2, 4)), np.zeros((2, 4), np.int64))
    model = build(plain.replace(interactions=(Pairs("score", index * 2, np.array([1.0, -1.0])),)))
    assert model.products.low.tolist() == [True, False]
    assert model.products.high.tolist() == [False, True]
    two_sided = plain.replace(
        interactions=(Pairs("score", index * 2, np.array([1.0, -1.0])),), budgets=(Budget(loss=True, min=0.0, max=0.5),)
    )
    assert build(two_sided).products.low.all()
    assert build(two_sided).products.high.all()
    idle = plain.replace(interactions=(Pairs("score", index * 2, np.ones(2)),), minimize={"cost": 1.0})
    assert not len(build(idle).products.first)


# -- the driver ------------------------------------------------------------------------------------------------------

Seen = Callable[[NDArray[Any]], None]


class Enumerating:
    """An engine that looks at every vector of an allocation, with a tolerance on the rows as engines have one."""

    def __init__(self, tolerance: float = 0.0) -> None:
        self.tolerance = tolerance
        self.calls = 0

    def __call__(self, model: Milp, limits: Limits, hint: Any, seen: Seen) -> Found:
        self.calls += 1
        best: tuple[float, Any] | None = None
        for choice in allocations(model.problem):
            x = model.vector_of(choice)
            if x is not None and breach(model, x) <= self.tolerance:
                value = float(model.objective @ x) + model.constant
                best = min(best or (math.inf, None), (value, x), key=lambda pair: pair[0])
        return Found("infeasible") if best is None else Found("optimal", best[1], best[0])


def tight(seed: int = 0) -> Problem:
    """A budget that many allocations miss by a hair: costs differ in the tenth digit."""
    rng = np.random.default_rng(seed)
    costs = 10**10 + rng.integers(0, 40, (4, 3))
    return Problem.from_arrays(rng.random((4, 3)), costs, budgets={"cost": int(costs[:, 1].sum())})


def test_a_sloppy_engine_is_asked_until_the_answer_is_feasible_and_best() -> None:
    for seed in range(20):
        problem = tight(seed)
        best = best_of(problem)
        assert best is not None
        answer = solve_milp(problem, Limits(), Enumerating(tolerance=0.3))
        assert answer.choice is not None
        assert problem.evaluate(answer.choice).objective == best.objective
        assert answer.claim == "optimal"


def test_an_exact_engine_solves_random_problems() -> None:
    solved = 0
    for seed, problem in drawn(times(150), 70_000):
        try:
            answer = solve_milp(problem, Limits(), Enumerating(tolerance=1e-9))
        except UnsupportedError:
            continue
        best = best_of(problem)
        if best is None:
            assert (answer.choice, answer.claim) == (None, "infeasible"), seed
            continue
        assert answer.choice is not None, seed
        found = problem.evaluate(answer.choice)
        slip = 1e-12 * scale_of(problem)
        assert found.objective <= best.objective + slip, seed
        assert found.tie <= best.tie + slip, seed
        assert answer.claim == "optimal", seed
        assert answer.claimed_bound is not None
        assert answer.claimed_bound <= best.objective + slip, seed
        solved += 1
    assert solved > times(75)


def test_an_engine_that_calls_the_second_best_optimal_is_asked_again() -> None:
    rng = np.random.default_rng(3)
    problem = Problem.from_arrays(rng.random((3, 2)), rng.integers(1, 9, (3, 2)), budgets={"cost": 15})
    exact, calls = Enumerating(), 0

    def second_best(model: Milp, limits: Limits, hint: Any, seen: Seen) -> Found:
        nonlocal calls
        calls += 1
        first = exact(model, limits, hint, seen)
        if first.x is None:
            return first
        second = exact(model.without(np.flatnonzero(first.x[: len(model.row)]), 2), limits, hint, seen)
        return first if second.x is None else Found("optimal", second.x, first.bound)

    best = best_of(problem)
    assert best is not None
    stage = _Search(_Run(problem, Limits(), second_best), build(problem), lambda o: o.objective)
    ended = stage.run(lambda _: build(problem))
    assert ended.closed
    assert ended.best is not None
    assert ended.best.objective == best.objective
    assert calls > 1


def test_an_engine_that_overlooks_the_incumbent_proves_nothing() -> None:
    answer = solve_milp(tight(), Limits(), lambda *_: Found("infeasible"))
    assert answer.choice is not None  # found by local search
    assert answer.claim is None


def test_an_engine_that_stops_at_the_limit_leaves_the_incumbent_and_its_bound() -> None:
    problem = tight()
    reported: list[Any] = []

    def stopped(model: Milp, limits: Limits, hint: Any, seen: Seen) -> Found:
        assert hint is not None
        seen(hint)
        return Found("unknown", None, model.constant)

    answer = solve_milp(problem, Limits(time=10, report=reported.append), stopped)
    assert (answer.claim, answer.limit) == (None, "time")
    assert answer.choice is not None
    assert problem.evaluate(answer.choice).feasible
    assert answer.claimed_bound == pytest.approx(problem.unary.reshape(4, 3).min(axis=1).sum())
    assert [problem.evaluate(c).feasible for c in reported] == [True] * len(reported)
    worth = [problem.evaluate(c).objective for c in reported]
    assert worth == sorted(worth, reverse=True)


def test_a_gap_that_is_near_enough_ends_the_search_without_a_claim() -> None:
    problem = tight().replace(budgets=())
    engine = Enumerating()

    def loose(model: Milp, limits: Limits, hint: Any, seen: Seen) -> Found:
        found = engine(model, limits, hint, seen)
        assert found.bound is not None
        return Found("optimal", found.x, found.bound * 0.99)

    answer = solve_milp(problem, Limits(gap=0.02), loose)
    assert (answer.claim, answer.limit, engine.calls) == (None, None, 1)
    best = best_of(problem)
    assert best is not None
    assert answer.claimed_bound == pytest.approx(best.objective * 0.99)


def test_rows_are_drawn_in_where_cutting_does_not_help() -> None:
    rng = np.random.default_rng(1)
    problem = Problem.from_arrays(rng.random((5, 4)), rng.random((5, 4)), budgets={"cost": 2.0})
    problem = problem.replace(couplings=(Cardinality("at_least", tuple(range(20)), 1),))

    model = build(problem)
    vectors = [x for x in map(model.vector_of, allocations(problem)) if x is not None]
    uses = np.array([model.blocks[0].times(x)[0] for x in vectors])
    worth = np.array([float(model.objective @ x) for x in vectors])

    def blind(model: Milp, limits: Limits, hint: Any, seen: Seen) -> Found:
        """Sees no cut, and the row only roughly."""
        i = int(np.argmin(np.where(uses <= model.blocks[0].hi[0] + 0.6, worth, np.inf)))
        return Found("optimal", vectors[i], float(worth[i]) + model.constant)

    answer = solve_milp(problem, Limits(), blind)
    assert answer.choice is not None
    assert problem.evaluate(answer.choice).feasible
    assert answer.claim is None


def test_groups_without_a_choice_and_hopeless_rows_need_no_engine() -> None:
    def never(model: Milp, limits: Limits, hint: Any, seen: Seen) -> Found:
        raise AssertionError("not to be asked")

    plain = Problem.from_arrays(np.zeros((2, 2)), np.array([[1, 2], [3, 4]]))
    assert solve_milp(plain.with_budget("cost", max=3), Limits(), never).claim == "infeasible"
    forbidden = plain.replace(allowed=np.array([True, True, False, False]))
    assert solve_milp(forbidden, Limits(), never).claim == "infeasible"
    least_max = forbidden.replace(loss=Loss({"score": 1.0}, "max"))
    assert solve_milp(least_max, Limits(), never).claim == "infeasible"
