"""Which choices are measured on how many samples, counted by hand."""

import numpy as np
import pytest

from allocator.problem import Problem
from allocator.refining.selecting import EACH, select, untrusted_rows
from allocator.statement import SameChoice

COST = np.array([10, 40, 20, 30, 50])  # of the places: their order by cost is 0, 2, 3, 1, 4


def problem(groups=3, **parts):
    made = Problem.from_arrays(
        {"ggn": np.zeros((groups, 5))}, {"bytes": np.tile(COST, (groups, 1))}, budgets={"bytes": 40 * groups}
    )
    return made.replace(**parts) if parts else made


def taken(made, *places):
    return made.indptr[:-1] + np.array(places)


def chosen(made, near, untrusted=(), passes=1e9, cuts=range(32, 101), whole=100):
    mask = np.zeros(made.choice_count, bool)
    mask[list(untrusted)] = True
    return select(made, near, mask, cuts=cuts, whole=whole, passes=passes, resource="bytes")


@pytest.mark.parametrize("passes", [15 * EACH, 1e6, float("inf")])
def test_all_on_all_samples_where_the_passes_allow(passes):
    made = problem()
    found = chosen(made, [taken(made, 0, 0, 0)], passes=passes)
    assert found.rows.all()
    assert found.samples == 100
    assert found.passes == pytest.approx(15 * EACH)


def test_else_fewer_samples():
    made = problem()
    found = chosen(made, [taken(made, 0, 0, 0)], passes=15 * EACH * 0.6)
    assert found.rows.all()
    assert found.samples == 60
    assert found.passes == pytest.approx(15 * EACH * 0.6)
    assert chosen(made, [taken(made, 0, 0, 0)], passes=15 * EACH * 0.6, cuts=[35, 50, 90]).samples == 50


def test_then_fewer_choices_ring_by_ring():
    made = problem()
    near = [taken(made, 2, 2, 2)]  # the second cheapest everywhere
    found = chosen(made, near, passes=9 * EACH * 0.32)
    assert found.samples == 32
    assert found.rows.reshape(3, 5).tolist() == [[True, False, True, True, False]] * 3
    more = chosen(made, near, passes=12 * EACH * 0.32)
    assert more.rows.reshape(3, 5).tolist() == [[True, True, True, True, False]] * 3
    two = chosen(made, [taken(made, 2, 2, 2), taken(made, 4, 4, 4)], passes=6 * EACH * 0.32)
    assert two.rows.reshape(3, 5).tolist() == [[False, False, True, False, True]] * 3


def test_what_solutions_consist_of_is_measured_whatever_it_costs():
    made = problem()
    found = chosen(made, [taken(made, 0, 1, 2), taken(made, 3, 1, 4)], passes=1e-9)
    assert np.flatnonzero(found.rows).tolist() == [0, 3, 6, 12, 14]
    assert found.samples == 32
    assert found.passes == pytest.approx(5 * EACH * 0.32)


def test_within_a_ring_the_untrusted_come_first():
    made = problem()
    near = [taken(made, 2, 2, 2)]
    found = chosen(made, near, untrusted=[8, 10], passes=5 * EACH * 0.32)  # one above in group 1, one below in group 2
    assert np.flatnonzero(found.rows).tolist() == [2, 7, 8, 10, 12]
    far = chosen(made, near, untrusted=[4], passes=5 * EACH * 0.32)  # the third ring: after all of the first
    assert not far.rows[4]


def test_forbidden_and_pinned_choices_are_never_measured():
    allowed = np.ones(15, bool)
    allowed[[2, 3]] = False
    made = problem(allowed=allowed, pins={1: 6})
    found = chosen(made, [taken(made, 0, 1, 0)])
    assert np.flatnonzero(~found.rows).tolist() == [2, 3, 5, 7, 8, 9]


def test_groups_that_take_one_label_are_measured_at_the_same_labels():
    made = problem(couplings=(SameChoice((1, 2)), SameChoice((0, 1))))
    near = [taken(made, 2, 2, 2)]
    found = chosen(made, near, untrusted=[13], passes=4 * EACH * 0.32)  # hands its label on twice
    assert found.rows.reshape(3, 5).tolist() == [[False, False, True, True, False]] * 3


def test_untrusted_is_where_the_remainder_is_large():
    made = problem(groups=1)
    scores, gap = {"ggn": np.array([1.0, -1.0, 2.0, 0.0, 1.0])}, {"ggn": np.array([0.1, 0.9, 0.9, 0.1, 0.5])}
    told = made.with_scores(scores).replace(remainder=gap)
    assert untrusted_rows(told, "ggn", 0.5).tolist() == [False, True, False, True, False]
    assert not untrusted_rows(made, "ggn", 0.5).any()
