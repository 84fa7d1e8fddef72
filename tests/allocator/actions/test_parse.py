"""Reading actions: the canonical form comes back, and every wrong key or value is named."""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

import pytest

from allocator.actions import Action, Keep, Layer, LowRank, Prune, Quantize, parse
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
        ({"kind": "quantize", "bits": 4, "method": "awq"}, "method must be one of rtn, mse"),
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
        ({"kind": "fold", "share": 0.5}, "'fold' is unknown; known are keep, low_rank, prune, quantize"),
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
        (Quantize(bits=4, method="gptq"), Layer("linear", (4, 4)), "gptq is known but not done yet; use rtn or mse"),
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
    with pytest.raises(ActionError, match="known are broken, keep, low_rank, mine, other, prune, quantize"):
        parse({"kind": "unheard_of"})
