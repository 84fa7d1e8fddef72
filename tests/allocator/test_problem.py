"""Problems from arrays, their views, masks, labels and scopes, against the row form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from allocator.errors import ProblemError
from allocator.formats.digest import content_sha256
from allocator.names import Coded, Names, Ragged, encode
from allocator.problem import Problem
from allocator.statement import Basis, Budget, Cardinality, Pairs, SameChoice
from allocator.testing.depth import times
from allocator.testing.reference import Reference
from allocator.testing.strategies import documents


@given(documents())
@settings(max_examples=times(40))
def test_views_show_the_rows(rows: dict[str, Any]) -> None:
    problem = Problem.from_rows(rows)
    assert len(problem.groups) == problem.group_count == len(rows["groups"])
    assert problem.choice_count == sum(len(g["choices"]) for g in rows["groups"])
    for view, group in zip(problem.groups, rows["groups"], strict=True):
        assert view.name == group["name"]
        assert view.tags == tuple(group.get("tags", ()))
        assert view.weights == group.get("weights")
        assert view.modules == (tuple(group.get("modules", ())) or (group["name"],))
        for own, choice in zip(view.choices, group["choices"], strict=True):
            assert own.name == choice["name"]
            assert own.label == choice.get("label", choice["name"])
            assert own.allowed == choice.get("allowed", True)
            assert own.action == choice.get("action")
            assert own.score == choice["score"]
            assert own.cost == choice["cost"]
            assert problem.row(group["name"], choice["name"]) == own.row
    assert problem.groups[-1].name == rows["groups"][-1]["name"]
    assert [g.name for g in problem.groups[:2]] == [g["name"] for g in rows["groups"][:2]]
    free = [set(places) for places in Reference(rows).free]
    owner = problem.group_of
    assert problem.free.tolist() == [
        place in free[g] for g, place in zip(owner.tolist(), problem.places.tolist(), strict=True)
    ]


@given(documents())
@settings(max_examples=times(40))
def test_scopes_and_labels_are_those_of_the_names(rows: dict[str, Any]) -> None:
    problem = Problem.from_rows(rows)
    for tags in ((), ("x",), ("x", "z"), ("none",), None):
        expected = [tags is None or bool(set(tags) & set(g.get("tags", []))) for g in rows["groups"]]
        assert problem.in_scope(tags).tolist() == expected
    codes = problem.label_codes
    labels = [c.get("label", c["name"]) for g in rows["groups"] for c in g["choices"]]
    assert [codes.table[c] for c in codes.code.tolist()] == labels
    for i, a in enumerate(labels):
        for j, b in enumerate(labels[:i]):
            assert (codes.code[i] == codes.code[j]) == (a == b)


def test_what_is_not_there_is_a_key_error(example: dict[str, Any]) -> None:
    problem = Problem.from_rows(example)
    for place in (("conv9", "int4"), ("conv1", "int3")):
        with pytest.raises(KeyError):
            problem.row(*place)
    with pytest.raises(IndexError):
        problem.groups[6]


def test_arrays_are_read_only_and_shared_by_variants(example: dict[str, Any]) -> None:
    problem = Problem.from_rows(example)
    for array in (problem.indptr, problem.unary, problem.scores["ggn"], problem.costs["weight_bytes"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    other = problem.with_budget("weight_bytes", max=7)
    assert other.costs["weight_bytes"] is problem.costs["weight_bytes"]
    assert problem.budgets[0].max == 100000
    assert Budget(resource="weight_bytes", max=7) in other.budgets
    assert sum(b.resource == "weight_bytes" and b.tags is None for b in other.budgets) == 1


def test_with_loss_and_with_scores(example: dict[str, Any]) -> None:
    problem = Problem.from_rows(example | {"interactions": []})
    first = problem.with_loss("first_order")
    assert (first.unary == problem.scores["first_order"]).all()
    both = problem.with_loss({"ggn": 2.0, "first_order": 1.0}, stderr_weight=1.0)
    choice = np.zeros(6, np.int64)
    rows = example | {"interactions": [], "loss": {"terms": {"ggn": 2.0, "first_order": 1.0}, "stderr_weight": 1.0}}
    assert both.evaluate(choice).loss == Reference(rows).loss((0,) * 6)
    more = problem.with_scores({"kl": np.arange(problem.choice_count)}, stderr={"kl": np.ones(problem.choice_count)})
    assert more.loss == problem.loss
    assert more.with_loss("kl").unary[3] == 3.0
    with pytest.raises(ProblemError, match="there is no score 'kl'"):
        problem.with_loss("kl")


def test_from_arrays_is_from_rows() -> None:
    rng = np.random.default_rng(0)
    scores, costs = rng.random((3, 4)), rng.integers(0, 9, (3, 4))
    problem = Problem.from_arrays(scores, costs, budgets={"cost": 20})
    rows = {
        "format": "allocation-problem",
        "version": 1,
        "groups": [
            {
                "name": f"g{g}",
                "choices": [
                    {"name": f"c{k}", "cost": {"cost": int(costs[g, k])}, "score": {"score": float(scores[g, k])}}
                    for k in range(4)
                ],
            }
            for g in range(3)
        ],
        "budgets": [{"resource": "cost", "max": 20}],
    }
    assert content_sha256(problem) == content_sha256(Problem.from_rows(rows))
    assert content_sha256(problem) == content_sha256(
        Problem.from_arrays(scores.ravel(), costs.ravel(), indptr=[0, 4, 8, 12], budgets={"cost": 20})
    )
    assert problem.costs["cost"].dtype == np.int64


def test_from_arrays_copies_what_it_is_given() -> None:
    scores, costs = np.zeros((2, 2)), np.zeros((2, 2))
    problem = Problem.from_arrays(scores, costs)
    scores[:] = 7
    assert (problem.unary == 0).all()


@pytest.mark.parametrize("kind", [np.int8, np.uint64, bool, np.float32, np.float16])
def test_from_arrays_takes_numbers_of_any_width(kind: Any) -> None:
    problem = Problem.from_arrays(np.ones((2, 2), kind), np.ones((2, 2), kind))
    assert problem.scores["score"].dtype == np.float64
    assert problem.costs["cost"].dtype == (np.int64 if np.dtype(kind).kind in "iub" else np.float64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": np.zeros((2, 2)), "costs": np.zeros((2, 3))}, "has shape (6,); the groups hold 4 choices"),
        ({"scores": np.zeros(4), "costs": np.zeros(4), "indptr": [0, 2, 3]}, "has shape (4,)"),
        ({"scores": np.zeros(4), "costs": np.zeros(4), "indptr": [0, 4, 4]}, "a group needs at least one choice"),
        ({"scores": np.zeros(4), "costs": np.zeros(4), "indptr": [1, 4]}, "a group needs at least one choice"),
        ({"scores": np.full((1, 2), np.nan), "costs": np.zeros((1, 2))}, "is nan; numbers must be finite"),
        ({"scores": np.zeros((1, 2)), "costs": np.zeros((1, 2)), "group_names": ["a", "b"]}, "2 names for 1 groups"),
        ({"scores": np.zeros((2, 1)), "costs": np.zeros((2, 1)), "group_names": ["a", "a"]}, "already the name"),
        ({"scores": np.zeros((1, 2)), "costs": np.zeros((1, 2)), "choice_names": ["a", "a"]}, "is used twice"),
        ({"scores": np.zeros((1, 2)), "costs": np.zeros((1, 2)), "budgets": {"ram": 1}}, "there is no resource 'ram'"),
        ({"scores": {"": np.zeros((1, 1))}, "costs": np.zeros((1, 1))}, "a score cannot be named ''"),
        ({"scores": {"loss": np.zeros((1, 1))}, "costs": np.zeros((1, 1))}, "a score cannot be named 'loss'"),
        ({"scores": np.zeros((1, 1)), "costs": {"loss": np.zeros((1, 1))}}, "a resource cannot be named 'loss'"),
        ({"scores": np.zeros((1, 1)), "costs": np.zeros((1, 1)), "group_names": ["\ud800"]}, "half a character"),
        ({"scores": np.full((1, 2), 1e308), "costs": np.zeros((1, 2))}, "is too large to be added up"),
        ({"scores": np.zeros((1, 2)), "costs": np.full((1, 2), 1e308)}, "is too large to be added up"),
    ],
    ids=range(15),
)
def test_arrays_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError) as caught:
        Problem.from_arrays(**arguments)
    assert message in str(caught.value)


def test_unsigned_integers_beyond_the_signed_range_stay_what_they_are() -> None:
    problem = Problem.from_arrays(np.zeros((1, 2)), np.array([[2**63 + 4096, 1]], np.uint64))
    assert problem.costs["cost"][0] == float(2**63 + 4096)
    assert not problem.exact("cost")


def _plain() -> dict[str, Any]:
    scores = {"s": np.zeros(4)}
    names = encode(["a", "b", "a", "b"])
    from allocator.statement import Loss

    return {
        "indptr": np.array([0, 2, 4]),
        "scores": scores,
        "costs": {"c": np.arange(4)},
        "group_names": Names(2),
        "choice_names": names,
        "loss": Loss({"s": 1.0}),
    }


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"pins": {0: 3}}, "/pins/g0: points to a choice of another group"),
        ({"couplings": (SameChoice((0, 9)),)}, "/couplings/0: names a group or choice that does not exist"),
        ({"couplings": (SameChoice(()),)}, "/couplings/0/groups: is empty"),
        ({"couplings": (Cardinality("at_most", (1, 1), 1),)}, "/couplings/0/choices: names one choice twice"),
        ({"couplings": (Cardinality("at_most", (), 1),)}, "/couplings/0/choices: is empty"),
        ({"couplings": (Cardinality("at_most", (-1,), 1),)}, "does not exist"),
        ({"interactions": (Pairs("s", np.zeros((2, 2), int), np.zeros(3)),)}, "index and value differ in length"),
        ({"interactions": (Basis("s", np.zeros(2), np.zeros((4, 3))),)}, "vectors of shape (4, 3)"),
        ({"interactions": (Basis("s", np.array([1.0]), np.full((4, 1), 1e200)),)}, "adds up to more than floats hold"),
        ({"minimize": {"c": 1e305}}, "/minimize/c: "),
        ({"minimize": {}}, "/minimize: is empty"),
        ({"minimize": {"loss": float("nan")}}, "/minimize/loss: numbers must be finite"),
        ({"budgets": (Budget(),)}, "/budgets/0: limits one thing"),
        ({"budgets": (Budget(resource="c", max=float("inf")),)}, "/budgets/0/max: numbers must be finite"),
        ({"budgets": (Budget(loss=True, max=1, tags=("x",)),)}, "a loss row covers all groups"),
        ({"budgets": (Budget(resource="c", max=1, include_remainder=True),)}, "belongs to score rows only"),
        ({"indptr": np.array([0, 2**63 - 1, -(2**63), -1, 0, 4])}, "a group needs at least one choice"),
    ],
    ids=range(17),
)
def test_parts_that_do_not_fit_are_refused(part: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError) as caught:
        Problem(**_plain() | part)
    assert message in str(caught.value)


def test_names_are_kept_only_where_they_are_not_the_defaults() -> None:
    assert Names(3, ["g0", "g1", "g2"]).explicit is None
    assert Names(2, ["g1", "g0"]).explicit == ("g1", "g0")
    names = Names(3)
    assert (names[1], names[-1], names[:2], list(names)) == ("g1", "g2", ["g0", "g1"], ["g0", "g1", "g2"])
    with pytest.raises(IndexError):
        names[3]


def test_default_names_and_given_ones_share_codes() -> None:
    coded = Coded(np.array([-1, 0, 1, -1], np.int32), ("c1", "z"))
    resolved = coded.resolved(np.array([0, 1, 0, 1]))
    assert [resolved.table[c] for c in resolved.code.tolist()] == ["c0", "c1", "z", "c1"]
    assert resolved.code[1] == resolved.code[3]
    assert [coded.text(row, place) for row, place in enumerate([0, 1, 0, 1])] == ["c0", "c1", "z", "c1"]


def test_ragged_strings_come_back() -> None:
    lists = [["a", "b"], [], ["b"], ["c", "a", "a"]]
    ragged = Ragged.from_lists(lists)
    assert [list(ragged.of(g)) for g in range(4)] == lists


def test_warnings_tell_what_is_probably_not_meant(example: dict[str, Any]) -> None:
    example["loss"]["terms"]["first_order"] = 1.0
    example["couplings"][1]["ignore"] = ["keeps"]
    targets, labels = Problem.from_rows(example).warnings
    assert "different targets (ce, kl)" in targets
    assert "no choice has the label ['keeps']" in labels


def test_other_budgets_share_what_was_worked_out_and_are_checked(example: dict[str, Any]) -> None:
    problem = Problem.from_rows(example)
    assert problem.features
    other = problem.replace(budgets=(Budget(resource="weight_bytes", min=5),))
    assert other.unary is problem.unary
    assert other.features == Problem.from_rows(example | {"budgets": [{"resource": "weight_bytes", "min": 5}]}).features
    assert problem.budgets != other.budgets
    with pytest.raises(ProblemError, match="there is no resource 'petrol'"):
        problem.replace(budgets=(Budget(resource="petrol", max=5),))
    with pytest.raises(ProblemError, match="numbers must be finite"):
        problem.with_budget("weight_bytes", max=float("nan"))
