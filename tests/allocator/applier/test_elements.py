"""Every format rounds to its nearest value, ties and ends included; its values are those of its definition."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import pytest
import torch

from allocator.applier.elements import ELEMENTS, NF4, Codebook


def minifloat(exponent: int, mantissa: int, bias: int) -> list[float]:
    """The values of codes 0, 1, … without a sign, specials counted as numbers."""
    found = []
    for code in range(2 ** (exponent + mantissa)):
        e, m = code >> mantissa, (code & (2**mantissa - 1)) / 2**mantissa
        found.append(math.ldexp(m, 1 - bias) if e == 0 else math.ldexp(1 + m, e - bias))
    return found


E4M3 = minifloat(4, 3, 7)[:-1]  # the last is NaN
E5M2 = minifloat(5, 2, 15)[:-4]  # infinity and NaNs
E2M1 = minifloat(2, 1, 1)


def signed(values: list[float], sign: int) -> dict[int, float]:
    return dict(enumerate(values)) | {code | sign: -value for code, value in enumerate(values)}


VALUES: dict[str, dict[int, float]] = {
    "nf4": dict(enumerate(torch.tensor(NF4).tolist())),
    "fp8_e4m3": signed(E4M3, 0x80),
    "fp8_e5m2": signed(E5M2, 0x80),
    "mxfp4": signed(E2M1, 8),
    "ternary": {0: -1.0, 1: 0.0, 2: 1.0},
}


def test_the_ranges_are_those_of_the_specifications() -> None:
    assert (E4M3[-1], E5M2[-1], E2M1) == (448, 57344, [0, 0.5, 1, 1.5, 2, 3, 4, 6])
    assert [ELEMENTS[name].largest for name in VALUES] == [1, 448, 57344, 6, 1]


def test_nf4_is_quantiles_of_the_normal_distribution() -> None:
    quantile = NormalDist().inv_cdf
    offset = 0.9677083  # 1 − (1/32 + 1/30)/2 of the paper
    steps = [[offset + (0.5 - offset) * k / n for k in range(n)] for n in (8, 7)]
    above, below = ([quantile(p) for p in side] for side in steps)
    wanted = sorted([*(-v for v in below), 0.0, *above])
    assert [v / above[0] for v in wanted] == pytest.approx(list(NF4), abs=3e-7)


@pytest.mark.parametrize("name", VALUES)
def test_codes_stand_for_the_values(name: str) -> None:
    codes = torch.tensor(list(VALUES[name]), dtype=torch.uint8)
    wanted = torch.tensor(list(VALUES[name].values()))
    assert torch.equal(ELEMENTS[name].values(codes), wanted)
    assert torch.equal(ELEMENTS[name].values(ELEMENTS[name].codes(wanted)), wanted)


@pytest.mark.parametrize("name", VALUES)
def test_numbers_go_to_the_nearest_value_and_ties_to_the_even_code(name: str) -> None:
    values = sorted(set(VALUES[name].values()))
    halves = [(a + b) / 2 for a, b in itertools.pairwise(values)]
    some = torch.tensor(halves)
    x = torch.cat([some, some.nextafter(torch.tensor(math.inf)), some.nextafter(torch.tensor(-math.inf))])
    x = torch.cat([x, 3 * torch.randn(500) * values[-1] / 4, torch.tensor([0.0, 1e6, -1e6, 1e-40])])
    got = ELEMENTS[name].codes(x)
    for number, code in zip(x.tolist(), got.tolist(), strict=True):
        near = min(abs(value - number) for value in values)
        allowed = [c for c, value in VALUES[name].items() if abs(value - number) == near]
        assert code in allowed
        if len({VALUES[name][c] for c in allowed}) > 1:
            assert VALUES[name][code] == 0 if name == "ternary" else code % 2 == 0


def test_a_codebook_of_uneven_values_and_any_shape() -> None:
    values, codes = (-3.0, -0.125, 0.0, 1e-3, 7.0), (4, 0, 1, 2, 3)
    book = Codebook(values, codes, 3)
    x = torch.randn(3, 5, 7).mul_(3)
    wanted = (x.unsqueeze(-1) - torch.tensor(values)).abs().argmin(-1)
    assert torch.equal(book.codes(x), torch.tensor(codes, dtype=torch.uint8)[wanted])
    assert torch.equal(book.values(book.codes(x)), torch.tensor(values)[wanted])
    assert book.values(torch.tensor([[5, 7]], dtype=torch.uint8)).tolist() == [[0, 0]]
