"""Reductions: one to one with what may be taken, same objective, same feasibility, and a way back."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from allocator.errors import UnsupportedError
from allocator.problem import Problem
from allocator.reduce import Reduced, reduce
from allocator.rounding import last_integer
from allocator.testing.claims import tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import PARTS, random_rows
from allocator.testing.reference import Places, Reference


def takeable(reference: Reference) -> set[Places]:
    """Allocations that keep pins, permissions and every same_choice."""
    only = {"groups": reference.rows["groups"], "loss": reference.rows["loss"]}
    only["couplings"] = [c for c in reference.rows["couplings"] if c["kind"] == "same_choice"]
    return {
        places
        for places in itertools.product(*reference.free)
        if not any("coupling" in broken for broken in Reference(only | {"pins": {}}).violations(places))
    }


def reduced_allocations(reduced: Reduced) -> list[np.ndarray[Any, Any]]:
    assert reduced.problem is not None
    return [np.array(c) for c in itertools.product(*(range(n) for n in reduced.problem.sizes.tolist()))]


def check(rows: dict[str, Any]) -> Reduced:
    reference = Reference(rows)
    original = Problem.from_rows(rows)
    reduced = reduce(original)
    wanted = takeable(reference)
    if reduced.problem is None:
        assert not wanted
        assert reduced.reason
        return reduced
    assert not reduced.problem.pins
    assert reduced.problem.free.all()
    slip = tolerance(reference)
    found: set[Places] = set()
    for choice in reduced_allocations(reduced):
        outcome = reduced.problem.evaluate(choice)
        expanded = reduced.expand(choice)
        places = tuple(expanded.tolist())
        assert places not in found
        found.add(places)
        assert outcome.objective == pytest.approx(reference.objective(places), rel=0, abs=slip + 1e-300)
        assert outcome.tie == pytest.approx(reference.tie(places), rel=0, abs=slip + 1e-300)
        assert outcome.feasible == (not reference.violations(places))
        back = reduced.contract(expanded)
        assert back is not None
        assert back.tolist() == choice.tolist()
    assert wanted <= found
    for places in found - wanted:  # where same_choice was left in the problem
        assert reference.violations(places)
    for places in set(reference.allocations()) - found:
        assert reduced.contract(np.array(places)) is None
        assert reference.violations(places)
    return reduced


def test_random_problems_reduce_one_to_one() -> None:
    for seed in range(times(400)):
        check(random_rows(seed, most_allocations=120))


def test_overlapping_couplings_and_interactions_reduce_one_to_one() -> None:
    parts = PARTS & {"same_choice", "labels", "basis", "pairs", "scoped_budgets", "score_budgets", "cardinality"}
    merged = 0
    for seed in range(times(300)):
        reduced = check(random_rows(seed, parts | {"implies", "max_masks", "max_resource"}, most_allocations=150))
        merged += reduced.problem is not None and reduced.problem.group_count < reduced.original.group_count
    assert merged > times(40)


def _rows(groups: list[dict[str, Any]], **parts: Any) -> dict[str, Any]:
    return {"format": "allocation-problem", "version": 1, "groups": groups, "couplings": [], "budgets": [], **parts} | {
        "loss": parts.get("loss", {})
    }


def _group(name: str, scores: list[float], costs: list[float], labels: str = "abcdef", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "choices": [
            {"name": f"{name}{k}", "label": label, "cost": {"c": c}, "score": {"s": s}}
            for k, (s, c, label) in enumerate(zip(scores, costs, labels, strict=False))
        ],
        **more,
    }


SAME = {"kind": "same_choice", "groups": ["g", "h"]}


def test_nothing_to_do_gives_the_same_problem(example: dict[str, Any]) -> None:
    problem = Problem.from_rows(example | {"pins": {}, "couplings": []})
    assert reduce(problem).problem is problem


def test_why_nothing_is_left() -> None:
    rows = _rows([_group("g", [1], [1], "a"), _group("h", [1], [1], "b")], couplings=[SAME])
    reduced = reduce(Problem.from_rows(rows))
    assert reduced.problem is None
    assert reduced.reason is not None
    assert "'g', 'h'" in reduced.reason
    forbidden = _group("g", [1, 2], [1, 2])
    for choice in forbidden["choices"]:
        choice["allowed"] = False
    reduced = reduce(Problem.from_rows(_rows([forbidden])))
    assert reduced.problem is None
    assert reduced.reason == "group 'g' has no choice that may be taken"


def test_several_choices_of_one_label_all_combine() -> None:
    rows = _rows([_group("g", [1, 2, 3], [1, 2, 3], "aab"), _group("h", [1, 2], [1, 2], "aa")], couplings=[SAME])
    reduced = check(rows)
    assert reduced.problem is not None
    assert reduced.problem.sizes.tolist() == [4]


def test_too_many_combinations_are_refused_by_name() -> None:
    rows = _rows([_group("g", [0.0] * 400, [1] * 400, "a" * 400), _group("h", [0.0] * 400, [1] * 400, "a" * 400)])
    with pytest.raises(UnsupportedError, match="same_choice over 2 groups"):
        reduce(Problem.from_rows(rows | {"couplings": [SAME]}))


def test_single_precision_vectors_are_added_in_double_precision() -> None:
    rng = np.random.default_rng(0)
    rows = _rows([_group("g", [0, 0], [1, 2]), _group("h", [0, 0], [1, 2]), _group("k", [0, 0], [1, 2])])
    problem = Problem.from_rows(rows | {"couplings": [SAME]})
    vectors = rng.standard_normal((6, 3)).astype(np.float32)
    from allocator.statement import Basis

    problem = problem.replace(interactions=(Basis("s", np.array([1.0, -2.0, 0.5]), vectors),))
    reduced = reduce(problem)
    assert reduced.problem is not None
    for choice in reduced_allocations(reduced):
        outcome = reduced.problem.evaluate(choice)
        assert outcome.loss == pytest.approx(problem.evaluate(reduced.expand(choice)).loss, rel=0, abs=1e-14)


def test_small_unaries_survive_a_large_p() -> None:
    loss = {"terms": {"s": 1.0}, "aggregate": "pnorm", "p": 60}
    rows = _rows([_group("g", [1e-7, 1], [1, 2]), _group("h", [2e-7, 1], [1, 2])], couplings=[SAME], loss=loss)
    reduced = reduce(Problem.from_rows(rows))
    assert reduced.problem is not None
    assert reduced.problem.evaluate(np.array([0])).loss == pytest.approx(2e-7)


def test_a_scoped_row_on_a_maximum_counts_only_the_members_in_scope() -> None:
    groups = [_group("g", [1, 2], [9, 1], tags=["x"]), _group("h", [1, 2], [5, 7])]
    for limit in (0, 1, 5, 9):
        rows = _rows(
            groups,
            couplings=[SAME],
            resources={"c": {"aggregate": "max", "offset": 100}},
            budgets=[{"resource": "c", "max": limit, "tags": ["x"]}],
        )
        check(rows)


def test_extra_columns_never_take_the_name_of_a_given_one() -> None:
    groups = [_group("g", [1, 2], [9, 1]), _group("h", [1, 2], [5, 7])]
    for group in groups:
        for choice in group["choices"]:
            choice["cost"] = {"(coupling 0)": choice["cost"]["c"], "(scope 0)": 1}
            choice["score"] = {"(inside 0)": choice["score"]["s"], "(p-norm 0)": 2.0}
    at_most = {"kind": "at_most", "choices": [["g", "g0"], ["h", "h0"]], "count": 1}
    pairs = [{"a": ["g", "g0"], "b": ["h", "h0"], "value": 0.25}]
    rows = _rows(
        groups,
        couplings=[SAME, at_most],
        loss={"terms": {"(inside 0)": 1.0, "(p-norm 0)": 1.0}},
        budgets=[{"resource": "(coupling 0)", "max": 14}],
        interactions=[{"score": "(inside 0)", "pairs": pairs}],
    )
    check(rows)


def test_rounding_in_advance_never_decides_a_row() -> None:
    """0.1 + 0.2 is above 0.3 as a float sum: merged first, the row at 0 would break; summed once, it holds."""
    for values in ([0.1, 0.2, -0.3], [0.1, 0.7, -0.8], [0.3, 0.6, -0.9], [1e16, 1.0, -1e16]):
        for order in itertools.permutations(values):
            for side in ("max", "min"):
                groups = [_group(n, [v, 5.0], [1, 2]) for n, v in zip("ghk", order, strict=True)]
                check(_rows(groups, couplings=[SAME], budgets=[{"score": "s", side: 0.0}]))
                check(_rows(groups, couplings=[SAME], budgets=[{"loss": True, side: 0.0}]))


def test_a_column_that_turns_integer_keeps_its_float_limit() -> None:
    fraction = _group("g", [1, 2], [0.5, 4])
    fraction["choices"][0]["allowed"] = False
    for limit in (6.0, 6 * (1 - 5e-13), 6 * (1 - 5e-12)):
        for side in ("max", "min"):
            check(_rows([fraction, _group("h", [1, 2], [2, 3])], budgets=[{"resource": "c", side: limit}]))


def test_huge_integers_whose_combinations_pass_2_to_the_63_stay_exact() -> None:
    big = 2**60
    groups = [_group("g", [1, 2], [big, big + 1], "aa"), _group("h", [1, 2], [big, big + 1], "aa")]
    groups.append(_group("k", [1, 2], [big, 1]))
    for limit in (2 * big + 1, 2 * big + 2):
        check(_rows(groups, couplings=[SAME], budgets=[{"resource": "c", "max": limit}]))


@pytest.mark.parametrize("limit", [5.0, 5.5, -5.5, 2.0**53, 2.0**54, 2.0**60 + 2**8, -(2.0**54), -(2.0**60)])
def test_the_last_integer_is_the_last_that_rounds_to_the_limit_or_below(limit: float) -> None:
    last = last_integer(limit)
    assert float(last) <= limit < float(last + 1)
