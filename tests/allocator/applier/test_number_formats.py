"""`approximate` of number_format against the definition written number by number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from allocator.actions import Layer, NumberFormat
from allocator.applier import LayerStatistics, approximate, pack
from allocator.applier import number_formats as arithmetic
from allocator.applier.elements import ELEMENTS
from allocator.applier.weight import LARGEST
from allocator.errors import ActionError

F16_STEP, F16_NORMAL, F16_MAX = 2.0**-24, 2.0**-14, 65504.0
SHARING: list[dict[str, object]] = [
    {"granularity": "tensor"},
    {"granularity": "channel", "scale_dtype": "float32"},
    {"granularity": "group", "group_size": 4},
    {"granularity": "group", "group_size": 7, "scale_dtype": "float32"},
]
ACTIONS = [
    NumberFormat.from_json({"format": name, "method": method, **sharing})
    for name in ("nf4", "fp8_e4m3", "fp8_e5m2", "ternary")
    for method in (("twn", "mse") if name == "ternary" else ("absmax", "mse"))
    for sharing in SHARING
] + [NumberFormat(format="mxfp4", method=method) for method in ("absmax", "mse")]
ids = [f"{a.format}-{a.method}-{a.granularity}-{a.group_size}-{a.scale_dtype}" for a in ACTIONS]


def groups_of(shape: tuple[int, int], action: NumberFormat) -> list[list[tuple[int, int]]]:
    rows, columns = shape
    if action.granularity == "tensor":
        return [[(r, c) for r in range(rows) for c in range(columns)]]
    size = 32 if action.format == "mxfp4" else action.group_size or columns
    return [[(r, c) for c in range(s, min(s + size, columns))] for r in range(rows) for s in range(0, columns, size)]


def reference(weights: np.ndarray, action: NumberFormat, importance: np.ndarray | None = None) -> np.ndarray:
    """The definition in NumberFormat's docstring, in loops; weights [rows, columns] float32."""
    out = np.empty_like(weights)
    for group in groups_of(weights.shape, action):
        w = [weights[at] for at in group]
        v = [np.float32(1) if importance is None else importance[at] for at in group]
        for at, value in zip(group, one_group(w, v, action), strict=True):
            out[at] = value
    return out


def one_group(w: list[np.float32], v: list[np.float32], action: NumberFormat) -> list[np.float32]:
    if action.format == "ternary" and action.method == "twn":
        delta = 0.7 * math.fsum(abs(float(x)) for x in w) / len(w)
        beyond = [abs(float(x)) for x in w if abs(float(x)) > delta]
        s = narrow(math.fsum(beyond) / max(len(beyond), 1), action)
        return [np.float32(np.sign(x) * s if abs(x) > delta else 0) for x in w]
    if action.format == "ternary":
        order = sorted(range(len(w)), key=lambda i: -abs(w[i]))
        sums = [[math.fsum(float(v[i]) * abs(float(w[i])) ** p for i in order[:k]) for k in range(1, len(w) + 1)]
                for p in (1, 0)]  # fmt: skip
        best = max(range(len(w)), key=lambda k: sums[0][k] ** 2 / sums[1][k])
        return [s * q for s in [narrow(sums[0][best] / sums[1][best], action)] for q in rounded(w, s, action)]
    reach = float(max(abs(x) for x in w))
    if action.format == "mxfp4":
        e = max(math.floor(math.log2(reach)) - 2, -127) if reach else -127
        scales = [np.float32(2.0**e), np.float32(2.0 ** (e + 1))]
    else:
        factors = arithmetic.REACHES[action.format] if action.method == "mse" else [1.0]
        scales = [narrow(up(reach / ELEMENTS[action.format].largest * f, action), action) for f in factors]
    s = scales[0]
    if action.method == "mse":
        for other in scales[1:]:
            s = better(w, v, s, other, action)
        for _ in range(0 if action.format == "mxfp4" else arithmetic.REFITS):
            q = rounded(w, s, action)
            below = math.fsum(float(a) * float(b) ** 2 for a, b in zip(v, q, strict=True))
            if below:
                above = math.fsum(float(a) * float(b) * float(c) for a, b, c in zip(v, q, w, strict=True))
                s = better(w, v, s, narrow(above / below, action), action)
    return [s * q for q in rounded(w, s, action)]


def better(w: list[np.float32], v: list[np.float32], s: np.float32, t: np.float32, action: NumberFormat) -> np.float32:
    first, second = (
        math.fsum(
            float(np.float32(np.square(x / scale - q)) * weight)
            for x, q, weight in zip(w, rounded(w, scale, action), v, strict=True)
        )
        * float(scale) ** 2
        if scale
        else math.inf
        for scale in (s, t)
    )
    return t if second < first else s


def rounded(w: list[np.float32], s: np.float32, action: NumberFormat) -> list[np.float32]:
    if s == 0:
        return [np.float32(0)] * len(w)
    elements = ELEMENTS[action.format]  # against its definition in test_elements
    return list(elements.values(elements.codes(torch.tensor(np.array([x / s for x in w])))).numpy())


def up(scale: float, action: NumberFormat) -> float:
    if action.scale_dtype != "float16" or abs(scale) >= F16_NORMAL:
        return scale
    return math.copysign(math.ceil(abs(scale) / F16_STEP) * F16_STEP, scale)


def narrow(value: float, action: NumberFormat) -> np.float32:
    if action.scale_dtype == "float32":
        return np.float32(value)
    return np.float32(np.float16(np.float32(min(max(value, -F16_MAX), F16_MAX))))


@pytest.mark.parametrize("magnitude", [1.0, 1e-7, 3e8, 1e-30, 1e30], ids=str)
def test_against_the_reference(magnitude: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "_CHUNK", 100)  # two rows at a time
    weights = np.random.default_rng(0).standard_t(4, (5, 41)).astype(np.float32) * np.float32(magnitude)
    weights[1] = 0
    layer = Layer("linear", weights.shape)
    with np.errstate(over="ignore"):
        for action in ACTIONS:
            got = approximate(torch.from_numpy(weights), action, layer).numpy()
            np.testing.assert_array_equal(got, reference(weights, action), err_msg=repr(action))


def moments(layer: Layer) -> tuple[LayerStatistics, torch.Tensor]:
    """Statistics with very uneven inputs, and the weights of the errors [rows, columns] that they mean."""
    x = torch.randn(layer.groups, 50, layer.columns, dtype=torch.float64)
    x *= torch.linspace(-3, 3, layer.columns).exp()
    moment = x.transpose(1, 2) @ x / 50
    each = moment.diagonal(dim1=1, dim2=2)
    return LayerStatistics(input_moment=moment), (each / each.mean()).repeat_interleave(layer.rows // layer.groups, 0)


@pytest.mark.parametrize("layer", [Layer("linear", (3, 37)), Layer("conv2d", (6, 2, 3, 3), groups=3)], ids=str)
def test_weighted_by_the_inputs(layer: Layer) -> None:
    statistics, importance = moments(layer)
    weight = torch.randn(layer.weight_shape)
    matrix = weight.view(layer.rows, -1)
    for action in ACTIONS:
        if action.method != "mse":
            continue
        weighted = NumberFormat.from_json({**action.to_json(), "weighting": "input"})
        found = approximate(weight, weighted, layer, statistics).view_as(matrix)
        np.testing.assert_array_equal(
            found.numpy(), reference(matrix.numpy(), action, importance.float().numpy()), err_msg=repr(action)
        )
        with pytest.raises(ActionError, match="input moment, which was not given"):
            approximate(weight, weighted, layer)


def test_inputs_that_were_never_seen_count_a_little() -> None:
    layer = Layer("linear", (2, 4))
    action = NumberFormat(format="nf4", granularity="channel", method="mse", weighting="input")
    nothing = LayerStatistics(input_moment=torch.zeros(1, 4, 4, dtype=torch.float64))
    weight = torch.randn(2, 4)
    plain = NumberFormat(format="nf4", granularity="channel", method="mse")
    assert torch.equal(approximate(weight, action, layer, nothing), approximate(weight, plain, layer))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_trits_of_least_error_against_all_of_them(weighted: bool) -> None:
    layer = Layer("linear", (6, 7))
    statistics, importance = moments(layer)
    weight = torch.randn(6, 7)
    action = NumberFormat(format="ternary", scale_dtype="float32", weighting="input" if weighted else "none")
    v = importance if weighted else torch.ones(6, 7, dtype=torch.float64)
    got = (v * (approximate(weight, action, layer, statistics) - weight).double().square()).sum(1)
    for row in range(6):
        w, least = weight[row].double(), math.inf
        for codes in itertools.product((-1, 0, 1), repeat=7):
            t = torch.tensor(codes, dtype=torch.float64)
            s = float((v[row] * w * t).sum() / (v[row] * t * t).sum()) if any(codes) else 0.0
            least = min(least, float((v[row] * (w - s * t).square()).sum()))
        assert float(got[row]) == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("action", [a for a in ACTIONS if a.method == "mse"], ids=str)
def test_mse_never_loses_to_the_other_method(action: NumberFormat) -> None:
    plain = NumberFormat.from_json({**action.to_json(), "method": "twn" if action.format == "ternary" else "absmax"})
    for power in (1, 3):
        weight = torch.randn(6, 50) ** power
        errors = [(approximate(weight, a, Layer("linear", (6, 50))) - weight).double().square().sum()
                  for a in (action, plain)]  # fmt: skip
        assert errors[0] <= errors[1] * (1 + 1e-6)


def test_nf4_by_mse_turns_its_values_round_where_that_is_better() -> None:
    weight = -torch.tensor([[-1.0, *ELEMENTS["nf4"].values(torch.arange(8, 16, dtype=torch.uint8))]])
    action = NumberFormat(format="nf4", granularity="channel", method="mse", scale_dtype="float32")
    assert torch.equal(approximate(weight, action, Layer("linear", (1, 9))), weight)


def test_the_largest_weights_taken_stay_finite() -> None:
    weight = torch.tensor([[LARGEST, -LARGEST, LARGEST / 2, 0.0, 1.0, -1.0, LARGEST / 3]])
    for action in ACTIONS:
        assert approximate(weight, action, Layer("linear", (1, 7))).isfinite().all(), action


def stored(weights: Sequence[float], action: NumberFormat) -> list[int]:
    return pack(torch.tensor([weights], dtype=torch.float32), action, Layer("linear", (1, len(weights)))).tolist()


def test_layouts_by_hand() -> None:
    half = [0x00, 0x3C]  # 1.0
    nf4 = NumberFormat(format="nf4", granularity="channel")
    assert stored([-1, 1, 0, -0.7, 0.16], nf4) == [0 | 15 << 4, 7 | 1 << 4, 9, *half]
    assert stored([448, -1, 0, 17], NumberFormat(format="fp8_e4m3")) == [0x7E, 0xB8, 0x00, 0x58, *half]
    assert stored([-57344, 1], NumberFormat(format="fp8_e5m2")) == [0xFB, 0x3C, *half]
    # 2² ≤ 6 < 2³: e = 127 + 2 − 2; and 32 ones, whose block has e = 127 − 2 and holds 4 · 1/4
    mx = NumberFormat(format="mxfp4")
    assert stored([6, -3, 0.5, 0, 0.2], mx) == [0x7 | 0xD << 4, 0x1, 0x0, 127]
    assert stored([1] * 32 + [-1.5], mx) == [0x66] * 16 + [0xF, 125, 125]
    twn = NumberFormat(format="ternary", method="twn")
    assert stored([1, -1, 0.1, 1, -1, 1], twn) == [2 + 0 * 3 + 1 * 9 + 2 * 27 + 0 * 81, 2, *half]


def test_e8m0_of_tiny_weights() -> None:
    mx = NumberFormat(format="mxfp4")
    assert stored([0, 0], mx) == [0, 0]
    assert stored([2.0**-127, -(2.0**-126)], mx) == [2 | 0xC << 4, 0]  # 1 and −2 times 2^−127


def test_threads_do_not_show() -> None:
    weight = torch.randn(130, 701)
    for action in ACTIONS:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)  # the fixture of this folder puts it back
            found.append(pack(weight, action, Layer("linear", (130, 701))))
        assert torch.equal(*found), action
