"""Reading actions: the canonical form comes back, and every wrong key or value is named."""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

import pytest

from allocator.actions import (
    Action,
    Corrected,
    Keep,
    Kept,
    Layer,
    LowRank,
    NumberFormat,
    Prune,
    Quantize,
    Slim,
    Unify,
    parse,
)
from allocator.errors import ActionError

SHARE = {"kind": "prune", "pattern": "unstructured", "values": {"kind": "keep"}}
NM = {"kind": "prune", "pattern": "n_m", "values": {"kind": "keep"}}

GOOD: list[dict[str, Any]] = [
    {"kind": "quantize", "bits": 2, "scheme": "symmetric", "granularity": "channel", "axis": 0,
     "scale_dtype": "float16", "method": "rtn"},
    {"kind": "quantize", "bits": 8, "scheme": "asymmetric", "granularity": "tensor", "scale_dtype": "float32",
     "method": "mse"},
    {"kind": "quantize", "bits": 4, "scheme": "symmetric", "granularity": "group", "group_size": 32, "axis": 0,
     "scale_dtype": "float16", "method": "gptq"},
    {"kind": "quantize", "bits": 1, "scheme": "asymmetric", "granularity": "channel", "axis": 0,
     "scale_dtype": "float16", "method": "rtn", "rounding": "ceil"},
    {"kind": "keep", "dtype": "bfloat16"},
    {"kind": "low_rank", "rank": 3, "left": {"kind": "keep", "dtype": "float16"},
     "right": {"kind": "quantize", "bits": 4, "scheme": "symmetric", "granularity": "channel", "axis": 0,
               "scale_dtype": "float16", "method": "rtn"}},
    {"kind": "low_rank", "rank": 3, "left": {"kind": "keep", "dtype": "float16"},
     "right": {"kind": "keep", "dtype": "float16"}, "components": [0, 4, 5]},
    {"kind": "number_format", "format": "nf4", "granularity": "group", "group_size": 64, "scale_dtype": "float16",
     "method": "absmax"},
    {"kind": "number_format", "format": "fp8_e5m2", "granularity": "tensor", "scale_dtype": "float32", "method": "mse",
     "weighting": "input"},
    {"kind": "number_format", "format": "mxfp4", "method": "absmax"},
    {"kind": "unify", "block": 8, "share": 0.5,
     "values": {"kind": "number_format", "format": "mxfp4", "method": "absmax"}},
    {"kind": "slim", "values": {"kind": "keep", "dtype": "float16"}, "rows": {"of": 10, "kept": "0102"}},
    {"kind": "slim", "values": {"kind": "keep", "dtype": "float16"}, "rows": {"of": 3, "kept": "05"},
     "columns": {"of": 8, "kept": "80"}, "weighting": "input"},
    {"kind": "unify", "block": 2, "share": 1.0, "values": {"kind": "keep", "dtype": "float16"}, "weighting": "input"},
    {"kind": "corrected", "action": {"kind": "keep", "dtype": "float16"}, "variance": True},
    {"kind": "corrected", "action": {"kind": "quantize", "bits": 2, "scheme": "symmetric", "granularity": "channel",
     "axis": 0, "scale_dtype": "float16", "method": "aciq"}, "variance": False},
    {"kind": "prune", "pattern": "unstructured", "density": 0.25, "values": {"kind": "keep", "dtype": "float16"}},
    {"kind": "prune", "pattern": "n_m", "keep": 2, "block": 4, "values": {"kind": "keep", "dtype": "float16"},
     "weighting": "input", "compensate": True, "signs": "apart"},
]  # fmt: skip


@pytest.mark.parametrize("described", GOOD, ids=lambda d: d["kind"])
def test_the_canonical_form_comes_back(described: dict[str, Any]) -> None:
    action = parse(described)
    assert isinstance(action, Action)
    assert action.to_json() == described
    assert parse(json.loads(json.dumps(action.to_json()))) == action
    assert hash(action) == hash(parse(described))


def test_defaults_make_one_action_of_many_spellings() -> None:
    short, long = parse({"kind": "quantize", "bits": 2}), parse(GOOD[0])
    assert short == long
    assert short.to_json() == long.to_json()
    assert parse({"kind": "quantize", "bits": 2, "rounding": "nearest"}).to_json() == long.to_json()
    plain = {"kind": "low_rank", "rank": 2, "left": {"kind": "keep"}, "right": {"kind": "keep"}}
    assert parse({**plain, "components": [0, 1]}) == parse(plain)
    assert parse({"kind": "number_format", "format": "nf4"}).to_json() == GOOD[7]
    ternary = parse({"kind": "number_format", "format": "ternary"})
    assert (ternary.method, ternary.granularity, ternary.scale_dtype) == ("mse", "channel", "float16")
    assert parse({"kind": "unify", "block": 2, "share": 1, "values": {"kind": "keep", "dtype": "float16"},
                  "weighting": "input"}) == parse(GOOD[-5])  # fmt: skip


def test_kept_channels_are_a_list_or_a_bitmap() -> None:
    slim = {"kind": "slim", "values": {"kind": "keep"}}
    by_list, by_digits = (parse({**slim, "columns": {"of": 10, "kept": kept}}) for kept in ([0, 9], "0102"))
    assert by_list == by_digits == Slim(columns=Kept(10, (0, 9)), values=Keep())
    assert by_list.to_json()["columns"] == {"of": 10, "kept": "0102"}


def test_an_action_passes_through() -> None:
    action = Keep()
    assert parse(action) is action


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"kind": "quantize"}, "'bits' is missing"),
        ({"kind": "quantize", "bits": 9}, "bits must be an integer from 1 to 8, got 9"),
        ({"kind": "quantize", "bits": 0}, "bits"),
        ({"kind": "quantize", "bits": True}, "bits"),
        ({"kind": "quantize", "bits": 4.0}, "bits"),
        ({"kind": "quantize", "bits": 4, "bit": 4}, "unknown key 'bit'; it takes bits"),
        ({"kind": "quantize", "bits": 4, "scheme": "affine"}, "scheme must be one of symmetric, asymmetric"),
        ({"kind": "quantize", "bits": 4, "scheme": ["symmetric"]}, "scheme"),
        ({"kind": "quantize", "bits": 4, "granularity": "block"}, "granularity"),
        ({"kind": "quantize", "bits": 4, "granularity": "group"}, "group_size must be an integer ≥ 1"),
        ({"kind": "quantize", "bits": 4, "group_size": 32}, "only with granularity group"),
        ({"kind": "quantize", "bits": 4, "axis": 1}, "axis"),
        ({"kind": "quantize", "bits": 4, "scale_dtype": "bfloat16"}, "scale_dtype must be one of float16, float32"),
        ({"kind": "quantize", "bits": 4, "method": "awq"}, "method must be one of rtn, mse, aciq, gptq"),
        ({"kind": "quantize", "bits": 4, "rounding": "up"}, "rounding must be one of nearest, floor, ceil, got 'up'"),
        ({"kind": "quantize", "bits": 1, "rounding": "floor"}, "1 bit are signs, which rounding=floor cannot move"),
        ({"kind": "keep", "dtype": "int8"}, "dtype must be one of float32"),
        ({"kind": "keep", "type": "float16"}, "unknown key 'type'"),
        ({"kind": "low_rank", "rank": 0, "left": {"kind": "keep"}, "right": {"kind": "keep"}}, "rank"),
        ({"kind": "low_rank", "rank": 2, "left": {"kind": "keep"}}, "'right' is missing"),
        ({"kind": "low_rank", "rank": 2, "left": {"kind": "prune"}, "right": {"kind": "keep"}}, "left must be"),
        ({"kind": "low_rank", "rank": 2, "left": 4, "right": {"kind": "keep"}}, "left must be"),
        ({"kind": "low_rank", "rank": 2, "left": {"kind": "keep"}, "right": {"kind": "keep"}, "components": [1]},
         "components must be 2 rising numbers from 0, as many as the rank, got \\[1\\]"),
        ({"kind": "low_rank", "rank": 2, "left": {"kind": "keep"}, "right": {"kind": "keep"}, "components": [2, 1]},
         "rising"),
        ({"kind": "low_rank", "rank": 1, "left": {"kind": "keep"}, "right": {"kind": "keep"}, "components": [-1]},
         "rising"),
        ({"kind": "low_rank", "rank": 1, "left": {"kind": "keep"}, "right": {"kind": "keep"}, "components": "1"},
         "rising"),
        ({"kind": "number_format"}, "'format' is missing; it takes format: nf4"),
        ({"kind": "number_format", "format": "nf5"}, "format must be one of nf4, fp8_e4m3, fp8_e5m2, mxfp4, ternary"),
        ({"kind": "number_format", "format": "nf4", "method": "twn"}, "method of nf4 must be one of absmax, mse"),
        ({"kind": "number_format", "format": "ternary", "method": "absmax"}, "method of ternary must be .* mse, twn"),
        ({"kind": "number_format", "format": "mxfp4", "group_size": 32}, "blocks of 32 .* leave granularity"),
        ({"kind": "number_format", "format": "mxfp4", "scale_dtype": "float16"}, "blocks of 32"),
        ({"kind": "number_format", "format": "ternary", "granularity": "group"}, "group_size must be an integer ≥ 1"),
        ({"kind": "number_format", "format": "fp8_e4m3", "group_size": 8}, "only with granularity group"),
        ({"kind": "number_format", "format": "fp8_e4m3", "granularity": "row"}, "granularity must be one of tensor"),
        ({"kind": "number_format", "format": "nf4", "scale_dtype": "int8"}, "scale_dtype must be one of float16"),
        ({"kind": "number_format", "format": "nf4", "weighting": "input"}, "absmax weighs no errors; use method mse"),
        ({"kind": "number_format", "format": "nf4", "weighting": "fisher"}, "weighting must be one of none, input"),
        ({"kind": "low_rank", "rank": 2, "right": {"kind": "keep"}, "left": {
            "kind": "number_format", "format": "ternary", "weighting": "input"}}, "left is stored by itself"),
        ({"kind": "unify", "block": 8, "share": 0.5}, "'values' is missing"),
        ({"kind": "unify", "block": 1, "share": 0.5, "values": {"kind": "keep"}}, "block must be an integer ≥ 2"),
        ({"kind": "unify", "block": 8, "share": 0, "values": {"kind": "keep"}}, "share must be a number above 0"),
        ({"kind": "unify", "block": 8, "share": True, "values": {"kind": "keep"}}, "share"),
        ({"kind": "unify", "block": 8, "share": 0.5, "values": {"kind": "unify"}}, "values must be an action of kind"),
        ({"kind": "quantize", "bits": 4, "method": "gptq", "rounding": "ceil"},
         "leave rounding out, or take method mse"),
        ({"kind": "low_rank", "rank": 2, "left": {"kind": "quantize", "bits": 4, "method": "gptq"},
          "right": {"kind": "keep"}}, "left is stored by itself, .* take another method"),
        ({"kind": "corrected"}, "'action' is missing"),
        ({"kind": "corrected", "action": 4}, 'object with a "kind"'),
        ({"kind": "corrected", "action": {"kind": "keep"}}, "leaves no error to correct"),
        ({"kind": "corrected", "action": {"kind": "quantize", "bits": 9}}, "bits"),
        ({"kind": "corrected", "action": {"kind": "slim", "rows": {"of": 4, "kept": [1]}, "values": {"kind": "keep"}}},
         "leaves channels out together with other layers"),
        ({"kind": "corrected", "action": {"kind": "corrected", "action": {"kind": "quantize", "bits": 4}}},
         "say it once"),
        ({"kind": "corrected", "action": {"kind": "quantize", "bits": 4}, "variance": 1}, "true or false, got 1"),
        ({"kind": "fold", "share": 0.5}, "'fold' is unknown; known are .*keep, .*low_rank, .*prune, .*quantize"),
        ({"kind": "prune", "pattern": "unstructured", "density": 0.5}, "'values' is missing"),
        ({**NM, "pattern": "blocks"}, "pattern must be one of unstructured, n_m"),
        (SHARE, "density must be a number above 0"),
        ({**SHARE, "density": 0}, "density .*, got 0"),
        ({**SHARE, "density": 1.1}, "got 1.1"),
        ({**SHARE, "density": True}, "got True"),
        ({**SHARE, "density": 0.5, "keep": 2},
         "keep is not read with pattern unstructured"),
        ({**NM, "density": 0.5}, "density is not read"),
        ({**NM, "keep": 2}, "block must be an integer from 2"),
        ({**NM, "keep": 4, "block": 4}, "keep .* 1 to 3, got 4"),
        ({**NM, "keep": 0, "block": 4}, "keep .* 1 to 3, got 0"),
        ({**NM, "keep": 1, "block": 257}, "2 to 256, got 257"),
        ({**NM, "values": {"kind": "low_rank"}, "keep": 1, "block": 4}, "values must be"),
        ({**NM, "keep": 1, "block": 4, "weighting": "fisher"},
         "weighting must be one of none, input, got 'fisher'"),
        ({**NM, "keep": 1, "block": 4, "compensate": 1},
         "compensate must be true or false"),
        ({**NM, "keep": 1, "block": 4, "signs": "no"}, "signs"),
        ({**NM, "values": {"kind": "quantize", "bits": 4, "rounding": "ceil"}, "keep": 1,
          "block": 4, "compensate": True}, "cannot be rounded in one direction, ceil"),
        ({"kind": "slim", "values": {"kind": "keep"}}, "neither rows nor columns are left out"),
        ({"kind": "slim", "rows": {"of": 4, "kept": [1]}}, "'values' is missing"),
        ({"kind": "slim", "rows": {"of": 4, "kept": [1]}, "values": {"kind": "unify"}}, "values must be an action of"),
        ({"kind": "slim", "keep": 0.5, "values": {"kind": "keep"}}, "keep is a share of channels, which only a rule"),
        ({"kind": "slim", "rows": [1], "values": {"kind": "keep"}}, 'rows must be {"of": channels, "kept": which}'),
        ({"kind": "slim", "rows": {"of": 1, "kept": [0]}, "values": {"kind": "keep"}}, "of must be an integer ≥ 2"),
        ({"kind": "slim", "rows": {"of": 4, "kept": [2, 1]}, "values": {"kind": "keep"}}, "rising numbers from 0 to 3"),
        ({"kind": "slim", "rows": {"of": 4, "kept": [4]}, "values": {"kind": "keep"}}, "rising numbers from 0 to 3"),
        ({"kind": "slim", "rows": {"of": 4, "kept": []}, "values": {"kind": "keep"}}, "at least one"),
        ({"kind": "slim", "rows": {"of": 4, "kept": "0f"}, "values": {"kind": "keep"}}, "not all 4"),
        ({"kind": "slim", "rows": {"of": 4, "kept": "1f"}, "values": {"kind": "keep"}}, "or 2 hexadecimal digits"),
        ({"kind": "slim", "rows": {"of": 4, "kept": "0g"}, "values": {"kind": "keep"}}, "hexadecimal digits"),
        ({"kind": "slim", "rows": {"of": 9, "kept": "01"}, "values": {"kind": "keep"}}, "or 4 hexadecimal digits"),
        ({"kind": "slim", "rows": {"of": 4, "kept": [True]}, "values": {"kind": "keep"}}, "list of channel numbers"),
        ({"kind": "slim", "rows": {"of": 4, "kept": [1]}, "values": {"kind": "keep"}, "weighting": "input"},
         "weighting is about columns that go"),
        ({"bits": 4}, 'object with a "kind"'),
        ({"kind": ["quantize"]}, 'object with a "kind"'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(described: dict[str, Any], said: str) -> None:
    with pytest.raises(ActionError, match=said):
        parse(described)


@pytest.mark.parametrize(
    ("action", "layer", "said"),
    [
        (Quantize(bits=4, method="gptq"), Layer("embedding", (4, 4)), "gptq could weigh errors; use method mse"),
        (
            Corrected(action=Quantize(bits=4)),
            Layer("embedding", (4, 4)),
            "no bias to correct; use its action",
        ),
        (
            Corrected(action=LowRank(rank=5, left=Keep(), right=Keep())),
            Layer("linear", (4, 9)),
            "corrected: .*use at most 4",
        ),
        (Quantize(bits=4, granularity="group", group_size=10), Layer("conv2d", (8, 1, 3, 3), groups=8), "9 weights"),
        (LowRank(rank=5, left=Keep(), right=Keep()), Layer("linear", (4, 9)), "use at most 4"),
        (LowRank(rank=3, left=Keep(), right=Keep()), Layer("conv1d", (4, 4, 3), groups=2), "use at most 2"),
        (LowRank(rank=1, left=Keep(), right=Keep(), components=(1,)), Layer("conv1d", (4, 4, 3), groups=2), "2 groups"),
        (LowRank(rank=1, left=Keep(), right=Keep(), weighting="input"), Layer("embedding", (4, 4)), "looks rows up"),
        (
            LowRank(rank=2, left=Quantize(bits=4, granularity="group", group_size=3), right=Keep()),
            Layer("linear", (4, 9)),
            "left: .* 2 weights",
        ),
        (
            NumberFormat(format="nf4"),
            Layer("conv2d", (8, 3, 3, 3)),
            "64 is more than the 27 weights .* use granularity",
        ),
        (
            NumberFormat(format="ternary", weighting="input"),
            Layer("embedding", (4, 4)),
            "looks rows up",
        ),
        (Unify(block=8, share=0.5, values=Keep()), Layer("linear", (4, 7)), "no block of 8; use at most 7"),
        (Unify(block=2, share=0.5, values=Keep(), weighting="input"), Layer("embedding", (4, 4)), "looks rows up"),
        (
            Unify(block=2, share=0.5, values=NumberFormat(format="nf4")),
            Layer("linear", (4, 8)),
            "values: .* 16 weights",
        ),
        (
            Prune(pattern="n_m", keep=1, block=4, values=Quantize(bits=4, granularity="group", group_size=4)),
            Layer("linear", (4, 12)),
            "prune: values: .* the 3 weights",
        ),
        (
            Prune(pattern="n_m", keep=1, block=4, values=Keep(), weighting="input"),
            Layer("embedding", (4, 12)),
            "looks rows up",
        ),
        (
            Prune(pattern="n_m", keep=1, block=4, values=Keep(), compensate=True),
            Layer("embedding", (4, 12)),
            "looks rows up",
        ),
    ],
)
def test_what_a_layer_cannot_take_is_refused(action: Action, layer: Layer, said: str) -> None:
    with pytest.raises(ActionError, match=said):
        action.check(layer)


def test_python_construction_is_checked_too() -> None:
    with pytest.raises(ActionError, match="bits"):
        Quantize(bits=12)


class _FakeEntryPoints(dict[str, Any]):
    names = property(lambda self: set(self))


def test_a_third_partys_kind_is_found_and_a_broken_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    good = metadata.EntryPoint("mine", "allocator.actions.keep:Keep", "allocator.actions")
    broken = metadata.EntryPoint("broken", "no_such_module_at_all:X", "allocator.actions")
    other = metadata.EntryPoint("other", "allocator.actions.keep:DTYPE_BITS", "allocator.actions")
    points = _FakeEntryPoints(mine=good, broken=broken, other=other)
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    assert parse({"kind": "mine", "dtype": "float16"}) == Keep(dtype="float16")
    for kind in ("broken", "other"):
        with pytest.raises(ActionError, match=f"'{kind}' is unavailable, because"):
            parse({"kind": kind})
    with pytest.raises(ActionError, match=r"known are broken, .*keep, .*low_rank, .*mine, .*other, .*quantize"):
        parse({"kind": "unheard_of"})


SLIM_LAYERS = [
    (Slim(rows=Kept(4, (1,)), values=Keep()), Layer("embedding", (4, 4)), "its rows are no channels"),
    (Slim(rows=Kept(5, (1,)), values=Keep()), Layer("linear", (4, 4)), r"rows are of 5 channels, but .* has 4"),
    (Slim(columns=Kept(3, (1,)), values=Keep()), Layer("linear", (4, 4)), "4 columns .* do not part into 3 channels"),
    (Slim(columns=Kept(4, (1,)), values=Keep()), Layer("conv1d", (4, 2, 2), groups=2), "2 groups .* leave columns out"),
    (
        Slim(columns=Kept(4, (1,)), values=Quantize(bits=4, granularity="group", group_size=4)),
        Layer("conv1d", (4, 4, 3)),
        "values: .* 3 weights of a row",
    ),
]


@pytest.mark.parametrize(("action", "layer", "said"), SLIM_LAYERS)
def test_channels_that_a_layer_lacks_are_refused(action: Action, layer: Layer, said: str) -> None:
    with pytest.raises(ActionError, match=said):
        action.check(layer)
