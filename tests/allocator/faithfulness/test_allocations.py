"""Which allocations are measured."""

import numpy as np
import pytest

from allocator.faithfulness.allocations import (
    BUDGETS,
    budgets_between,
    main_resource,
    optimal_wholes,
    random_wholes,
    regions,
    single_rows,
    uniform_wholes,
)
from allocator.faithfulness.predicting import predictors
from allocator.problem import Problem, Resource
from allocator.statement import Budget
from profilers._parts import Parts


def problem_of(labels, groups=3, **parts):
    rng = np.random.default_rng(0)
    score = rng.random((groups, len(labels)))
    cost = np.tile(np.arange(1, len(labels) + 1) * 10, (groups, 1))
    return Problem.from_arrays({"kl": score}, {"weight_bytes": cost}, choice_names=labels, **parts)


def taken(problem, wholes):
    """The labels that any of the allocations takes."""
    codes = problem.label_codes
    return {codes.table[codes.code[row]] for whole in wholes for row in whole.rows.tolist()}


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["int2", "int3", "int4", "int5", "int6", "int7", "int8"], [{2, 3, 4}, {3, 4, 5, 6}, {5, 6, 7, 8}]),
        (["keep", "int8", "int4", "int3", "int2", "rank25%"], [{2, 3, 4}, {3, 4}, {4, 8}]),
        (["int4_g64", "int3_g64", "int8_g64", "int4"], [{3, 4}, {3, 4}, {4, 8}]),
    ],
)
def test_regions_of_widths(labels, wanted):
    problem = problem_of(labels)
    found = regions(problem, "weight_bytes")
    assert [region.name for region in found] == ["all", "low", "middle", "high"]
    assert found[0].rows.all()
    for region, widths in zip(found[1:], wanted, strict=True):
        names = {problem.label_codes.table[c] for c in problem.label_codes.code[region.rows].tolist()}
        assert {int(name[3]) for name in names} == widths
        assert set(region.about.split(", ")) == names


def test_regions_of_other_labels_are_thirds_by_cost():
    problem = problem_of(list("abcdef"))
    names = [
        {problem.label_codes.table[c] for c in problem.label_codes.code[region.rows].tolist()}
        for region in regions(problem, "weight_bytes")[1:]
    ]
    assert names == [{"a", "b"}, {"c", "d"}, {"e", "f"}]


def test_random_allocations_stay_in_their_region_and_respect_pins():
    problem = problem_of(["int2", "int4", "int6", "int8"], groups=5, pins={1: 4 + 3})
    areas = regions(problem, "weight_bytes")
    found = random_wholes(problem, areas, 42, np.random.default_rng(0))
    assert [sum(w.kind == area.name for w in found) for area in areas] == [10, 11, 10, 11]
    for area in areas:
        own = [w for w in found if w.kind == area.name]
        rows = np.array([w.rows for w in own])
        assert (problem.group_of[rows] == np.arange(5)).all()
        assert (rows[:, 1] == 7).all()  # pinned outside the low region: what may be taken is taken
        assert area.rows[rows].all()
    low = taken(problem, [w for w in found if w.kind == "low"])
    assert low == {"int2", "int4", "int8"}


def test_uniform_allocations_take_one_label_everywhere():
    problem = problem_of(["int2", "int4", "keep"], allowed=np.array([1, 1, 1, 0, 1, 1, 1, 1, 1], bool))
    assert [w.about for w in uniform_wholes(problem)] == ["int4", "keep"]


def test_optimal_allocations_are_the_optima(tmp_path):
    problem = problem_of(["int2", "int4", "int8"], groups=4)
    named = predictors(problem)
    found = optimal_wholes(problem, named, "weight_bytes", Parts(tmp_path), lambda *_: None, 0)
    budgets = budgets_between(problem, "weight_bytes")
    assert len(found) == len(budgets) == BUDGETS
    every = np.stack(np.meshgrid(*[np.arange(3)] * 4), -1).reshape(-1, 4)
    for whole, budget in zip(found, budgets, strict=True):
        best = min(o.loss for o in map(problem.evaluate, every) if o.totals["weight_bytes"] <= budget)
        got = problem.evaluate(whole.rows - problem.indptr[:-1])
        assert got.loss == pytest.approx(best)
        assert got.totals["weight_bytes"] <= budget
    assert len(list(tmp_path.iterdir())) == BUDGETS
    again = optimal_wholes(problem, named, "weight_bytes", Parts(tmp_path), lambda *_: None, 0)
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(found, again, strict=True))


def test_budgets_lie_between_the_cheapest_and_the_dearest_allocation():
    problem = problem_of(["a", "b", "c"], resources={"weight_bytes": Resource("byte", offset=1000)})
    budgets = budgets_between(problem, "weight_bytes")
    assert budgets == sorted(budgets)
    assert budgets[0] > 1030
    assert budgets[-1] < 1090
    assert all(isinstance(b, int) for b in budgets)


def test_single_choices_are_drawn_without_repeats():
    problem = problem_of(["a", "b", "c"], allowed=np.array([1, 1, 1, 1, 0, 1, 1, 1, 1], bool))
    assert single_rows(problem, None, np.random.default_rng(0)).tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    some = single_rows(problem, 5, np.random.default_rng(0)).tolist()
    assert len(set(some)) == 5
    assert 4 not in some


def test_the_main_resource():
    problem = Problem.from_arrays([[1.0, 2]], {"macs": [[1, 2]], "weight_bytes": [[1, 2]]})
    assert main_resource(problem) == "weight_bytes"
    assert main_resource(problem.replace(budgets=(Budget(resource="macs", max=2),))) == "macs"
