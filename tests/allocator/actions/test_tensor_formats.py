"""Tensor formats as data: costs worked by hand, canonical JSON, refusals, ranks out of a share."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.actions import Cp, Keep, Layer, Quantize, TensorFormat, Tt, Tucker2, parse, statistics_of
from allocator.actions.tensor_ranks import RULES, attainable, chain
from allocator.errors import ActionError

INT8, HALF = Quantize(bits=8), Keep(dtype="float16")
ALIKE: dict[str, Any] = {"first": INT8, "core": INT8, "last": INT8}
CONV = Layer("conv2d", (10, 6, 3, 5), positions=20, input_positions=80)
JSON8 = INT8.to_json()


def test_costs_of_tucker2() -> None:
    action = Tucker2(rank_out=4, rank_in=3, first=HALF, core=Quantize(bits=3), last=INT8)
    assert [(p.name, p.layer.rows, p.layer.columns) for p in action.parts(CONV)] == [
        ("first", 3, 6), ("core", 4, 45), ("last", 10, 4),
    ]  # fmt: skip
    assert action.stored_bytes(CONV) == 3 * 6 * 2 + (math.ceil(180 * 3 / 8) + 4 * 2) + (40 + 10 * 2)
    assert action.macs(CONV) == 18 * 80 + 180 * 20 + 40 * 20
    assert action.bops(CONV) == (18 * 80 * 16 + 180 * 20 * 3 + 40 * 20 * 8) * 32


def test_costs_of_cp() -> None:
    separable, whole = Cp(rank=7, **ALIKE), Cp(rank=7, kernel="whole", **ALIKE)
    assert [(p.name, p.layer.rows, p.layer.columns, p.layer.positions) for p in separable.parts(CONV)] == [
        ("first", 7, 6, 80), ("core0", 7, 5, 40), ("core1", 7, 3, 20), ("last", 10, 7, 20),
    ]  # fmt: skip
    assert separable.stored_bytes(CONV) == 7 * (6 + 5 + 3 + 10) + 2 * (7 + 7 + 7 + 10)
    assert separable.macs(CONV) == 7 * (6 * 80 + 5 * 40 + 3 * 20 + 10 * 20)
    assert whole.stored_bytes(CONV) == 7 * (6 + 15 + 10) + 2 * (7 + 7 + 10)
    assert whole.macs(CONV) == 7 * (6 * 80 + 15 * 20 + 10 * 20)


def test_costs_of_a_tensor_train() -> None:
    action = Tt(ranks=(4, 9, 3), **ALIKE)
    assert [(p.name, p.layer.rows, p.layer.columns, p.layer.positions) for p in action.parts(CONV)] == [
        ("first", 3, 6, 80), ("core0", 9, 15, 40), ("core1", 4, 27, 20), ("last", 10, 4, 20),
    ]  # fmt: skip
    assert action.stored_bytes(CONV) == 18 + 135 + 108 + 40 + 2 * (3 + 9 + 4 + 10)
    assert action.macs(CONV) == 18 * 80 + 135 * 40 + 108 * 20 + 40 * 20


def test_dimensions_of_length_one_are_no_parts() -> None:
    layer = Layer("conv3d", (8, 6, 2, 1, 3))
    assert len(Cp(rank=3, **ALIKE).parts(layer)) == 4
    assert [p.layer.columns for p in Tt(ranks=(3, 4, 2), **ALIKE).parts(layer)] == [6, 6, 8, 3]
    assert [p.name for p in Cp(rank=3, **ALIKE).parts(Layer("conv1d", (8, 6, 3)))] == ["first", "core", "last"]


@pytest.mark.parametrize(("height", "width", "stride"), [(14, 14, 2), (9, 21, 3), (8, 12, 1)])
def test_positions_between_are_exact_where_every_dimension_shrinks_alike(height: int, width: int, stride: int) -> None:
    out = (height // stride) * (width // stride)
    layer = Layer("conv2d", (8, 8, 3, 3), positions=out, input_positions=height * width)
    assert [p.layer.positions for p in Cp(rank=2, **ALIKE).parts(layer)] == [
        height * width, height * (width // stride), out, out,
    ]  # fmt: skip
    assert {p.layer.positions for p in Cp(rank=2, **ALIKE).parts(layer.at(5))} == {5}


GOOD: list[dict[str, Any]] = [
    {"kind": "tucker2", "rank_out": 4, "rank_in": 3, "parts": JSON8},
    {"kind": "tucker2", "rank_out": 4, "rank_in": 3, "first": JSON8, "core": HALF.to_json(), "last": JSON8,
     "weighting": "input"},
    {"kind": "cp", "rank": 4, "parts": HALF.to_json()},
    {"kind": "cp", "rank": 4, "kernel": "whole", "parts": HALF.to_json()},
    {"kind": "tt", "ranks": [4, 9, 3], "parts": JSON8},
]  # fmt: skip


@pytest.mark.parametrize("described", GOOD, ids=lambda d: d["kind"])
def test_the_canonical_form_comes_back(described: dict[str, Any]) -> None:
    action = parse(described)
    assert action.to_json() == described
    assert hash(action) == hash(parse(described))
    if "parts" in described:
        named = dict.fromkeys(("first", "core", "last"), described["parts"])
        assert parse({k: v for k, v in described.items() if k != "parts"} | named) == action
    assert bool(statistics_of(action)) == ("weighting" in described)


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"kind": "tucker2", "rank_out": 4, "parts": JSON8}, "'rank_in' is missing"),
        ({"kind": "tucker2", "rank_out": 0, "rank_in": 2, "parts": JSON8}, "rank_out must be an integer ≥ 1, got 0"),
        ({"kind": "cp", "rank": 2, "first": JSON8, "last": JSON8}, "'core' is missing; it takes rank"),
        ({"kind": "cp", "rank": 2, "parts": JSON8, "core": JSON8}, "parts says how all are stored; leave out core"),
        ({"kind": "cp", "rank": 2, "parts": {"kind": "cp"}}, "first must be an action of kind keep or quantize"),
        ({"kind": "cp", "rank": 2, "parts": JSON8, "kernel": "half"}, "kernel must be one of separable, whole"),
        ({"kind": "cp", "rank": 2, "parts": JSON8, "weighting": "fisher"}, "weighting must be one of none, input"),
        ({"kind": "cp", "rank": 2, "parts": JSON8, "core0": JSON8}, "unknown key 'core0'"),
        ({"kind": "tt", "ranks": [3], "parts": JSON8}, "a list of two or more integers ≥ 1, got \\[3\\]"),
        ({"kind": "tt", "ranks": "33", "parts": JSON8}, "a list of two or more integers"),
        ({"kind": "tt", "ranks": [3, 0], "parts": JSON8}, "each of ranks must be an integer ≥ 1, got 0"),
    ],
)
def test_what_is_wrong_is_named(described: dict[str, Any], said: str) -> None:
    with pytest.raises(ActionError, match=said):
        parse(described)


ONES = (
    Tucker2(rank_out=1, rank_in=1, **ALIKE),
    Cp(rank=1, **ALIKE),
    Tt(ranks=(1, 1, 1), **ALIKE),
)


@pytest.mark.parametrize("action", ONES, ids=lambda a: a.kind)
@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (Layer("linear", (8, 8)), "the weight of the linear is a matrix, for which this is low_rank"),
        (Layer("embedding", (8, 8)), "the weight of the embedding is a matrix"),
        (Layer("conv2d", (8, 8, 1, 1)), "the weight of the conv2d is a matrix"),
        (Layer("conv2d", (8, 4, 3, 3), groups=2), "2 groups .* use low_rank, which factors group by group"),
    ],
)
def test_matrices_and_groups_are_refused(action: TensorFormat, layer: Layer, said: str) -> None:
    with pytest.raises(ActionError, match=said):
        action.check(layer)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Tucker2(rank_out=11, rank_in=6, **ALIKE), "use at most 10 and 6"),
        (Tucker2(rank_out=4, rank_in=7, **ALIKE), "use at most 4 and 6"),
        (Cp(rank=91, **ALIKE), "use at most 90"),
        (Cp(rank=61, kernel="whole", **ALIKE), "use at most 60"),
        (Tt(ranks=(4, 3), **ALIKE), "a chain of 10, 3, 5, 6, which takes 3 ranks, got 2"),
        (Tt(ranks=(10, 31, 6), **ALIKE), r"use at most \[10, 30, 6\]"),
        (Tt(ranks=(2, 7, 6), **ALIKE), r"use at most \[2, 6, 6\]"),
        (
            Cp(rank=2, first=INT8, core=Quantize(bits=4, granularity="group", group_size=4), last=INT8),
            "core1: .* more than the 3 weights",
        ),
    ],
)
def test_what_the_shape_does_not_give_is_refused(action: TensorFormat, said: str) -> None:
    with pytest.raises(ActionError, match=said):
        action.check(CONV)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=5), st.data())
def test_attainable_ranks_are_the_largest_that_neighbours_leave(dims: list[int], data: Any) -> None:
    ranks = tuple(data.draw(st.integers(1, 12)) for _ in dims[1:])
    ends = (1, *attainable(dims, ranks), 1)
    assert all(ends[i] <= ends[i - 1] * dims[i - 1] for i in range(1, len(ends)))
    assert all(ends[i] <= ends[i + 1] * dims[i] for i in range(len(dims)))
    below = itertools.product(*(range(1, rank + 1) for rank in ranks)) if math.prod(ranks) < 2000 else ()
    for other in below:  # every attainable choice under the given ranks is under the result
        if attainable(dims, other) == other:
            assert all(a <= b for a, b in zip(other, ends[1:-1], strict=True))


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("shape", [(32, 24, 3, 3), (64, 3, 7, 7), (16, 40, 5)])
@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_ranks_keep_to_the_share_and_to_multiples(
    kind: str, shape: tuple[int, ...], multiple: int, share: float
) -> None:
    rule = RULES[kind]
    ranks = rule.ranks(shape, share, multiple)
    assert ranks is not None
    most, least = rule.most(shape), tuple(min(multiple, m) for m in rule.most(shape))
    assert rule.count(shape, ranks) <= max(share * math.prod(shape), rule.count(shape, least))
    dims = {"tt": chain(shape), "tucker2": (shape[0], math.prod(shape[2:]), shape[1])}.get(kind)
    assert dims is None or attainable(dims, ranks) == ranks
    for i, rank in enumerate(ranks):
        assert rank % multiple == 0 or rank == most[i] or multiple > most[i]
        raised = (*ranks[:i], rank + multiple, *ranks[i + 1 :])
        room = raised[i] <= most[i] and (dims is None or attainable(dims, raised) == raised)
        assert not room or rule.count(shape, raised) > share * math.prod(shape)


def test_no_ranks_where_even_the_least_store_more() -> None:
    assert RULES["cp"].ranks((64, 64, 3, 3), 0.001) is None
