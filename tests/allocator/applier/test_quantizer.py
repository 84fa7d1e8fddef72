"""`approximate` of quantize against a quantiser written number by number."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from allocator.actions import Layer, Quantize
from allocator.applier import approximate
from allocator.applier.quantizer import encode
from allocator.applier.weight import LARGEST

F16_STEP, F16_NORMAL, F16_MAX = 2.0**-24, 2.0**-14, 65504.0


def reference(weights: np.ndarray, action: Quantize) -> np.ndarray:
    """The definition in Quantize's docstring, in loops; weights [rows, columns] float32."""
    out = np.empty_like(weights)
    rows, columns = weights.shape
    if action.granularity == "tensor":
        groups = [[(r, c) for r in range(rows) for c in range(columns)]]
    else:
        size = action.group_size or columns
        groups = [
            [(r, c) for c in range(s, min(s + size, columns))] for r in range(rows) for s in range(0, columns, size)
        ]
    for group in groups:
        values = [weights[at] for at in group]
        for at, value in zip(group, reference_group(values, action), strict=True):
            out[at] = value
    return out


def reference_group(values: list[np.float32], action: Quantize) -> list[np.float32]:
    if action.scheme == "symmetric" and action.bits == 1:
        s = narrow(math.fsum(abs(float(v)) for v in values) / len(values), action)
        return [s if v >= 0 else -s for v in values]
    low, high = float(min(values)), float(max(values))
    if action.scheme == "symmetric":
        q = 2 ** (action.bits - 1) - 1
        m, s, bottom, top = np.float32(0), narrow(up(max(-low, high) / q, action), action), -q, q
    else:
        bottom, top = 0, 2**action.bits - 1
        m, s = narrow(low, action), narrow(up((high - low) / top, action), action)
    whole = {"nearest": np.round, "floor": np.floor, "ceil": np.ceil}[action.rounding]
    codes = [0.0 if s == 0 else min(max(float(whole((v - m) / s)), bottom), top) for v in values]
    return [np.float32(np.float32(np.float32(c) * s) + m) for c in codes]


def up(scale: float, action: Quantize) -> float:
    subnormal = action.scale_dtype == "float16" and scale < F16_NORMAL
    return math.ceil(scale / F16_STEP) * F16_STEP if subnormal else scale


def narrow(value: float, action: Quantize) -> np.float32:
    if action.scale_dtype == "float32":
        return np.float32(value)
    return np.float32(np.float16(np.float32(min(max(value, -F16_MAX), F16_MAX))))


NEAREST = [
    Quantize(bits=bits, scheme=scheme, granularity=granularity, group_size=size, scale_dtype=dtype, method=method)
    for bits, scheme, (granularity, size), dtype, method in itertools.product(
        range(1, 9),
        ("symmetric", "asymmetric"),
        (("tensor", None), ("channel", None), ("group", 4), ("group", 7)),
        ("float16", "float32"),
        ("rtn", "mse", "aciq"),
    )
]

ACTIONS = NEAREST + [
    replace(action, rounding=way)
    for action in NEAREST
    for way in ("floor", "ceil")
    if action.directed and action.granularity in ("tensor", "channel")
]


@pytest.mark.parametrize("magnitude", [1.0, 1e-7, 3e7], ids=["usual", "subnormal scales", "overflowing scales"])
def test_against_the_reference(magnitude: float) -> None:
    weights = np.random.default_rng(0).standard_normal((3, 11)).astype(np.float32) * np.float32(magnitude)
    weights[1] = 0
    layer = Layer("linear", weights.shape)
    for action in ACTIONS:
        if action.method != "rtn":
            continue
        got = approximate(torch.from_numpy(weights), action, layer).numpy()
        np.testing.assert_array_equal(got, reference(weights, action), err_msg=repr(action))


def test_a_zero_channel_stays_exactly_zero() -> None:
    weight = torch.randn(4, 8)
    weight[2] = 0
    for action in ACTIONS:
        if action.granularity != "tensor":
            assert not approximate(weight, action, Layer("linear", (4, 8)))[2].any(), action


def test_one_bit_is_the_best_pair_of_opposite_values() -> None:
    weight = torch.randn(1, 400)
    action = Quantize(bits=1, scale_dtype="float32")
    got = (approximate(weight, action, Layer("linear", (1, 400))) - weight).square().sum()
    scales = torch.linspace(0, 4, 4001)[:, None]
    assert got <= (weight.sign() * scales - weight).square().sum(1).min() + 1e-4


def test_directions_by_hand() -> None:
    # scale 7/7 = 1: codes of 7, −2.5, .2, −7 are 7, −2, 0, −7 to the nearest even one
    weight = torch.tensor([[7.0, -2.5, 0.2, -7.0]])
    layer = Layer("linear", (1, 4))
    got = {way: approximate(weight, Quantize(bits=4, rounding=way), layer).tolist() for way in ("floor", "ceil")}
    assert got == {"floor": [[7, -3, 0, -7]], "ceil": [[7, -2, 1, -7]]}
    assert approximate(weight, Quantize(bits=4), layer).tolist() == [[7, -2, 0, -7]]


def test_subnormal_scales_do_not_clip_the_largest_weight() -> None:
    # The exact scale 1.4·2^-24 would round down to 2^-24 and cut the largest weight by 29 %.
    largest = 127 * 1.4 * F16_STEP
    weight = torch.tensor([[largest, -largest / 3, 0.0]])
    got = approximate(weight, Quantize(bits=8), Layer("linear", (1, 3)))
    assert (got - weight).abs().max() <= F16_STEP * 1.0001


def test_a_scale_that_would_round_to_zero_is_the_least_positive_one() -> None:
    weight = torch.full((1, 4), 0.9 * F16_STEP)
    encoded = encode(weight, Quantize(bits=8))
    assert float(encoded.scales) == F16_STEP
    assert torch.equal(approximate(weight, Quantize(bits=8), Layer("linear", (1, 4))), torch.full((1, 4), F16_STEP))


def test_a_scale_beyond_float16_saturates() -> None:
    weight = torch.tensor([[1e6, -1e6, 1.0]])
    layer = Layer("linear", (1, 3))
    assert approximate(weight, Quantize(bits=2), layer).tolist() == [[F16_MAX, -F16_MAX, 0.0]]
    assert approximate(weight, Quantize(bits=2, scale_dtype="float32"), layer).tolist() == [[1e6, -1e6, 0.0]]


def test_the_largest_weights_taken_stay_finite() -> None:
    top = LARGEST
    weight = torch.tensor([[top, -top, top / 2, 0.0]])
    for action in ACTIONS:
        if action.group_size is None:
            assert approximate(weight, action, Layer("linear", (1, 4))).isfinite().all(), action
