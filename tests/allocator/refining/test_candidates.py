"""Candidates on random problems with deltas: all distinct and feasible, the searches never worse than their starts."""

from itertools import product

import numpy as np
import pytest

from allocator.hygiene import scaled
from allocator.logit_sum import LogitSum, Positions
from allocator.pipeline import solve
from allocator.problem import Problem
from allocator.refining import candidates
from allocator.refining.candidates import Candidate, by_measurement, by_profile, distinct, uniform
from allocator.statement import Basis, Budget, Cardinality, Implies, Resource, SameChoice


def silent(stage, done, total):
    pass


def make(seed, groups=5, choices=3, **parts):
    """A problem whose loss is the second order of what its logit deltas do, and the predictor."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(4), 12)
    size = np.linspace(0, 0.8, choices)[None, :, None, None]
    delta = size * (rng.normal(size=(1, 1, 12, 4)) + rng.normal(size=(groups, choices, 12, 4)))
    delta = (delta - (p * delta).sum(-1, keepdims=True)).reshape(-1, 12, 4)
    wide = (np.sqrt(p) * delta).reshape(len(delta), -1)
    cost = np.arange(choices, 0, -1) * rng.integers(1, 4, (groups, 1))
    positions = Positions(p, None, 0, np.ones(12, np.int64))
    stated = {"budgets": (Budget("b", max=int(0.6 * cost[:, 0].sum())),), **parts}
    problem = Problem.from_arrays(
        {"kl": positions.divergence(delta).mean(-1).reshape(groups, choices)},
        {"b": cost},
        choice_names=["keep", *(f"c{k}" for k in range(1, choices))],
        interactions=(Basis("kl", np.full(wide.shape[1], 1 / 12), wide),),
    ).replace(**stated)
    return problem, LogitSum(problem, delta, positions)


def every(problem):
    """(objective, choice) of every feasible allocation, the best first."""
    found = []
    for choice in product(*map(range, problem.sizes.tolist())):
        outcome = problem.evaluate(choice)
        if outcome.feasible:
            found.append((outcome.objective, choice))
    return sorted(found)


NAMED = ["profile 1/4", "profile 1/2", "profile 3/4", "profile"]


@pytest.mark.parametrize("seed", range(8))
def test_of_the_profile_the_best_with_every_share_of_its_interactions(seed):
    problem, _ = make(seed)
    found = by_profile(problem, 0)
    assert [one.name for one in found] == ["profile, additive", *NAMED]
    for share, one in zip((0.0, 0.25, 0.5, 0.75, 1.0), found, strict=True):
        less = scaled(problem, share)
        assert less.evaluate(one.choice).objective == pytest.approx(every(less)[0][0])
    alone = problem.replace(interactions=())
    assert alone.evaluate(found[0].choice).objective == pytest.approx(every(alone)[0][0])
    (only,) = by_profile(alone, 0)
    assert only.name == "profile"


@pytest.mark.parametrize("seed", range(8))
def test_the_search_by_logit_sums_is_no_worse_than_any_other(seed):
    problem, predictor = make(seed)
    first = [*by_profile(problem, 0), *uniform(problem)]
    found = list(by_measurement(problem, predictor, first, 0, silent))
    assert [one.name for one in found] == [
        "measured, additive",
        *(name.replace("profile", "measured") for name in NAMED),
        "logit sum",
    ]
    values = [predictor.predict(one.choice) for one in found]
    assert values[-1] <= min([*values, *(predictor.predict(one.choice) for one in first)])
    best = min(predictor.predict(choice) for _, choice in every(problem))
    assert values[-1] == pytest.approx(best, rel=0.05)
    assert all(problem.evaluate(one.choice).feasible for one in found)
    again = list(by_measurement(problem, predictor, first, 0, silent))
    assert all(np.array_equal(a.choice, b.choice) for a, b in zip(found, again, strict=True))


ACTIONS = ({"kind": "keep"}, {"kind": "quantize", "bits": 4}, {"kind": "low_rank", "rank": 2}, {"kind": "prune"})


@pytest.mark.parametrize("seed", range(4))
def test_each_kind_of_compression_alone_is_a_candidate_and_no_better_than_all_of_them(seed):
    problem, predictor = make(seed, choices=4)
    most = int(0.8 * problem.cost("b")[::4].sum())
    problem = problem.replace(
        action_code=np.tile(np.arange(4, dtype=np.int32), 5), action_table=ACTIONS, budgets=(Budget("b", max=most),)
    )
    predictor = LogitSum(problem, predictor.deltas, predictor.positions)
    found = {one.name: one.choice for one in by_measurement(problem, predictor, by_profile(problem, 0), 0, silent)}
    alone = {name: choice for name, choice in found.items() if name.endswith("alone")}
    assert list(alone) == ["bits alone", "ranks alone", "sparsity alone"]
    for place, choice in enumerate(alone.values(), 1):
        assert set(choice.tolist()) <= {0, place}  # keep is the least in every group
        assert problem.evaluate(choice).feasible
        best = min(predictor.predict(one) for _, one in every(problem) if set(one) <= {0, place})
        assert predictor.predict(choice) == pytest.approx(best, rel=0.05)
    assert list(found)[-1] == "logit sum"
    assert predictor.predict(found["logit sum"]) <= min(predictor.predict(choice) for choice in found.values())


COUPLED = {
    "same": {"couplings": (SameChoice((0, 3)), SameChoice((3, 4)))},
    "pin": {"pins": {2: 7}},
    "at most": {"couplings": (Cardinality("at_most", (0, 3, 6), 1),)},
    "implies": {"couplings": (Implies(2, 4),)},
    "largest": {"resources": {"b": Resource(aggregate="max")}, "budgets": (Budget("b", min=3, max=9),)},
    "two budgets": {"budgets": (Budget("b", max=18), Budget("b", min=9))},
}


@pytest.mark.parametrize("parts", COUPLED.values(), ids=COUPLED)
def test_whatever_the_problem_demands_holds_for_every_candidate(parts):
    problem, predictor = make(3, **parts)
    first = [*by_profile(problem, 0), *uniform(problem)]
    found = [*first, *by_measurement(problem, predictor, first, 0, silent)]
    assert len(found) >= 7
    for one in found:
        assert problem.evaluate(one.choice).feasible, one.name
    profiled = {one.name: one.choice for one in first}
    assert problem.evaluate(profiled["profile"]).objective == pytest.approx(every(problem)[0][0], rel=0.05)


@pytest.mark.parametrize("parts", [{}, *COUPLED.values()], ids=["plain", *COUPLED])
def test_uniform_is_every_feasible_one(parts):
    problem, _ = make(3, **parts)
    labels = problem.label_codes
    wanted = set()
    for _, choice in every(problem):
        rows = problem.indptr[:-1] + np.array(choice)
        open_ = [g for g in range(problem.group_count) if g not in problem.pins]
        if len({int(labels.code[rows[g]]) for g in open_}) == 1:
            wanted.add(choice)
    found = uniform(problem)
    assert {tuple(one.choice.tolist()) for one in found} == wanted
    best = solve(problem, "uniform")
    if found:
        assert best.objective == min(problem.evaluate(one.choice).objective for one in found)
        assert {one.name for one in found} <= {"uniform keep", "uniform c1", "uniform c2"}
    else:
        assert best.allocation is None


def test_of_several_choices_of_a_label_the_least_loss_is_taken():
    scores = {"kl": [[3.0, 1.0, 0.0], [1.0, 2.0, 0.0]]}
    rows = {"b": np.ones((2, 3), int)}
    plain = Problem.from_arrays(scores, rows, budgets={"b": 2})
    made = plain.replace(labels=plain.label_codes.__class__(np.array([0, 0, 1, 0, 0, 1], np.int32), ("x", "y")))
    assert [(one.name, one.choice.tolist()) for one in uniform(made)] == [
        ("uniform x", [1, 0]),
        ("uniform y", [2, 2]),
    ]


def test_equal_allocations_are_one_under_all_their_names():
    found = distinct(
        [Candidate("a", np.array([0, 1])), Candidate("b", np.array([1, 1])), Candidate("c", np.array([0, 1]))]
    )
    assert [one.name for one in found] == ["a; c", "b"]
    assert [one.names for one in found] == [("a", "c"), ("b",)]


def test_equal_seeds_give_equal_candidates():
    problem, _ = make(2, groups=12, choices=5)
    one, other = (by_profile(problem, 7) for _ in range(2))
    assert all(np.array_equal(a.choice, b.choice) for a, b in zip(one, other, strict=True))


def test_interactions_are_searched_by_the_engine_and_with_couplings_by_annealing(monkeypatch):
    asked = []

    def noted(problem, solver, **options):
        asked.append((solver, bool(problem.interactions)))
        return solve(problem, solver, **options)

    monkeypatch.setattr(candidates, "solve", noted)
    by_profile(make(3)[0], 0)
    assert asked == [("auto", False)] + [("quadratic", True)] * 4
    asked.clear()
    by_profile(make(3, **COUPLED["at most"])[0], 0)
    assert asked == [("auto", False)] + [("annealing", True)] * 2


def test_a_budget_of_floats_that_is_met_to_the_last_bit():
    """0.1 added up three times is above 0.3 in one order and not in another; the one way to spend it all is found."""
    rng = np.random.default_rng(0)
    scores = np.tile([0.0, 1.0, 3.0], (3, 1))
    problem = Problem.from_arrays(
        {"kl": scores}, {"b": np.tile([0.3, 0.1, 0.05], (3, 1))}, budgets={"b": 0.1 + 0.1 + 0.1},
        interactions=(Basis("kl", np.ones(2), 0.01 * rng.normal(size=(9, 2))),),
    )  # fmt: skip
    assert {tuple(one.choice.tolist()) for one in by_profile(problem, 0)} == {every(problem)[0][1]}
