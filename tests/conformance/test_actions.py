"""Every kind of action that the package has, on every kind of layer: the suite that outsiders' kinds pass too."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from allocator.actions import KINDS, Layer, Slim, parse
from allocator.applier.kinds import KINDS as DONE
from allocator.errors import ActionError
from allocator.testing.actions import EXAMPLES, check_network, check_weight, done_to, network
from allocator.testing.depth import times

ACTIONS = [(kind, place) for kind, examples in EXAMPLES.items() for place in range(len(examples))]


def test_every_kind_has_examples_and_an_applier() -> None:
    assert set(EXAMPLES) == set(KINDS) == set(DONE)
    for kind, examples in EXAMPLES.items():
        assert {parse(example).kind for example in examples} == {kind}


@pytest.mark.parametrize(("kind", "place"), ACTIONS)
def test_networks(kind: str, place: int) -> None:
    action = parse(EXAMPLES[kind][place])
    assert check_network(action) > 0


def test_between_them_they_are_done_to_every_layer() -> None:
    model, _ = network()
    reached = {unit.name for examples in EXAMPLES.values() for one in examples for unit in done_to(model, parse(one))}
    assert reached == {"first", "padded", "grouped", "depthwise", "dilated", "line", "embed", "mix"}


CONVOLVED = ("tucker2", "cp", "tt")


@st.composite
def slimmed(draw: Any, action: Slim) -> Layer:
    """A layer of as many rows and input channels as the action says."""
    kernel = [draw(st.integers(1, 3)) for _ in range(draw(st.integers(0, 2)))]
    rows = action.rows.of if action.rows else draw(st.integers(1, 5))
    columns = action.columns.of if action.columns else draw(st.integers(1, 5))
    kinds: tuple[Literal["linear"], Literal["conv1d"], Literal["conv2d"]] = ("linear", "conv1d", "conv2d")
    return Layer(kinds[len(kernel)], (rows, columns, *kernel))


@st.composite
def layers(draw: Any, convolved: bool) -> Layer:
    """Of any kind; with ``convolved`` those that tensor formats are for."""
    kinds = ["conv1d", "conv2d", "conv3d"]
    kind = draw(st.sampled_from(kinds if convolved else ["linear", "embedding", *kinds]))
    kernel = {"conv1d": 1, "conv2d": 2, "conv3d": 3}.get(kind, 0)
    groups = draw(st.sampled_from([1, 1, 2, 3])) if kernel and not convolved else 1
    least = 3 if convolved else 1
    rows, columns = groups * draw(st.integers(least, 6)), draw(st.integers(least, 7))
    return Layer(kind, (rows, columns, *(draw(st.integers(least, 3)) for _ in range(kernel))), groups=groups)


@pytest.mark.parametrize("kind", sorted(EXAMPLES))
@given(data=st.data())
@settings(max_examples=times(60), deadline=None)
def test_weights(kind: str, data: st.DataObject) -> None:
    action = parse(data.draw(st.sampled_from(EXAMPLES[kind])))
    layer = data.draw(slimmed(action) if isinstance(action, Slim) else layers(kind in CONVOLVED))
    try:
        action.check(layer)
    except ActionError:
        assume(False)
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    weight = torch.randn(layer.weight_shape, generator=draw) * data.draw(st.sampled_from([1.0, 1e-6, 1e4, 0.0]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
    assert math.prod(layer.weight_shape) == layer.weights
    check_weight(action, weight.to(dtype), layer)
