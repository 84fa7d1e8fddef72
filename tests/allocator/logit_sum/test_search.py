import itertools

import numpy as np
import pytest

import allocator
from allocator.errors import UsageError
from allocator.logit_sum import LogitSum, Positions, improve
from allocator.statement import Budget, Implies
from solvers.annealing import Annealing
from solvers.evolutionary import Evolutionary


def best(case):
    every = itertools.product(*(range(n) for n in case.problem.sizes.tolist()))
    return min(case.truth(c) for c in every if case.problem.evaluate(np.array(c)).feasible)


@pytest.mark.parametrize("seed", range(8))
def test_the_best_of_all_is_found_on_small_problems(case_of, seed):
    case = case_of(seed, groups=5)
    found = improve(case.problem, case.model, [np.full(5, 2)], kicks=20)
    assert case.problem.evaluate(found.choice).feasible
    assert found.choice.dtype == np.int32
    assert found.value == pytest.approx(case.truth(found.choice), rel=1e-9)
    assert found.value == pytest.approx(best(case), rel=1e-9)


def test_it_is_never_worse_than_its_starts_and_often_better(case_of):
    better = 0
    for seed in range(12):
        case = case_of(seed, groups=8, choices=4)
        rng = np.random.default_rng(seed)
        starts = [c for c in rng.integers(0, 4, (60, 8)) if case.problem.evaluate(c).feasible][:3]
        additive = allocator.solve(case.problem, solver="exact").allocation.choice
        found = improve(case.problem, case.model, [additive, *starts])
        assert found.starts == pytest.approx([case.model.predict(s) for s in (additive, *starts)])
        assert found.value <= min(found.starts)
        assert case.problem.evaluate(found.choice).feasible
        again = improve(case.problem, case.model, [additive, *starts])
        assert np.array_equal(again.choice, found.choice)
        better += found.value < 0.99 * min(found.starts)
    assert better >= 4


def test_no_change_of_one_or_two_groups_betters_what_a_descent_ends_at(case_of):
    case = case_of(20, groups=6)
    found = improve(case.problem, case.model, [np.full(6, 2)], kicks=0, pairs=512)
    for g, h in itertools.combinations(range(6), 2):
        for k, j in itertools.product(range(3), repeat=2):
            after = found.choice.copy()
            after[g], after[h] = k, j
            if case.problem.evaluate(after).feasible:
                assert case.truth(after) >= found.value * (1 - 1e-9)


def test_couplings_pins_and_several_rows_hold(case_of):
    case = case_of(26, groups=5)
    problem = case.problem
    rows = problem.indptr
    cost = np.arange(problem.choice_count) % 3
    problem = problem.replace(
        costs={**problem.costs, "t": cost.astype(np.int64)},
        resources={},
        budgets=(*problem.budgets, Budget(resource="t", max=6, min=3)),
        couplings=(Implies(int(rows[0]) + 2, int(rows[1]) + 2),),
        pins={3: int(rows[3]) + 1},
    )
    case.problem = problem
    start = allocator.solve(problem, solver="scipy_milp").allocation.choice
    found = improve(problem, LogitSum(problem, case.model.deltas, case.model.positions), [start], kicks=30, seed=1)
    assert problem.evaluate(found.choice).feasible
    assert found.value == pytest.approx(best(case), rel=1e-9)


def test_screening_at_some_positions_does_not_change_what_a_value_means(case_of, monkeypatch):
    case = case_of(22, groups=6, positions=200)
    whole = improve(case.problem, case.model, [np.full(6, 2)])
    monkeypatch.setattr("allocator.logit_sum.search.SCREENED", 18 * 5 * 40)
    monkeypatch.setattr("allocator.logit_sum.search.CURVED", 18 * 18 * 5 * 20)
    monkeypatch.setattr("allocator.logit_sum.search.WIDE", 6)
    few = improve(case.problem, case.model, [np.full(6, 2)])
    assert few.value == pytest.approx(case.truth(few.choice), rel=1e-9)
    assert few.value <= 1.05 * whole.value


def test_the_budget_of_predictions_holds(case_of):
    case = case_of(23, groups=8, choices=4)
    start = np.full(8, 3)
    found = improve(case.problem, case.model, [start], kicks=50, predictions=40)
    assert found.predictions < 40 + 16
    assert found.value <= case.model.predict(start)


def test_what_cannot_be_searched_is_refused(case_of):
    case = case_of(24)
    with pytest.raises(UsageError, match="loaded for 12 choices"):
        improve(case_of(0, groups=3).problem, case.model)
    impossible = case.problem.with_budget("b", max=0)
    with pytest.raises(UsageError, match="no start is feasible or could be repaired"):
        improve(impossible, case.model, [np.zeros(4, int)])
    repaired = improve(case.problem, case.model, [np.zeros(4, int)])
    assert repaired.starts == (None,)


@pytest.mark.parametrize(
    "solver", [lambda f: Annealing(fitness=f, steps=150, restarts=3), lambda f: Evolutionary(
        fitness=f, generations=10, offspring=12, survivors="4,2", samples="0.5,1", starts=4)],
)  # fmt: skip
def test_it_is_a_fitness_of_the_solvers(case_of, solver):
    case = case_of(10, groups=6)
    solution = allocator.solve(case.problem, solver=solver(case.model))
    additive = allocator.solve(case.problem, solver="exact")
    found, first = (case.truth(s.allocation.choice) for s in (solution, additive))
    assert found < 0.99 * first
    assert "LogitSum" in str(solution.solver)


def test_a_tail_takes_part(case_of, folding):
    case = case_of(25, groups=5, positions=60, classes=40)
    found, kept = folding[0](case.logits, case.delta, 8, 8, np.random.default_rng(0))
    assert isinstance(found, Positions)
    result = improve(case.problem, LogitSum(case.problem, kept, found), kicks=10)
    assert case.truth(result.choice) <= 1.1 * best(case)


def test_of_choices_that_are_forbidden_no_deltas_are_needed(case_of):
    case = case_of(3, groups=5)
    allowed = np.ones(15, bool)
    allowed[[1, 4, 9]] = False
    kept, place = np.flatnonzero(allowed), np.full(15, -1)
    place[kept] = np.arange(len(kept))
    problem = case.problem.replace(allowed=allowed)
    some = LogitSum(problem, case.model.deltas[kept], case.model.positions, place)
    found, wanted = (improve(problem, one, [np.full(5, 2)], kicks=20) for one in (some, case.model))
    assert np.array_equal(found.choice, wanted.choice)
    assert found.value == wanted.value
    with pytest.raises(UsageError, match="3 choices that may be taken have no logit deltas"):
        improve(case.problem, some, [np.full(5, 2)])
