"""Tensor formats in menus: ranks of a share, multiples, names and labels, layers that have none."""

import math

import pytest

from allocator.actions import Layer, Quantize, Tucker2, parse
from allocator.choice_names import short_name
from allocator.errors import ActionError
from allocator.space import Rule, Space

CONV = Layer("conv2d", (64, 32, 3, 3))
KEEP = {"kind": "keep", "dtype": "float32"}
FOUR = {"kind": "quantize", "bits": 4}
KINDS = ("tucker2", "cp", "tt")


def menu(*choices, layer=CONV):
    return Space((Rule(choices=choices),)).menu(["conv"], layer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_a_fraction_is_a_share_of_the_numbers(kind, share):
    (item,) = menu({"kind": kind, "fraction": share})
    stored = sum(part.layer.weights for part in item.action.parts(CONV))
    assert 0.9 * share * CONV.weights < stored <= share * CONV.weights
    assert item.action.first == item.action.core == item.action.last == Quantize(bits=8)
    assert item.name == short_name(item.action)
    assert item.label == f"{kind.removesuffix('2')}{100 * share:g}%"


@pytest.mark.parametrize("multiple", [8, 16])
def test_ranks_are_multiples(multiple):
    choices = [{"kind": kind, "fraction": 0.3, "multiple": multiple} for kind in (*KINDS, "low_rank")]
    items = menu(*choices)
    assert len(items) == 4
    for item in items:
        described = item.action.to_json()
        ranks = [v for key, v in described.items() if key.startswith("rank")]
        flat = ranks[0] if isinstance(ranks[0], list) else ranks
        assert flat
        assert all(rank % multiple == 0 and rank > 0 for rank in flat)
    assert [i.label for i in items] == ["tucker30%", "cp30%", "tt30%", "rank30%"]


def test_at_least_one_multiple_and_at_most_what_there_is():
    (least,) = menu({"kind": "tucker2", "fraction": 0.01, "multiple": 8})
    assert (least.action.rank_out, least.action.rank_in) == (8, 8)
    (stem,) = menu({"kind": "tucker2", "fraction": 0.5, "multiple": 8}, layer=Layer("conv2d", (64, 3, 7, 7)))
    assert (stem.action.rank_out, stem.action.rank_in) == (16, 3)
    (rank,) = menu({"kind": "low_rank", "fraction": 0.01, "multiple": 8})
    assert rank.action.rank == 8


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"kind": "tucker2", "rank_out": 16, "rank_in": 8}, "tucker16x8_int8"),
        ({"kind": "tucker2", "rank_out": 16, "rank_in": 8, "core": FOUR}, "tucker16x8_int8_int4_int8"),
        ({"kind": "cp", "rank": 20, "parts": FOUR}, "cp20_int4"),
        ({"kind": "cp", "rank": 20, "kernel": "whole", "weighting": "input"}, "cp20_whole_int8_input"),
        ({"kind": "tt", "ranks": [12, 6, 12]}, "tt12-6-12_int8"),
    ],
)
def test_names_tell_the_action(choice, name):
    (item,) = menu(choice)
    assert (item.name, item.label) == (name, name)


def test_labels_tell_all_but_the_ranks():
    items = menu(
        {"kind": "cp", "fraction": 0.25, "kernel": "whole", "weighting": "input"},
        {"kind": "cp", "fraction": 0.25, "parts": FOUR},
        {"kind": "tt", "fraction": 0.125, "core": FOUR},
    )
    assert [i.label for i in items] == ["cp25%_whole_input", "cp25%_int4", "tt12.5%_int8_int4_int8"]


@pytest.mark.parametrize(
    "layer",
    [
        Layer("linear", (64, 32)),
        Layer("embedding", (64, 32)),
        Layer("conv2d", (64, 32, 1, 1)),
        Layer("conv2d", (64, 1, 3, 3), groups=64),
    ],
)
def test_layers_that_cannot_have_them_are_left_out(layer):
    shares = [{"kind": kind, "fraction": 0.5} for kind in KINDS]
    ranks = [{"kind": "cp", "rank": 1}, {"kind": "tt", "ranks": [1, 1]}]
    assert [item.name for item in menu(*shares, *ranks, KEEP, layer=layer)] == ["keep"]


def test_what_saves_nothing_is_left_out():
    small = Layer("conv2d", (4, 4, 2, 2))
    full = {"kind": "tucker2", "rank_out": 4, "rank_in": 4}
    assert [item.name for item in menu(full, {"kind": "cp", "rank": 13}, KEEP, layer=small)] == ["keep"]
    assert [item.name for item in menu({"kind": "tucker2", "rank_out": 65, "rank_in": 2}, KEEP)] == ["keep"]
    assert [item.name for item in menu({"kind": "cp", "fraction": 1e-4}, KEEP)] == ["keep"]


@pytest.mark.parametrize("layer", [CONV, Layer("linear", (64, 32))])
@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"kind": "cp", "fraction": 0.5, "rank": 3}, "cp takes either rank or a fraction"),
        ({"kind": "tucker2", "fraction": 1.5}, "tucker2 takes either rank_out and rank_in or a fraction in \\(0, 1\\]"),
        ({"kind": "tucker2", "fraction": 0.5, "multiple": 0}, "multiple must be an integer ≥ 1, got 0"),
        ({"kind": "cp", "rank": 8, "multiple": 8}, "multiple rounds the ranks of a fraction, and none is given"),
        ({"kind": "low_rank", "rank": 8, "multiple": 8}, "multiple rounds the ranks of a fraction"),
        ({"kind": "tt", "fraction": 0.5, "part": FOUR}, "unknown key 'part'"),
        ({"kind": "tt", "fraction": 0.5, "parts": 4}, "first must be an action"),
        ({"kind": "cp"}, "'rank' is missing"),
    ],
)
def test_bad_choices_are_named_on_every_layer(choice, said, layer):
    with pytest.raises(ActionError, match=said):
        menu(choice, KEEP, layer=layer)


def test_other_spellings_of_one_rank_are_one_choice():
    shares = [{"kind": "tucker2", "fraction": s} for s in (0.25, 0.2501)]
    (item,) = menu(*shares)
    assert isinstance(item.action, Tucker2)
    assert parse(item.action.to_json()) == item.action
    assert math.isclose(item.action.stored_bytes(CONV), 0.25 * CONV.weights, rel_tol=0.1)
