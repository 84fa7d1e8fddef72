"""Rounding with compensation against the paper's algorithm with an explicit inverse, and against every code."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from allocator.actions import Layer, Quantize
from allocator.applier import Approximator, LayerStatistics, approximate
from allocator.applier.codes import decode
from allocator.applier.compensated import _Rounding, encode_compensated
from allocator.applier.curvature import DAMPING, curvature
from allocator.applier.weight import Weight
from allocator.errors import ActionError

VARIANTS = [
    Quantize(bits=bits, scheme=scheme, method="gptq", scale_dtype=dtype, **shared)
    for bits, scheme, dtype, shared in itertools.product(
        (1, 2, 3, 4, 8),
        ("symmetric", "asymmetric"),
        ("float16", "float32"),
        ({"granularity": "tensor"}, {"granularity": "channel"}, {"granularity": "group", "group_size": 5}),
    )
]


def moment_of(seed: int, groups: int, columns: int, positions: int) -> Tensor:
    """E[x xᵀ] of inputs that depend on each other and differ in size."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(groups, positions, columns, generator=draw, dtype=torch.float64)
    x = x + x.roll(1, 2) + 0.5 * x[:, :, :1]
    x = (x * (torch.rand(groups, 1, columns, generator=draw, dtype=torch.float64) + 0.1)).clamp_min(-0.2)
    return x.transpose(1, 2) @ x / positions


def case(seed: int, rows: int, columns: int, groups: int = 1, positions: int = 60) -> tuple[Weight, Tensor]:
    moment = moment_of(seed, groups, columns, positions)
    weight = torch.randn(rows, columns, 1, generator=torch.Generator().manual_seed(seed + 1))
    layer = Layer("conv1d", (rows, columns, 1), groups=groups)
    return Weight(weight, layer, LayerStatistics(input_moment=moment)), moment


def error(made: Tensor, weight: Weight, moment: Tensor) -> float:
    """tr(Δ M Δᵀ)."""
    apart = (made - weight.matrix).double().view(moment.shape[0], -1, moment.shape[1])
    return float((apart @ moment * apart).sum())


def plain(weight: Weight, action: Quantize, method: str) -> Tensor:
    return approximate(weight.matrix.unsqueeze(2), replace(action, method=method), weight.layer).squeeze(2)


def textbook(matrix: np.ndarray, moment: np.ndarray, rounding: _Rounding) -> np.ndarray:
    """GPTQ as its paper writes it, for one group: H⁻¹ = Uᵀ U, and each column's error is taken from all later ones."""
    damped = moment + DAMPING * np.diag(moment).mean() * np.eye(len(moment))
    order = np.argsort(-np.diag(moment), kind="stable")
    upper = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left, made = matrix[:, order].copy(), np.empty_like(matrix)
    for place, column in enumerate(order):
        scale = rounding.scale[0, column // rounding.size]
        low = rounding.minimum[0, column // rounding.size]
        codes = (left[:, place] - low) / scale
        if rounding.action.scheme == "asymmetric":
            codes = np.clip(np.rint(codes), 0, 2**rounding.action.bits - 1)
        elif rounding.action.bits == 1:
            codes = np.where(codes >= 0, 1.0, -1.0)
        else:
            codes = np.clip(np.rint(codes), -rounding.origin, rounding.origin)
        made[:, column] = codes * scale + low
        share = (left[:, place] - made[:, column]) / upper[place, place]
        left[:, place + 1 :] -= np.outer(share, upper[place, place + 1 :])
    return made


@pytest.mark.parametrize("action", VARIANTS, ids=repr)
def test_feeding_errors_forward_is_gptq(action: Quantize) -> None:
    weight, moment = case(0, 6, 70)
    rounding = _Rounding(weight, action, curvature(weight, action))
    rounding.feed_forward()
    made = decode(rounding.encoded(), action)
    wanted = textbook(weight.matrix.double().numpy(), moment[0].numpy(), rounding)
    np.testing.assert_allclose(made.numpy(), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("action", VARIANTS, ids=repr)
def test_no_step_makes_the_error_larger_and_the_codes_say_what_it_is(action: Quantize) -> None:
    weight, _ = case(1, 6, 70)
    found = curvature(weight, action)
    rounding = _Rounding(weight, action, found)
    rounding.feed_forward()
    errors = [np.inf]
    for step in (rounding.descend, rounding.refit, rounding.descend, rounding.refit, rounding.descend):
        step()
        by_hand = weight.matrix.double() - decode(rounding.encoded(), action).double()
        by_hand = by_hand.numpy().T[found.order[0]]
        np.testing.assert_allclose(rounding.error[0], by_hand, atol=1e-6)
        errors.append(float((by_hand * (found.moment[0] @ by_hand)).sum()))
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(errors))


def test_descent_takes_the_best_of_all_codes_of_a_column() -> None:
    weight, _ = case(2, 4, 9)
    action = Quantize(bits=3, method="gptq", scale_dtype="float32")
    found = curvature(weight, action)
    rounding = _Rounding(weight, action, found)
    rounding.feed_forward()
    for _ in range(20):
        rounding.descend()
    errors = rounding.error[0].copy()
    least = (errors * (found.moment[0] @ errors)).sum(0)
    for j, code in itertools.product(range(9), range(-3, 4)):
        other = errors.copy()
        other[j] = rounding.weight[0, j] - code * rounding.scale[0, 0]
        assert ((other * (found.moment[0] @ other)).sum(0) >= least * (1 - 1e-9)).all()


@pytest.mark.parametrize("seed", range(50))
def test_outputs_err_less_than_after_plain_rounding(seed: int) -> None:
    draw = np.random.default_rng(seed)
    groups = int(draw.choice([1, 1, 2, 4]))
    weight, moment = case(seed, groups * int(draw.integers(1, 8)), int(draw.integers(2, 60)), groups)
    action = VARIANTS[seed % len(VARIANTS)]
    if action.group_size is not None and action.group_size > weight.layer.columns:
        action = replace(action, granularity="channel", group_size=None)
    made = error(decode(encode_compensated(weight, action), action), weight, moment)
    for method in ("rtn", "mse"):
        assert made <= error(plain(weight, action, method), weight, moment) * (1 + 1e-6), (method, action)


@pytest.mark.parametrize(("bits", "columns", "factor"), [(1, 8, 1.25), (2, 6, 1.25)])
def test_close_to_the_best_of_all_codes_on_rows_of_a_few(bits: int, columns: int, factor: float) -> None:
    levels = (-1, 1) if bits == 1 else (-1, 0, 1)
    codes = np.array(list(itertools.product(levels, repeat=columns)), float)
    ours, rtn, least = 0.0, 0.0, 0.0
    action = Quantize(bits=bits, method="gptq", scale_dtype="float32")
    for seed in range(30):
        weight, moment = case(seed, 1, columns)
        matrix, curved = weight.matrix.double().numpy()[0], moment[0].numpy()
        product, square = codes @ curved @ matrix, np.einsum("ki,ij,kj->k", codes, curved, codes)
        gains = np.divide(product**2, square, out=np.zeros_like(square), where=(square > 0) & (product > 0))
        least += float(matrix @ curved @ matrix - gains.max())
        ours += error(decode(encode_compensated(weight, action), action), weight, moment)
        rtn += error(plain(weight, action, "rtn"), weight, moment)
    assert least <= ours <= factor * least < 0.7 * rtn


def test_groups_of_a_convolution_are_rounded_each_by_its_own_inputs() -> None:
    weight, moment = case(3, 12, 18, groups=4)
    moment[2] = 0
    for action in (Quantize(bits=2, method="gptq"), Quantize(bits=3, method="gptq", scheme="asymmetric")):
        whole = encode_compensated(Weight(weight.matrix.unsqueeze(2), weight.layer, weight.statistics), action)
        for group in range(4):
            rows = slice(3 * group, 3 * group + 3)
            known = LayerStatistics(input_moment=moment[group : group + 1])
            alone = Weight(weight.matrix[rows].unsqueeze(2), Layer("conv1d", (3, 18, 1)), known)
            assert torch.equal(whole.codes[rows], encode_compensated(alone, action).codes)


def test_inputs_that_are_always_zero_and_moments_without_rank() -> None:
    matrix = torch.randn(5, 12)
    layer = Layer("linear", (5, 12))
    for moment in (torch.zeros(1, 12, 12), torch.ones(1, 12, 12), torch.diag(torch.arange(12.0)).unsqueeze(0)):
        for action in VARIANTS:
            made = approximate(matrix, action, layer, LayerStatistics(input_moment=moment.double()))
            assert made.isfinite().all()
            assert (made - matrix).abs().max() <= 3 * matrix.abs().max()
    unseen = torch.diag(torch.tensor([0.0] + [1.0] * 11, dtype=torch.float64)).unsqueeze(0)
    action = Quantize(bits=8, method="gptq")
    made = approximate(matrix, action, layer, LayerStatistics(input_moment=unseen))
    assert ((made - matrix)[:, 0].abs() <= matrix.abs().amax(1) / 127).all()


@pytest.mark.parametrize("magnitude", [1e-30, 1e-4, 1e30])
def test_magnitudes_of_weights_and_inputs_do_not_matter(magnitude: float) -> None:
    weight, moment = case(4, 4, 20)
    action = Quantize(bits=3, method="gptq", scale_dtype="float32")
    wanted = encode_compensated(weight, action).codes
    power = 2.0 ** round(np.log2(magnitude))
    for scaled, seen in ((weight.matrix * power, moment), (weight.matrix, moment * power)):
        other = Weight(scaled.unsqueeze(2), weight.layer, LayerStatistics(input_moment=seen))
        assert torch.equal(encode_compensated(other, action).codes, wanted)


def test_one_decomposition_serves_all_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    cholesky = np.linalg.cholesky

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return cholesky(*args, **kwargs)

    monkeypatch.setattr(np.linalg, "cholesky", counting)
    weight, moment = case(5, 4, 10)
    approximator = Approximator(weight.matrix, Layer("linear", (4, 10)), LayerStatistics(input_moment=moment))
    for bits in (2, 3, 4):
        action = Quantize(bits=bits, method="gptq")
        assert torch.equal(approximator.approximate(action), approximator.approximate(action))
    assert len(calls) == 1
    assert approximator.worth_keeping


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        (None, "input moment, which was not given"),
        (torch.eye(5).unsqueeze(0), r"has shape \(1, 5, 5\), but .* calls for \(1, 4, 4\)"),
        (torch.full((1, 4, 4), torch.nan), "NaN"),
        (torch.tensor([[1.0, 2e3], [2e3, 1.0]]).repeat(2, 2).unsqueeze(0), "directions of negative size"),
    ],
)
def test_moments_that_cannot_be_are_refused(moment: Tensor | None, said: str) -> None:
    known = None if moment is None else LayerStatistics(input_moment=moment.double())
    with pytest.raises(ActionError, match=said):
        approximate(torch.randn(4, 4), Quantize(bits=4, method="gptq"), Layer("linear", (4, 4)), known)
