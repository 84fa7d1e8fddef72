"""The threshold check: proves the least maximum with its tie, and never anything worse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import allocator
from allocator.bounds import find_prices
from allocator.certificate import Threshold
from allocator.checks.threshold import ThresholdCheck, applies, check_threshold
from allocator.features import ALL
from allocator.linear import linearise
from allocator.problem import Problem
from allocator.protocols import Exactness, Limits
from allocator.solution import Answer
from allocator.testing.claims import false_claims, tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import DETAILS, LINEAR, random_rows
from allocator.testing.reference import Places, Reference

PARTS = (LINEAR | DETAILS | {"lower_budgets", "loss_budgets"}) - {"resource_objective", "negative_weights"}
WILD = [math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 0.0, 1.0, -1.0, 1e-9]


def cases(count: int) -> Any:
    for seed in range(count):
        rows = random_rows(seed, PARTS, most_allocations=80)
        rows["loss"] = {"terms": rows["loss"]["terms"], "aggregate": "max"}
        rows["minimize"] = {"loss": Random(seed).choice([1.0, 1.0, 0.25, 3.0])}
        reference = Reference(rows)
        if reference.best is not None:
            yield seed, Problem.from_rows(rows), reference


def attempt(
    problem: Problem, reference: Reference, places: Places, values: tuple[float, ...], below: tuple[float, ...]
) -> ThresholdCheck:
    weight = reference.minimize["loss"]
    allowed = 1e-12 * reference.scale / max(weight, 1.0)
    return check_threshold(problem, values, below, reference.loss(places), reference.tie(places), allowed)


def prices_of(problem: Problem, level: float) -> tuple[float, ...]:
    return find_prices(linearise(problem, cap=level)).values


def test_never_proves_what_is_not_the_best() -> None:
    rng = Random(0)
    tried = 0
    for seed, problem, reference in cases(times(400)):
        best, slip = reference.best, tolerance(reference)
        worse = [
            p
            for p in reference.feasible
            if reference.objective(p) > best.objective + slip
            or (reference.objective(p) <= best.objective and reference.tie(p) > best.tie + slip)
        ]
        for places in rng.sample(worse, min(3, len(worse))):
            level = reference.loss(places)
            for values in (prices_of(problem, level), tuple(rng.choice(WILD) for _ in problem.budgets)):
                below = tuple(rng.choice(WILD) for _ in range(rng.randint(0, 3)))
                check = attempt(problem, reference, places, values, below)
                assert not check.proved, (seed, places, values, below)
                if check.least:
                    assert reference.objective(places) <= best.objective + slip, (seed, places)
                tried += 1
    assert tried > 500


def test_proves_the_best_under_one_budget() -> None:
    proved = total = 0
    for _, problem, reference in cases(times(400)):
        if len(problem.budgets) > 1:
            continue
        total += 1
        level = reference.loss(reference.best.places)
        proved += attempt(problem, reference, reference.best.places, prices_of(problem, level), ()).proved
    assert proved >= 0.98 * total > 50


def test_prices_below_the_level_exclude_two_rows_together() -> None:
    """At a level below 2 group g uses a or b up; each row alone has room for that."""
    groups = [[(1.0, 6, 0), (1.5, 0, 6), (2.0, 0, 0)], [(1.0, 0, 6), (1.5, 6, 0), (2.0, 0, 0)]]
    scores = np.array([[s for s, _, _ in g] for g in groups])
    a, b = (np.array([[c[i] for c in g] for g in groups]) for i in (1, 2))
    problem = Problem.from_arrays(scores, {"a": a, "b": b}, budgets={"a": 6, "b": 5})
    problem = problem.with_loss("score", aggregate="max")
    assert applies(problem)
    assert not check_threshold(problem, (0.0, 0.0), (), 2.0, 3.0, 1e-12).least
    check = check_threshold(problem, (0.0, 0.1), (1.0, 1.0), 2.0, 3.0, 1e-12)
    assert check.least
    assert check.proved
    assert not check_threshold(problem, (0.0, 0.1), (-1.0, -1.0), 2.0, 3.0, 1e-12).least
    assert not check_threshold(problem, (0.0, 0.1), (1.0, 1.0), 2.5, 3.0, 1e-12).proved


@pytest.mark.parametrize("level", [math.nan, math.inf, -math.inf])
def test_a_level_that_is_no_number_proves_nothing(level: float) -> None:
    problem = Problem.from_arrays([[1.0, 2.0]], [[1, 0]], budgets={"cost": 1}).with_loss("score", aggregate="max")
    assert not check_threshold(problem, (0.0,), (), level, 1.0, 1e-12).proved


def large() -> Problem:
    rng = np.random.default_rng(0)
    costs = np.cumsum(rng.integers(1, 50, (300, 5)), axis=1)
    scores = np.sort(rng.random((300, 5)), axis=1)[:, ::-1] * rng.random((300, 1))
    problem = Problem.from_arrays(scores, costs, budgets={"cost": int(costs[:, 2].sum())})
    return problem.with_loss("score", aggregate="max")


def best_of(problem: Problem) -> np.ndarray[Any, Any]:
    """Least level by bisection; then the least Σ unary by a table over the budget."""
    unary, cost = problem.unary.reshape(-1, 5), problem.costs["cost"].reshape(-1, 5)
    limit = int(problem.budgets[0].max or 0)
    levels = np.unique(unary)
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        least = np.where(unary <= levels[middle], cost, 10**9).min(axis=1).sum()
        low, high = (low, middle) if least <= limit else (middle + 1, high)
    table = np.full(limit + 1, np.inf)
    table[0] = 0.0
    came = np.zeros((len(unary), limit + 1), np.int8)
    for g in range(len(unary)):
        new = np.full(limit + 1, np.inf)
        for k in range(5):
            c = int(cost[g, k])
            if unary[g, k] <= levels[low] and c <= limit:
                through = table[: limit + 1 - c] + unary[g, k]
                better = through < new[c:]
                new[c:][better] = through[better]
                came[g, c:][better] = k
        table = new
    use = int(table.argmin())
    choice = np.zeros(len(unary), np.int64)
    for g in range(len(unary) - 1, -1, -1):
        choice[g] = came[g, use]
        use -= int(cost[g, choice[g]])
    return choice


@dataclass(frozen=True, kw_only=True)
class Told:
    """Returns what it was told to."""

    answer: Answer

    name: ClassVar[str] = "told"
    features: ClassVar[frozenset[str]] = ALL
    exactness: ClassVar[Exactness] = Exactness.EXACT
    stats: ClassVar[tuple[str, ...]] = ()
    isolate: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()

    def solve(self, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
        return self.answer


def solved(problem: Problem, choice: Any, certificate: Threshold | None) -> allocator.Solution:
    answer = Answer(choice=choice, claim="optimal", certificate=certificate)
    return allocator.solve(problem, solver=Told(answer=answer))


def test_a_large_problem_is_proved_through_solve() -> None:
    problem = large()
    choice = best_of(problem)
    level = problem.evaluate(choice).loss
    prices = prices_of(problem, level)
    for certificate in (Threshold(prices), Threshold(prices, (2.0,)), None):
        solution = solved(problem, choice, certificate)
        assert (solution.status, solution.proven_bound) == ("optimal", level)
        assert solution.certificate == {"kind": "threshold", "checked": True}


def test_a_large_problem_with_a_worse_tie_or_level_is_not_proved() -> None:
    problem = large()
    best = best_of(problem)
    level, unary = problem.evaluate(best).loss, problem.unary.reshape(-1, 5)
    dearer = np.maximum(best - 1, 0)
    groups = np.arange(len(best))
    loses = (unary[groups, dearer] > unary[groups, best]) & (unary[groups, dearer] <= level)
    tied, higher = best.copy(), best.copy()
    g = np.flatnonzero(loses)[0]
    tied[g] = dearer[g]
    g = np.flatnonzero(unary[groups, dearer] > level)[0]
    higher[g] = dearer[g]
    for choice in (tied, higher):
        for certificate in (Threshold(prices_of(problem, problem.evaluate(choice).loss)), None):
            solution = solved(problem, choice, certificate)
            assert solution.status == "feasible"
            assert solution.claim == "optimal"
    assert solved(problem, tied, None).proven_bound == level  # the level is the least all the same
    assert solved(problem, higher, None).proven_bound is None


@pytest.mark.parametrize(
    "certificate", [Threshold(()), Threshold((math.nan,), (math.inf,)), Threshold((1e308,), (-1.0,))]
)
def test_senseless_prices_do_no_harm(certificate: Threshold) -> None:
    for _, problem, reference in cases(40):
        for places in reference.feasible[:3]:
            assert not false_claims(reference, solved(problem, np.array(places), certificate))
