"""Stored bytes are what the cost said, and come back as what `approximate` said: any action, any layer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
    TensorFormat,
    Unify,
    parse,
)
from allocator.actions.tensor_ranks import attainable
from allocator.applier import Approximator, approximate, pack, unpack, unpack_parts
from allocator.applier.kinds import FactoredKind, kind_of
from allocator.applier.kinds.low_rank import LowRankKind
from allocator.applier.packed import unpack_shift
from allocator.applier.statistics import LayerStatistics
from allocator.applier.weight import Weight
from allocator.errors import ActionError


@st.composite
def layers(draw: Any) -> Layer:
    kind = draw(st.sampled_from(["linear", "conv1d", "conv2d", "embedding"]))
    size = st.integers(1, 9)
    shape = [draw(size), draw(size)] + [draw(st.integers(1, 3)) for _ in range({"conv1d": 1, "conv2d": 2}.get(kind, 0))]
    return Layer(kind, tuple(shape))


@st.composite
def plain_actions(draw: Any, columns: int) -> Keep | NumberFormat | Quantize:
    kind = draw(st.sampled_from(["keep", "number_format", "quantize"]))
    if kind == "keep":
        return Keep(dtype=draw(st.sampled_from(["float32", "float16", "bfloat16"])))
    granularity = draw(st.sampled_from(["tensor", "channel", "group"]))
    if kind == "number_format":
        return draw(number_formats(granularity, columns))
    return Quantize(
        bits=draw(st.integers(1, 8)),
        scheme=draw(st.sampled_from(["symmetric", "asymmetric"])),
        granularity=granularity,
        group_size=draw(st.integers(1, columns)) if granularity == "group" else None,
        scale_dtype=draw(st.sampled_from(["float16", "float32"])),
        method=draw(st.sampled_from(["rtn", "mse", "aciq"])),
    )


@st.composite
def number_formats(draw: Any, granularity: str, columns: int) -> NumberFormat:
    form = draw(st.sampled_from(["nf4", "fp8_e4m3", "fp8_e5m2", "mxfp4", "ternary"]))
    method = draw(st.sampled_from(["twn" if form == "ternary" else "absmax", "mse"]))
    if form == "mxfp4":
        return NumberFormat(format=form, method=method)
    return NumberFormat(
        format=form,
        granularity=granularity,
        group_size=draw(st.integers(1, columns)) if granularity == "group" else None,
        scale_dtype=draw(st.sampled_from(["float16", "float32"])),
        method=method,
    )


@st.composite
def unified(draw: Any, layer: Layer) -> Unify:
    block, share = draw(st.integers(2, layer.columns)), draw(st.floats(0.01, 1))
    rest = Unify(block=block, share=share, values=Keep()).rest(layer)
    values = Keep() if rest is None else draw(plain_actions(rest.columns))
    return Unify(block=block, share=share, values=values)


@st.composite
def tensor_formats(draw: Any, layer: Layer) -> TensorFormat:
    kind = draw(st.sampled_from(["tucker2", "cp", "tt"]))
    rows, columns, *kernel = layer.weight_shape
    dims = (rows, math.prod(kernel), columns) if kind == "tucker2" else (rows, *(k for k in kernel if k > 1), columns)
    ranks = attainable(dims, [draw(st.integers(1, 9)) for _ in dims[1:]])
    given: dict[str, Any] = {
        "tucker2": {"rank_out": ranks[0], "rank_in": ranks[1]},
        "cp": {"rank": min(ranks), "kernel": draw(st.sampled_from(["separable", "whole"]))},
        "tt": {"ranks": ranks},
    }[kind]
    plain = parse({"kind": kind, **given, "parts": {"kind": "keep"}})
    assert isinstance(plain, TensorFormat)
    first, *cores, last = (part.layer.columns for part in plain.parts(layer))
    stored = {"first": first, "core": min(cores), "last": last}
    return replace(plain, **{key: draw(plain_actions(width)) for key, width in stored.items()})


@st.composite
def pruned(draw: Any, layer: Layer) -> Prune:
    if draw(st.booleans()):
        density = draw(st.one_of(st.just(1.0), st.floats(1e-3, 1)))
        kept = max(1, round(density * layer.weights))
        pattern: dict[str, Any] = {"pattern": "unstructured", "density": density}
    else:
        block = draw(st.integers(2, 12))
        keep = draw(st.integers(1, block - 1))
        kept = layer.columns // block * keep + math.ceil(keep * (layer.columns % block) / block)
        pattern = {"pattern": "n_m", "keep": keep, "block": block}
    return Prune(**pattern, values=draw(plain_actions(kept)), signs=draw(st.sampled_from(["within", "apart"])))


@st.composite
def slim(draw: Any, layer: Layer) -> Slim | None:
    """Of a layer with two rows or two input channels at least, but no embedding; None of others."""
    sizes = {"rows": layer.rows, "columns": layer.weight_shape[1]}
    sides = [side for side, of in sizes.items() if of > 1]
    if layer.kind == "embedding" or not sides:
        return None
    kept = {}
    for side in draw(st.lists(st.sampled_from(sides), min_size=1, unique=True)):
        of = sizes[side]
        numbers = draw(st.lists(st.integers(0, of - 1), min_size=1, max_size=of - 1, unique=True))
        kept[side] = Kept(of, tuple(sorted(numbers)))
    columns = Slim(values=Keep(), **kept).core(layer).columns
    return Slim(values=draw(plain_actions(columns)), **kept)


@st.composite
def cases(draw: Any) -> tuple[Layer, Action, int]:
    layer = draw(layers())
    action: Action = draw(plain_actions(layer.columns))
    if layer.kind.startswith("conv") and layer.columns > layer.weight_shape[1] and draw(st.booleans()):
        return layer, draw(tensor_formats(layer)), draw(st.integers(0, 2**31))
    if draw(st.booleans()):
        action = draw(pruned(layer))
    elif draw(st.booleans()):
        rank = draw(st.integers(1, min(layer.rows, layer.columns)))
        action = LowRank(rank=rank, left=draw(plain_actions(rank)), right=draw(plain_actions(layer.columns)))
    elif layer.columns > 1 and draw(st.booleans()):
        action = draw(unified(layer))
    elif layer.kind != "embedding" and isinstance(action, Quantize) and draw(st.booleans()):
        action = replace(action, method="gptq")
    elif draw(st.booleans()):
        action = draw(slim(layer)) or action
    if layer.kind != "embedding" and action != Keep() and not isinstance(action, Slim) and draw(st.booleans()):
        action = Corrected(action=action, variance=draw(st.booleans()))
    return layer, action, draw(st.integers(0, 2**31))


@given(
    cases(),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    st.sampled_from([1.0, 1e-7, 1e6, 1e-30, 1e30]),
)
@settings(max_examples=400, deadline=None)
def test_the_buffer_has_the_cost_and_unpacks_to_the_approximation(
    case: tuple[Layer, Action, int], dtype: torch.dtype, magnitude: float
) -> None:
    layer, action, seed = case
    weight = torch.randn(layer.weight_shape, generator=torch.Generator().manual_seed(seed)) * magnitude
    weight = weight.to(dtype)
    inputs = torch.randn(5, layer.columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 1
    known = LayerStatistics(input_moment=(inputs.t() @ inputs / 5).unsqueeze(0), input_mean=inputs.mean(0, True))
    buffer = pack(weight, action, layer, known)
    assert buffer.dtype == torch.uint8
    assert buffer.shape == (action.stored_bytes(layer),)
    got = unpack(buffer, action, layer, dtype)
    assert got.dtype == dtype
    assert got.isfinite().all()
    assert torch.equal(got, approximate(weight, action, layer, known))
    approximator = Approximator(weight, layer, known)
    if isinstance(kind_of(action), FactoredKind):
        wanted = approximator.parts(action).values()
        assert all(map(torch.equal, unpack_parts(buffer, action, layer), wanted))
    shift = approximator.shift(action)
    assert (shift is not None) == isinstance(action, Corrected)
    if shift is not None:
        assert torch.equal(unpack_shift(buffer, action, layer, torch.float32), shift)


def test_layout_is_codes_then_scales_then_minima() -> None:
    weight = torch.tensor([[0.0, 1.0, 2.0, 3.0], [-1.0, 0.5, 0.5, 2.0]])
    buffer = pack(weight, Quantize(bits=2, scheme="asymmetric"), Layer("linear", (2, 4)))
    first, second = 0 | 1 << 2 | 2 << 4 | 3 << 6, 0 | 2 << 2 | 2 << 4 | 3 << 6
    numbers = torch.tensor([1.0, 1.0, 0.0, -1.0]).half().view(torch.uint8).tolist()
    assert buffer.tolist() == [first, second, *numbers]


def test_left_comes_before_right() -> None:
    layer = Layer("linear", (3, 5))
    weight = torch.randn(3, 5)
    action = LowRank(rank=1, left=Keep(dtype="float16"), right=Keep(dtype="float32"))
    left, right = LowRankKind().factors(Weight(weight, layer), action)
    wanted = torch.cat([left.half().view(-1).view(torch.uint8), right.view(-1).view(torch.uint8)])
    assert torch.equal(pack(weight, action, layer), wanted)


PRUNED = Prune(pattern="n_m", keep=2, block=4, values=Keep())
FORMATTED = NumberFormat(format="mxfp4")


@pytest.mark.parametrize(
    "action", [Quantize(bits=3), Keep(), LowRank(rank=2, left=Keep(), right=Keep()), PRUNED, FORMATTED]
)
def test_a_buffer_of_another_size_is_refused(action: Action) -> None:
    layer = Layer("linear", (4, 4))
    buffer = pack(torch.randn(4, 4), action, layer)
    for wrong in (buffer[:-1], torch.cat([buffer, buffer[:1]]), buffer.float()):
        with pytest.raises(ActionError, match=rf"stored as uint8 \[{math.prod(buffer.shape)}\]"):
            unpack(wrong, action, layer)
