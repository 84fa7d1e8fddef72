"""Instances: the same in every process, defined as their docstrings say, tight, with or without a divisor."""

import hashlib

import numpy as np
import pytest

from allocator.bounds import find_prices
from allocator.formats.digest import content_sha256
from allocator.formats.problems import load_problem
from allocator.linear import linearise
from allocator.protocols import Limits
from allocator.reduce import reduce
from benchmarks.solvers import shapes
from benchmarks.solvers.classical import CLASSES, classical
from benchmarks.solvers.hard import hard_float
from benchmarks.solvers.instances import all_cases, find, pick, write
from benchmarks.solvers.realistic import network
from solvers.scipy_milp import ScipyMilp

SMALL = [c for c in all_cases() if c.groups <= 1_000]
ALWAYS_TIGHT = [c for c in SMALL if not c.name.startswith("UC-")]

# of the columns and the budget of seed 5, 20 groups of 4, numbers to 50: the draws may never change
CLASSICAL = {
    "UC": "02c05f4e8ce63b8e",
    "UCt": "5855e229e0759e81",
    "WC": "345e05f2410c05cc",
    "SC": "a3fb312c30aec34a",
    "SS": "4366bd514f8314a0",
    "ZZ": "bd631ec9ae98d5f4",
}


def columns(problem):
    return {**problem.scores, **problem.costs}


def digest(problem):
    found = hashlib.sha256(problem.indptr.tobytes())
    for name, column in columns(problem).items():
        found.update(name.encode() + column.tobytes())
    for part in problem.interactions:
        found.update((part.value if hasattr(part, "value") else part.vectors).tobytes())
    found.update(repr([(b.resource, b.max) for b in problem.budgets]).encode())
    return found.hexdigest()[:16]


def table(problem, name):
    return columns(problem)[name].reshape(problem.group_count, -1)


def taken_totals(problem, row):
    """Totals where each group takes this row."""
    return problem.evaluate(row - problem.indptr[:-1]).totals


def extreme(problem, column):
    """Row of the least entry of each group."""
    order = np.lexsort((column, problem.group_of))
    return order[problem.indptr[:-1]]


@pytest.mark.parametrize("kind", CLASSES)
def test_classical_draws_never_change(kind):
    assert digest(classical(5, kind, 20, 4, 50)) == CLASSICAL[kind]


@pytest.mark.parametrize("case", SMALL, ids=lambda c: c.key)
def test_built_twice_is_equal(case):
    assert digest(case.build()) == digest(find(case.key).build())


@pytest.mark.parametrize("kind", ["WC", "ZZ"])
def test_seeds_sizes_and_ranges_differ(kind):
    made = [classical(s, kind, n, 4, r) for s, n, r in ((1, 20, 50), (2, 20, 50), (1, 21, 50), (1, 20, 51))]
    assert len({digest(p) for p in made}) == 4
    assert len({columns(p)["cost"][:40].tobytes() for p in made}) == 4


@pytest.mark.parametrize("case", SMALL, ids=lambda c: c.key)
def test_groups_are_as_announced_and_something_is_feasible(case):
    problem = case.build()
    assert problem.group_count == case.groups
    totals = taken_totals(problem, extreme(problem, next(iter(problem.costs.values()))))
    assert totals[problem.budgets[0].resource] < problem.budgets[0].max


@pytest.mark.parametrize("case", ALWAYS_TIGHT, ids=lambda c: c.key)
def test_least_loss_breaks_every_budget(case):
    problem = case.build()
    totals = taken_totals(problem, extreme(problem, problem.unary))
    assert all(totals[b.resource] > b.max for b in problem.budgets)


@pytest.mark.parametrize("name", ["resnet50-2", "resnet50-3", "llama8b-2", "llama8b-3", "mixtral-3"])
def test_each_of_several_rows_has_a_price(name):
    problem = find(name).build()
    prices = find_prices(linearise(reduce(problem).problem)).values
    spans = np.array([np.ptp(table(problem, r), axis=1).sum() for r in problem.costs])
    shares = np.array(prices) * spans
    assert shares.min() > 0.01 * shares.sum()


def test_classes_are_as_defined():
    drawn = {kind: classical(1, kind, 50, 10, 1000) for kind in CLASSES}
    cost = {kind: table(p, "cost") for kind, p in drawn.items()}
    profit = {kind: -table(p, "loss_of_profit") for kind, p in drawn.items()}
    for kind in ("UC", "WC", "SS", "ZZ"):
        assert 1 <= cost[kind].min() < 50
        assert 950 < cost[kind].max() <= 1000
        assert profit[kind].min() >= 1
    for kind, p in drawn.items():
        low, high = cost[kind].min(axis=1).sum(), cost[kind].max(axis=1).sum()
        assert p.budgets[0].max == ((3 * low + high) // 4 if kind == "UCt" else (low + high) // 2)
    assert abs(np.corrcoef(cost["UC"].ravel(), profit["UC"].ravel())[0, 1]) < 0.2
    assert set(np.abs(profit["WC"] - cost["WC"]).ravel()) == set(range(11))
    assert (profit["SS"] == cost["SS"]).all()
    assert (np.diff(cost["ZZ"], axis=1) >= 0).all()
    assert (np.diff(profit["ZZ"], axis=1) >= 0).all()
    steps = np.diff(cost["SC"], axis=1, prepend=0)
    assert (np.diff(profit["SC"], axis=1, prepend=0) == steps + 10).all()
    assert (np.diff(steps, axis=1) >= 0).all()
    with pytest.raises(ValueError, match="no class 'XX'"):
        classical(1, "XX", 2, 2, 10)


@pytest.mark.parametrize("case", [c for c in SMALL if "bytes" in c.build().costs], ids=lambda c: c.key)
def test_common_divisor_is_as_announced(case):
    problem = case.build()
    size = table(problem, "bytes")
    divisor = np.gcd.reduce((size - size[:, :1]).ravel())
    assert (divisor == 1) == case.name.endswith("-nodivisor")


@pytest.mark.parametrize("name", ["resnet50", "llama8b"])
def test_noise_makes_some_losses_negative(name):
    assert (find(name).build().unary > 0).all()
    assert 0.01 < (find(f"{name}-noise").build().unary < 0).mean() < 0.3


def test_shapes_of_the_networks():
    made = {"resnet50": 25.503e6, "llama8b": 8.030e9, "mixtral": 46.701e9}
    for name, weights in made.items():
        assert sum(t.weights for t in getattr(shapes, name)()) == pytest.approx(weights, rel=1e-3)
    assert [len(f()) for f in (shapes.resnet50, shapes.llama8b, shapes.mixtral, shapes.many_experts)] == [
        54, 226, 898, 61_069,
    ]  # fmt: skip
    problem = network(1, "resnet50")
    assert table(problem, "bytes")[0].tolist() == [9408 * b // 8 for b in (2, 3, 4, 5, 6, 8, 16)]
    assert problem.group_names[0] == "conv1"


def test_unary_carries_all_of_a_choice_by_itself():
    """½ Σ e v² of a choice is part of its score, so the least loss of a group alone cannot be below what is left."""
    problem = find("resnet50-basis5").build()
    (basis,) = problem.interactions
    own = 0.5 * (basis.vectors**2) @ basis.eigenvalues
    plain = network(3, "resnet50", bits=(2, 3, 4, 6, 8)).unary
    np.testing.assert_allclose(problem.unary - own, plain, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("name", ["resnet50-basis5", "resnet50-pairs"])
def test_a_solver_takes_the_interactions(name):
    problem = find(name).build()
    assert problem.features <= ScipyMilp.features
    answer = ScipyMilp().solve(problem, Limits(time=0.05))
    assert answer.choice is None or problem.evaluate(answer.choice).feasible


def test_hard_problems():
    cases = [c for c in all_cases() if c.name == "hard-float"]
    assert len(cases) >= 20
    for case in cases:
        problem = case.build()
        assert 300 <= problem.group_count <= 400
        assert set(problem.sizes) == set(range(2, 9))
        assert not problem.exact("size")
        falls = [np.corrcoef(c, v)[0, 1] for c, v in _groups(problem) if len(c) > 4]
        assert np.mean(falls) < -0.5
    assert hard_float(1, 7).group_count == 7


def _groups(problem):
    for first, last in zip(problem.indptr[:-1], problem.indptr[1:], strict=True):
        yield problem.costs["size"][first:last], problem.unary[first:last]


def test_names_are_unique_and_can_be_picked():
    keys = [c.key for c in all_cases()]
    assert len(set(keys)) == len(keys)
    assert [c.key for c in pick("resnet50,hard-float@2*")][:2] == ["resnet50@3", "hard-float@2"]
    assert {c.name for c in pick("SC-k100-*")} == {
        f"SC-k100-n{n}-R{r}" for n in (100, 1000, 10000) for r in (1000, 10000)
    }
    assert all(c.quick for c in pick(quick=True))
    assert max(c.groups for c in pick(quick=True)) <= 1_000
    with pytest.raises(ValueError, match="no case matches 'nothing'"):
        pick("nothing")
    with pytest.raises(ValueError, match="no case 'nothing'"):
        find("nothing@1")
    assert find("hard-float@77").build().group_count >= 300


def test_cases_are_written_as_problem_files(tmp_path):
    cases = pick("resnet50-pairs,SC-k10-n1000-R1000@1,SC-k10-n10000-R1000@1")
    for case, path in zip(cases, write(cases, tmp_path / "new"), strict=True):
        assert path.name == f"{case.key}.json"
        assert path.with_suffix(".npz").exists() == (case.groups > 2_000)
        assert content_sha256(load_problem(path)) == content_sha256(case.build())
