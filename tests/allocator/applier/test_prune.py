"""`prune` against a pruner written number by number, and its fit against dense least squares."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from allocator.actions import Keep, Layer, Prune, Quantize
from allocator.applier import Approximator, approximate, compensation, pack, row_fit, unpack
from allocator.applier.statistics import LayerStatistics
from allocator.errors import ActionError

LAYERS = {
    "linear": Layer("linear", (12, 20)),
    "one row": Layer("linear", (1, 7)),
    "one column": Layer("linear", (5, 1)),
    "convolution": Layer("conv2d", (8, 3, 3, 3)),
    "grouped": Layer("conv2d", (6, 2, 3, 3), groups=3),
    "depthwise": Layer("conv1d", (6, 1, 5), groups=6),
}
PATTERNS: list[dict[str, Any]] = [
    {"pattern": "unstructured", "density": 0.1},
    {"pattern": "unstructured", "density": 0.6},
    {"pattern": "n_m", "keep": 2, "block": 4},
    {"pattern": "n_m", "keep": 5, "block": 8},
]


def moment(layer: Layer, seed: int = 0) -> Tensor:
    """E[x xᵀ] of correlated inputs of unequal sizes."""
    draw = torch.Generator().manual_seed(seed)
    n = layer.columns
    mixed = torch.randn(layer.groups, n, n, generator=draw, dtype=torch.float64) * 0.4 + torch.eye(n)
    x = torch.randn(layer.groups, 4 * n, n, generator=draw, dtype=torch.float64) @ mixed
    x *= torch.linspace(0.3, 2, n, dtype=torch.float64)
    return x.transpose(1, 2) @ x / (4 * n)


def weight_of(layer: Layer, seed: int = 1) -> Tensor:
    return torch.randn(layer.weight_shape, generator=torch.Generator().manual_seed(seed))


def kept_by_hand(matrix: np.ndarray, action: Prune, sizes: np.ndarray | None = None) -> set[tuple[int, int]]:
    """Sorted by falling importance, then by place; sizes [rows, columns]."""
    rows, columns = matrix.shape

    def order(at: tuple[int, int]) -> tuple[float, tuple[int, int]]:
        return -abs(float(matrix[at])) * (1 if sizes is None else float(sizes[at])), at

    if action.pattern == "unstructured":
        assert action.density is not None
        k = max(1, round(action.density * rows * columns))
        return set(sorted(itertools.product(range(rows), range(columns)), key=order)[:k])
    assert action.block is not None
    assert action.keep is not None
    found: set[tuple[int, int]] = set()
    for row in range(rows):
        for start in range(0, columns, action.block):
            places = [(row, c) for c in range(start, min(start + action.block, columns))]
            found |= set(sorted(places, key=order)[: math.ceil(action.keep * len(places) / action.block)])
    return found


def by_hand(matrix: np.ndarray, kept: set[tuple[int, int]], action: Prune) -> np.ndarray:
    """Kept values in order, each part that shares a scale stored by itself through `values`."""
    out = np.zeros_like(matrix)
    places = sorted(kept)
    how = action.values
    parts = [places]
    if action.pattern == "n_m" or (isinstance(how, Quantize) and how.granularity == "channel"):
        parts = [[at for at in places if at[0] == row] for row in range(len(matrix))]
    if isinstance(how, Quantize) and how.granularity == "tensor":
        parts = [places]
    if isinstance(how, Quantize) and how.granularity == "group":
        assert how.group_size is not None
        parts = [part[i : i + how.group_size] for part in parts for i in range(0, len(part), how.group_size)]
    alone = how
    if isinstance(how, Quantize):
        alone = Quantize(bits=how.bits, scheme=how.scheme, granularity="tensor", method=how.method)
    for part in parts:
        if part:
            values = torch.tensor([float(matrix[at]) for at in part])
            signs = torch.where(values >= 0, 1.0, -1.0) if action.signs == "apart" else torch.ones_like(values)
            found = approximate((values * signs).unsqueeze(0), alone, Layer("linear", (1, len(part))))[0] * signs
            for at, value in zip(part, found.tolist(), strict=True):
                out[at] = value
    return out


VALUES = [
    Keep(),
    Keep(dtype="float16"),
    Quantize(bits=1),
    Quantize(bits=2, scheme="asymmetric", method="mse"),
    Quantize(bits=4, granularity="tensor"),
    Quantize(bits=3, granularity="group", group_size=2, scheme="asymmetric"),
]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_against_the_reference(name: str, pattern: dict[str, Any]) -> None:
    layer = LAYERS[name]
    weight = weight_of(layer)
    weight[0] = weight[0].sign()  # a row of ties
    matrix = weight.reshape(layer.rows, -1).numpy()
    for values, signs in itertools.product(VALUES, ("within", "apart")):
        action = Prune(**pattern, values=values, signs=signs)
        try:
            action.check(layer)
        except ActionError:
            assert isinstance(values, Quantize)
            assert values.group_size == 2  # a group longer than the kept weights of a row
            continue
        found = approximate(weight, action, layer).reshape(layer.rows, -1).numpy()
        np.testing.assert_array_equal(found, by_hand(matrix, kept_by_hand(matrix, action), action))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_the_inputs_weigh_what_is_kept(name: str, pattern: dict[str, Any]) -> None:
    layer = LAYERS[name]
    h = moment(layer)
    action = Prune(**pattern, values=Keep(), weighting="input")
    weight = weight_of(layer)
    matrix = weight.reshape(layer.rows, -1).numpy()
    each = h.diagonal(dim1=1, dim2=2).sqrt().repeat_interleave(layer.rows // layer.groups, 0).numpy()
    kept = kept_by_hand(matrix, action, each)
    found = approximate(weight, action, layer, LayerStatistics(input_moment=h)).reshape(layer.rows, -1).numpy()
    np.testing.assert_array_equal(found, by_hand(matrix, kept, action))
    if layer.columns > 1 and layer.rows > 1:
        assert kept != kept_by_hand(matrix, action)


@given(st.integers(1, 6), st.integers(1, 20), st.floats(0.01, 1), st.integers(1, 8), st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_a_scale_per_row_of_the_weight_wherever_the_kept_ones_are(
    rows: int, columns: int, density: float, bits: int, seed: int
) -> None:
    layer = Layer("linear", (rows, columns))
    weight = weight_of(layer, seed) * torch.logspace(-3, 3, rows).unsqueeze(1)
    for scheme, signs in itertools.product(("symmetric", "asymmetric"), ("within", "apart")):
        action = Prune(pattern="unstructured", density=density, values=Quantize(bits=bits, scheme=scheme), signs=signs)
        found = approximate(weight, action, layer).numpy()
        np.testing.assert_array_equal(found, by_hand(weight.numpy(), kept_by_hand(weight.numpy(), action), action))


def test_streams_lie_in_the_order_that_the_format_says() -> None:
    weight = torch.tensor([[0.0, -2.0, 0.0, 1.0], [3.0, 0.0, 0.0, -3.0]])
    action = Prune(pattern="unstructured", density=0.5, signs="apart", values=Quantize(bits=1, scheme="asymmetric"))
    scales, minima = (torch.tensor(x).half().view(torch.uint8).tolist() for x in ([1.0, 0.0], [1.0, 3.0]))
    assert pack(weight, action, Layer("linear", (2, 4))).tolist() == [0b1001_1010, 0b0110, 0b0001, *scales, *minima]
    blocks = Prune(pattern="n_m", keep=2, block=4, values=Keep(dtype="float16"))
    halves = torch.tensor([-2.0, 1.0, 3.0, -3.0]).half().view(torch.uint8).tolist()
    assert pack(weight, blocks, Layer("linear", (2, 4))).tolist() == [0b11_00_11_01, *halves]


def damped(h: Tensor) -> Tensor:
    mean = h.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1)
    return h + 0.01 * mean * torch.eye(h.shape[1], dtype=torch.float64)


def cost(delta: Tensor, h: Tensor, layer: Layer) -> float:
    rows = delta.double().reshape(layer.groups, -1, layer.columns)
    return float(((rows @ h) * rows).sum())


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_kept_weights_are_the_least_squares_fit(
    name: str, pattern: dict[str, Any], wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wide:
        monkeypatch.setattr(row_fit, "EXACT_COLUMNS", 0)
        monkeypatch.setattr(row_fit, "ROUGH_COLUMNS", 0)
    layer = LAYERS[name]
    h, weight = moment(layer), weight_of(layer)
    action = Prune(**pattern, values=Keep(), weighting="input", compensate=True)
    found = approximate(weight, action, layer, LayerStatistics(input_moment=h)).reshape(layer.rows, -1)
    matrix = weight.reshape(layer.rows, -1).double()
    for row in range(layer.rows):
        inner = damped(h)[row // (layer.rows // layer.groups)]
        kept = found[row].nonzero().view(-1)
        if len(kept):
            wanted = torch.linalg.solve(inner[kept][:, kept], (inner @ matrix[row])[kept])
            torch.testing.assert_close(found[row, kept].double(), wanted, rtol=1e-5, atol=1e-6)
    plain = approximate(weight, Prune(**pattern, values=Keep()), layer)
    assert cost(found - matrix, damped(h), layer) <= cost(plain.reshape(matrix.shape) - matrix, damped(h), layer)


def nearest_codes(weight: Tensor, action: Prune, layer: Layer, h: Tensor) -> Tensor:
    """The same choice, fit and scales, but each value at its nearest code."""
    statistics = LayerStatistics(input_moment=h)
    fitted = Prune(**{**vars(action), "values": Keep()})
    matrix = approximate(weight, fitted, layer, statistics).reshape(layer.rows, -1).numpy()
    kept = {(int(r), int(c)) for r, c in zip(*matrix.nonzero(), strict=True)}
    return torch.from_numpy(by_hand(matrix, kept, action))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_codes_that_make_good_each_others_errors_cost_less(
    seed: int, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wide:
        monkeypatch.setattr(row_fit, "EXACT_COLUMNS", 0)
    sums = np.zeros(2)
    for name, values in itertools.product(("linear", "convolution", "grouped"), VALUES[2:]):
        layer = LAYERS[name]
        h, weight = moment(layer, seed), weight_of(layer, seed)
        for pattern, signs in itertools.product(PATTERNS[1:3], ("within", "apart")):
            action = Prune(**pattern, values=values, compensate=True, signs=signs)
            joint = approximate(weight, action, layer, LayerStatistics(input_moment=h))
            matrix = weight.reshape(layer.rows, -1)
            costs = [
                cost(x.reshape(matrix.shape) - matrix, damped(h), layer)
                for x in (joint, nearest_codes(weight, action, layer, h))
            ]
            assert costs[0] <= costs[1] * (1 + 1e-6)
            sums += np.log(costs)
    assert sums[0] < sums[1] - 1


def test_settled_codes_are_near_the_best_of_all() -> None:
    layer = Layer("linear", (3, 8))
    action = Prune(pattern="n_m", keep=1, block=2, values=Quantize(bits=3), compensate=True)
    ratios = []
    for seed in range(6):
        h, weight = moment(layer, seed), weight_of(layer, seed)
        statistics = LayerStatistics(input_moment=h)
        found = approximate(weight, action, layer, statistics)
        fitted = approximate(weight, Prune(**{**vars(action), "values": Keep()}), layer, statistics)
        for row in range(3):
            kept = fitted[row].nonzero().view(-1)
            scale = float((fitted[row].abs().max() / 3).half())
            codes = torch.tensor(list(itertools.product(range(-3, 4), repeat=len(kept))), dtype=torch.float64)
            every = torch.zeros(len(codes), 8, dtype=torch.float64)
            every[:, kept] = codes * scale
            costs = (((every - weight[row]) @ damped(h)[0]) * (every - weight[row])).sum(1)
            mine = cost(found[row] - weight[row], damped(h), Layer("linear", (1, 8)))
            assert mine >= float(costs.min()) * (1 - 1e-6)
            ratios.append(mine / float(costs.min()))
    assert np.median(ratios) < 1.0001
    assert max(ratios) < 1.5


def test_choosing_in_rounds_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Layer("linear", (16, 40))
    logs = []
    for rounds in (1, compensation.ROUNDS):
        monkeypatch.setattr(compensation, "ROUNDS", rounds)
        total = 0.0
        for seed in range(4):
            h, weight = moment(layer, seed), weight_of(layer, seed)
            action = Prune(pattern="unstructured", density=0.2, values=Keep(), weighting="input", compensate=True)
            found = approximate(weight, action, layer, LayerStatistics(input_moment=h))
            total += math.log(cost(found - weight, damped(h), layer))
        logs.append(total / 4)
    assert logs[1] < logs[0] - 0.2


@pytest.mark.parametrize("magnitude", [1e-30, 1e30])
@pytest.mark.parametrize("size", [1e-12, 1e12, 0])
def test_extreme_sizes_and_dead_inputs(magnitude: float, size: float) -> None:
    layer = Layer("conv2d", (6, 2, 3, 3), groups=3)
    h = moment(layer) * size
    h[1] = 0
    weight = weight_of(layer) * magnitude
    weight[5] = 0
    for pattern, signs in itertools.product(PATTERNS, ("within", "apart")):
        for values in (Keep(), Quantize(bits=3, scale_dtype="float32")):
            action = Prune(**pattern, values=values, weighting="input", compensate=True, signs=signs)
            buffer = pack(weight, action, layer, LayerStatistics(input_moment=h))
            assert buffer.shape == (action.stored_bytes(layer),)
            found = unpack(buffer, action, layer)
            assert torch.isfinite(found).all()
            plain = Prune(**pattern, values=values, signs=signs)
            assert torch.isfinite(approximate(weight, plain, layer)).all()


def test_the_fit_is_done_once_and_gives_the_same_bytes() -> None:
    layer = LAYERS["linear"]
    made = Approximator(weight_of(layer), layer, LayerStatistics(input_moment=moment(layer)))
    action = Prune(pattern="unstructured", density=0.3, values=Quantize(bits=4), compensate=True)
    first = made.pack(action)
    assert made.worth_keeping
    assert torch.equal(made.pack(action), first)
    assert torch.equal(made.approximate(action), unpack(first, action, layer))
    assert torch.equal(pack(weight_of(layer), action, layer, LayerStatistics(input_moment=moment(layer))), first)


@pytest.mark.parametrize("more", [{"weighting": "input"}, {"compensate": True}])
def test_missing_statistics_are_named(more: dict[str, Any]) -> None:
    layer = LAYERS["linear"]
    with pytest.raises(ActionError, match=r"prune: .* input moment, which was not given"):
        approximate(weight_of(layer), Prune(**PATTERNS[0], values=Keep(), **more), layer)


@pytest.mark.parametrize("wide", [False, True])
def test_how_the_work_is_cut_does_not_show(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if wide:
        monkeypatch.setattr(row_fit, "EXACT_COLUMNS", 0)
    layer = Layer("linear", (9, 30))
    statistics = LayerStatistics(input_moment=moment(layer))
    action = Prune(pattern="unstructured", density=0.6, values=Quantize(bits=3), compensate=True)
    whole = pack(weight_of(layer), action, layer, statistics)
    monkeypatch.setattr(compensation, "_BLOCK", 4)
    monkeypatch.setattr(row_fit, "_NUMBERS", 1)
    assert torch.equal(pack(weight_of(layer), action, layer, statistics), whole)


def test_of_equal_weights_the_first_stay() -> None:
    layer = Layer("linear", (3, 300))
    weight = torch.randint(0, 2, (3, 300), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    for pattern in ({"pattern": "unstructured", "density": 0.3}, {"pattern": "n_m", "keep": 50, "block": 200}):
        action = Prune(**pattern, values=Keep())
        kept = approximate(weight, action, layer).nonzero().tolist()
        assert kept == sorted(map(list, kept_by_hand(weight.numpy(), action)))
