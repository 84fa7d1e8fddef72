"""Scales of least squared error against every breakpoint and every code, and clipping against the paper's table."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from allocator.actions import Layer, Quantize
from allocator.applier import approximate
from allocator.applier.clipping import gaussian, laplace
from allocator.applier.quantizer import encode
from allocator.applier.scales import fit

SHARED = [
    {"granularity": "tensor"},
    {"granularity": "channel"},
    {"granularity": "group", "group_size": 7},
]


def spread(name: str, rows: int, columns: int) -> Tensor:
    drawn = {
        "gauss": torch.randn,
        "laplace": lambda *shape: torch.distributions.Laplace(0.0, 1.0).sample(shape),
        "student": lambda *shape: torch.distributions.StudentT(4.0).sample(shape),
        "one-sided": lambda *shape: torch.rand(*shape) ** 4 + 0.3,
    }
    return drawn[name](rows, columns)


def error(weight: Tensor, action: Quantize) -> Tensor:
    """Squared error of each row."""
    made = approximate(weight, action, Layer("linear", tuple(weight.shape)))
    return (made.double() - weight.double()).square().sum(1)


@pytest.mark.parametrize("magnitude", [1.0, 1e-30, 1e30, 1e-6])
@pytest.mark.parametrize("rounding", ["nearest", "floor"])
def test_mse_never_loses_to_rtn(magnitude: float, rounding: str) -> None:
    weight = torch.randn(6, 50) ** 3 * magnitude
    weight[2] = 0
    for bits, scheme, shared, dtype in itertools.product(
        range(1, 9), ("symmetric", "asymmetric"), SHARED, ("float16", "float32")
    ):
        if rounding == "floor" and bits == 1 and scheme == "symmetric":
            continue
        plain = Quantize(bits=bits, scheme=scheme, scale_dtype=dtype, rounding=rounding, **shared)
        searched = replace(plain, method="mse")
        assert error(weight, searched).sum() <= error(weight, plain).sum() * (1 + 1e-6), searched


def least_symmetric(row: np.ndarray, bits: int) -> float:
    """The least squared error of any scale: between two breakpoints the codes stand still and the best scale is known.

    |w| has code k rather than k − 1 where the scale is below |w| / (k − ½).
    """
    q = 2 ** (bits - 1) - 1
    least = square = float(np.square(row).sum())
    product = codes = 0.0
    for _, size, k in sorted(((abs(w) / (k - 0.5), abs(w), k) for w in row for k in range(1, q + 1)), reverse=True):
        product, codes = product + size, codes + 2 * k - 1
        least = min(least, square - product * product / codes)
    return least


@pytest.mark.parametrize("name", ["gauss", "laplace", "student"])
@pytest.mark.parametrize(("bits", "factor"), [(2, 1.0005), (3, 1.002), (4, 1.005), (5, 1.01), (6, 1.02)])
def test_mse_is_near_the_least_error_of_any_scale(name: str, bits: int, factor: float) -> None:
    weight = spread(name, 8, 120)
    found = error(weight, Quantize(bits=bits, method="mse"))
    least = np.array([least_symmetric(row, bits) for row in weight.double().numpy()])
    assert found.sum() <= least.sum() * factor
    assert (found.numpy() >= least * (1 - 1e-6)).all()
    assert error(weight, Quantize(bits=bits)).sum() > least.sum() * 1.02


def test_asymmetric_mse_is_near_the_least_error_of_any_codes() -> None:
    weight = torch.cat([spread(name, 10, 5) for name in ("gauss", "laplace", "one-sided")])
    found = error(weight, Quantize(bits=2, scheme="asymmetric", method="mse", scale_dtype="float32"))
    least = np.full(len(weight), np.inf)
    for codes in itertools.product(range(4), repeat=5):
        basis = np.stack([np.ones(5), np.array(codes, float)], 1)
        left = weight.double().numpy() @ (np.eye(5) - basis @ np.linalg.pinv(basis))
        least = np.minimum(least, np.square(left).sum(1))
    assert (found.numpy() >= least * (1 - 1e-6)).all()
    assert found.sum() <= 1.15 * least.sum()
    assert error(weight, Quantize(bits=2, scheme="asymmetric")).sum() > 1.4 * least.sum()


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_weighted_scales_make_the_weighted_error_least(scheme: str) -> None:
    weight, weights = torch.randn(20, 1, 60), torch.rand(20, 1, 60) ** 6 + 0.001
    action = Quantize(bits=3, scheme=scheme, method="mse", scale_dtype="float32")

    def weighted(scale: Tensor, minimum: Tensor | None) -> float:
        step, low = scale.unsqueeze(2), 0 if minimum is None else minimum.unsqueeze(2)
        bottom, top = (-3, 3) if minimum is None else (0, 7)
        made = ((weight - low) / step).round().clamp(bottom, top) * step + low
        return float(((made - weight).square() * weights).double().sum())

    found = weighted(*fit(weight, action, weights))
    assert found < 0.85 * weighted(*fit(weight, action))
    scale, minimum = fit(weight, action, weights)
    for factor in np.linspace(0.5, 1.5, 41):
        assert found <= weighted(scale * float(factor), minimum) * (1 + 1e-6)


def test_many_scales_are_found_as_one_by_one() -> None:
    weight = torch.randn(300, 400)
    action = Quantize(bits=4, method="mse", granularity="group", group_size=64)
    whole = encode(weight, action)
    for row in (0, 163, 164, 299):
        alone = encode(weight[row : row + 1], action)
        assert torch.equal(whole.scales[row : row + 1], alone.scales)
        assert torch.equal(whole.codes[row : row + 1], alone.codes)


def test_clipping_is_that_of_the_paper() -> None:
    # Banner et al. 2018, section 3, for 2, 3 and 4 bits: cells of 2α/2^bits
    assert [laplace(2**bits) for bits in (2, 3, 4)] == pytest.approx([2.83, 3.89, 5.03], abs=0.01)
    assert [gaussian(2**bits) for bits in (2, 3, 4)] == pytest.approx([1.71, 2.15, 2.55], abs=0.01)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("name", ["gauss", "laplace"])
def test_aciq_number_by_number(name: str, bits: int) -> None:
    weight = spread(name, 4, 500)
    weight[1] += 0.7
    q, levels = 2 ** (bits - 1) - 1, 2**bits - 1
    for row in weight:
        values = [float(w) for w in row]
        scale, _ = fit(row.view(1, 1, -1), Quantize(bits=bits, method="aciq", scale_dtype="float32"))
        assert float(scale) == pytest.approx(clipped(values, 0.0, 2 * q) / q, rel=1e-6)
        centre = math.fsum(values) / len(values)
        action = Quantize(bits=bits, method="aciq", scale_dtype="float32", scheme="asymmetric")
        scale, minimum = fit(row.view(1, 1, -1), action)
        reach = clipped(values, centre, levels)
        low, high = max(min(values), centre - reach), min(max(values), centre + reach)
        assert minimum is not None
        assert float(minimum) == pytest.approx(low, rel=1e-6)
        assert float(scale) == pytest.approx((high - low) / levels, rel=1e-6)


def clipped(values: list[float], centre: float, steps: int) -> float:
    mean = math.fsum(abs(v - centre) for v in values) / len(values)
    deviation = math.sqrt(math.fsum((v - centre) ** 2 for v in values) / len(values))
    likelihoods = -math.log(2 * mean) - 1, -0.5 * math.log(2 * math.pi * deviation**2) - 0.5
    reach = laplace(steps) * mean if likelihoods[0] > likelihoods[1] else gaussian(steps) * deviation
    return min(reach, max(abs(v) for v in values)) if centre == 0.0 else reach


@pytest.mark.parametrize(("name", "bits"), [("gauss", 2), ("gauss", 3), ("laplace", 2), ("laplace", 3)])
def test_aciq_is_close_to_the_search_on_what_it_assumes(name: str, bits: int) -> None:
    weight = spread(name, 16, 600)
    rtn, mse, aciq = (error(weight, Quantize(bits=bits, method=m)).sum() for m in ("rtn", "mse", "aciq"))
    assert mse <= aciq <= 1.03 * mse < 0.6 * rtn


def test_a_row_of_zeros_stays_zero_under_aciq_and_mse() -> None:
    for scheme, method in itertools.product(("symmetric", "asymmetric"), ("aciq", "mse")):
        made = approximate(torch.zeros(2, 9), Quantize(bits=3, scheme=scheme, method=method), Layer("linear", (2, 9)))
        assert not made.any()
