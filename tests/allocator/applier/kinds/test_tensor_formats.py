"""Tensor formats against dense references: what the parts are, what they compute, how good and how stable they are."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from allocator.actions import Cp, Keep, Layer, Quantize, TensorFormat, Tt, Tucker2, parse
from allocator.applier import Approximator, LayerStatistics, apply_, approximate, compress, units
from allocator.applier.kinds import kind_of
from allocator.applier.kinds.cp import LARGEST
from allocator.errors import ActionError, UnavailableError

pytest.importorskip("tensorly")

EXACT: dict[str, Any] = dict.fromkeys(("first", "core", "last"), Keep())
INT8: dict[str, Any] = dict.fromkeys(("first", "core", "last"), Quantize(bits=8))
CONV = Layer("conv2d", (8, 6, 3, 2))
ALL: tuple[TensorFormat, ...] = (
    Tucker2(rank_out=5, rank_in=4, **EXACT),
    Cp(rank=6, **EXACT),
    Cp(rank=6, kernel="whole", **EXACT),
    Tt(ranks=(5, 6, 4), **EXACT),
)


def ids(action: TensorFormat) -> str:
    return action.kind + ("_whole" if getattr(action, "kernel", "") == "whole" else "")


def weight_of(layer: Layer, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(layer.weight_shape, generator=torch.Generator().manual_seed(seed)) * scale


def error(
    weight: Tensor, action: TensorFormat, layer: Layer = CONV, statistics: LayerStatistics | None = None
) -> float:
    made = approximate(weight, action, layer, statistics).double()
    return float(((made - weight.double()) ** 2).sum() / (weight.double() ** 2).sum())


def numbers(parts: dict[str, Tensor], action: TensorFormat) -> np.ndarray[Any, Any]:
    """The product of the parts of a layer [8, 6, 3, 2], number by number."""
    o, i, h, w = CONV.weight_shape
    made = np.zeros(CONV.weight_shape)
    first, *cores, last = (part.double().numpy() for part in parts.values())
    for a, b, y, x in itertools.product(range(o), range(i), range(h), range(w)):
        if isinstance(action, Tucker2):
            core = cores[0].reshape(5, 4, h, w)
            made[a, b, y, x] = sum(last[a, p] * core[p, q, y, x] * first[q, b] for p in range(5) for q in range(4))
        elif isinstance(action, Cp) and action.kernel == "whole":
            made[a, b, y, x] = sum(last[a, r] * cores[0][r, y * w + x] * first[r, b] for r in range(6))
        elif isinstance(action, Cp):
            made[a, b, y, x] = sum(last[a, r] * cores[0][r, x] * cores[1][r, y] * first[r, b] for r in range(6))
        else:  # the last dimension of the kernel runs first
            inner, outer = cores[0].reshape(6, 4, w), cores[1].reshape(5, 6, h)
            made[a, b, y, x] = last[a] @ outer[:, :, y] @ inner[:, :, x] @ first[:, b]
    return made


@pytest.mark.parametrize("action", ALL, ids=ids)
def test_the_weight_is_the_product_of_the_stored_parts(action: TensorFormat) -> None:
    approximator = Approximator(weight_of(CONV), CONV)
    parts = approximator.parts(action)
    assert [(name, *part.shape) for name, part in parts.items()] == [
        (part.name, part.layer.rows, part.layer.columns) for part in action.parts(CONV)
    ]
    np.testing.assert_allclose(approximator.approximate(action).numpy(), numbers(parts, action), atol=2e-6)


@pytest.mark.parametrize("action", ALL, ids=ids)
def test_parts_have_even_sizes_and_fixed_signs(action: TensorFormat) -> None:
    first, *cores, last = Approximator(weight_of(CONV), CONV).parts(action).values()
    norms = torch.stack([part.norm() for part in (first, *cores, last)])
    torch.testing.assert_close(norms, norms.mean().expand_as(norms))
    assert bool((last.gather(0, last.abs().argmax(0, keepdim=True)) > 0).all())
    if isinstance(action, Cp):
        for part in cores:
            torch.testing.assert_close(part.norm(dim=1), last.norm(dim=0))
            assert bool((part.gather(1, part.abs().argmax(1, keepdim=True)) > 0).all())
        sizes = last.norm(dim=0)
        assert torch.equal(sizes, sizes.sort(descending=True).values)


MODULES: tuple[tuple[nn.Module, tuple[int, ...]], ...] = (
    (nn.Conv2d(6, 8, 3, stride=2, padding=1), (2, 6, 11, 9)),
    (nn.Conv2d(6, 8, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(1, 2), padding_mode="reflect"), (2, 6, 11, 9)),
    (nn.Conv2d(6, 8, (3, 4), padding="same", dilation=(2, 1), padding_mode="circular", bias=False), (2, 6, 11, 9)),
    (nn.Conv2d(6, 8, (3, 4), padding="same"), (6, 11, 9)),
    (nn.Conv2d(6, 8, (1, 3), stride=2, padding=(2, 1)), (2, 6, 11, 9)),
    (nn.Conv1d(6, 8, 5, stride=3, padding=2, padding_mode="replicate"), (2, 6, 20)),
    (nn.Conv3d(6, 8, (2, 1, 3), stride=(1, 2, 2), padding=(1, 2, 1)), (2, 6, 5, 7, 9)),
    (nn.Conv3d(6, 8, (2, 3, 3), stride=(1, 2, 2), padding="valid"), (6, 5, 7, 9)),
)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kind", ["tucker2", "cp", "cp_whole", "tt"])
@pytest.mark.parametrize(("module", "shape"), MODULES)
def test_running_part_by_part_is_running_the_product(module: nn.Module, shape: tuple[int, ...], kind: str) -> None:
    model = nn.Sequential(copy.deepcopy(module))
    (unit,) = units(model)
    longer = sum(size > 1 for size in unit.layer.weight_shape[2:])
    action = {
        "tucker2": Tucker2(rank_out=5, rank_in=4, **EXACT),
        "cp": Cp(rank=7, **EXACT),
        "cp_whole": Cp(rank=7, kernel="whole", **EXACT),
        "tt": Tt(ranks=(5,) * longer + (4,), **EXACT),
    }[kind]
    x = torch.randn(shape)
    by_hand = copy.deepcopy(model)
    by_hand[0].weight.data.copy_(approximate(unit.weight, action, unit.layer))
    plain = apply_(copy.deepcopy(model), {"0": {"action": action.to_json()}})
    packed = apply_(copy.deepcopy(model), {"0": {"action": action.to_json()}}, packed=True)
    torch.testing.assert_close(plain(x), by_hand(x), atol=1e-5, rtol=1e-5)
    assert torch.equal(plain(x), packed(x))
    assert torch.equal(plain[0].weight, by_hand[0].weight)
    assert not torch.allclose(plain(x), model(x), atol=1e-2)


FULL = (
    Tucker2(rank_out=8, rank_in=6, **EXACT),
    Tt(ranks=(8, 12, 6), **EXACT),
    Cp(rank=36, kernel="whole", **EXACT),
)


@pytest.mark.parametrize("action", FULL, ids=ids)
def test_the_largest_ranks_give_the_weight_back(action: TensorFormat) -> None:
    assert error(weight_of(CONV), action) < (1e-3 if isinstance(action, Cp) else 1e-12)


def product_of_rank(rank: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    factors = [torch.randn(n, rank, generator=g) for n in (16, 12, 3, 3)]
    return torch.einsum("ar,br,cr,dr->abcd", *factors)


THREE = (Cp(rank=3, **EXACT), Tucker2(rank_out=3, rank_in=3, **EXACT), Tt(ranks=(3, 3, 3), **EXACT))


@pytest.mark.parametrize("action", THREE, ids=ids)
@pytest.mark.parametrize("seed", range(6))
def test_a_weight_of_the_format_is_found(action: TensorFormat, seed: int) -> None:
    given = product_of_rank(3, seed)
    assert error(given, action, Layer("conv2d", tuple(given.shape))) < 1e-4


def singular(unfolded: np.ndarray[Any, Any], rank: int) -> tuple[np.ndarray[Any, Any], float]:
    """The leading left singular vectors of a matrix, and what they leave of its square."""
    u, s, _ = np.linalg.svd(unfolded, full_matrices=False)
    return u[:, :rank], float((s[rank:] ** 2).sum())


def test_tucker2_is_within_its_bounds_and_better_than_its_start() -> None:
    layer = Layer("conv2d", (16, 12, 3, 3))
    given = weight_of(layer)
    dense = given.double().numpy()
    found = error(given, Tucker2(rank_out=6, rank_in=5, **EXACT), layer) * (dense**2).sum()
    out, rest_out = singular(dense.reshape(16, -1), 6)
    into, rest_in = singular(dense.swapaxes(0, 1).reshape(12, -1), 5)
    start = (dense**2).sum() - (np.einsum("oikl,op,iq->pqkl", dense, out, into) ** 2).sum()
    assert max(rest_out, rest_in) < found < start <= rest_out + rest_in


def test_a_tensor_train_is_within_the_bound_of_its_truncations() -> None:
    layer, ranks = Layer("conv2d", (16, 12, 3, 3)), (9, 8, 7)
    given = weight_of(layer)
    dense = np.moveaxis(given.double().numpy(), 1, -1)
    rest = [singular(dense.reshape(math.prod(dense.shape[: i + 1]), -1), r)[1] for i, r in enumerate(ranks)]
    found = error(given, Tt(ranks=ranks, **EXACT), layer) * (dense**2).sum()
    assert max(rest) <= found <= sum(rest) + 1e-6


@pytest.mark.parametrize("kernel", ["separable", "whole"])
def test_components_that_cancel_are_held_small(kernel: str) -> None:
    g = torch.Generator().manual_seed(3)
    x, y = torch.randn(2, 8, generator=g)
    triple = [(x, x, y), (x, y, x), (y, x, x)]  # rank 3, but any close to it of rank 2: components run to infinity
    given = sum(torch.einsum("a,b,c->abc", p, q, r[:4]) for p, q, r in triple).view(8, 8, 2, 2)
    layer = Layer("conv2d", (8, 8, 2, 2))
    first, *cores, last = Approximator(given, layer).parts(Cp(rank=6, kernel=kernel, **EXACT)).values()
    sizes = math.prod([first.norm(dim=1), last.norm(dim=0), *(core.norm(dim=1) for core in cores)], start=torch.ones(6))
    assert float(sizes.max()) <= LARGEST * float(given.norm())
    exact, rounded = (error(given, Cp(rank=6, kernel=kernel, **stored), layer) for stored in (EXACT, INT8))
    assert exact < 0.1
    assert abs(rounded - exact) < 0.01


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("action", ALL, ids=ids)
def test_the_last_part_makes_good_what_rounding_took(action: TensorFormat, weighted: bool) -> None:
    layer, given = CONV, weight_of(CONV)
    moment = torch.cov(torch.randn(36, 100, generator=torch.Generator().manual_seed(1))).double()
    statistics = LayerStatistics(input_moment=moment.unsqueeze(0)) if weighted else None
    if weighted:
        action = replace(action, weighting="input")
    four = replace(action, first=Quantize(bits=3), core=Quantize(bits=4))
    exact = Approximator(given, layer, statistics).parts(action)
    stored = Approximator(given, layer, statistics).parts(four)
    rounded = {
        part.name: approximate(exact[part.name], part.action, part.layer) for part in four.parts(layer)
    }  # last is kept as it is
    assert all(torch.equal(stored[name], rounded[name]) for name in list(stored)[:-1])
    # The dense reference: every row of the weight regressed on what the stored parts can make, where outputs count.
    root = np.linalg.cholesky(moment.numpy()) if weighted else np.eye(36)
    count = stored["last"].shape[1]
    made = [numbers({**stored, "last": torch.eye(count)[r].expand(8, -1)}, action)[0] for r in range(count)]
    basis = np.stack([one.ravel() for one in made]) @ root
    wanted = given.double().numpy().reshape(8, -1) @ root

    def missing(last: Any) -> float:
        return float(((wanted - np.asarray(last, np.float64) @ basis) ** 2).sum())

    best = missing(np.linalg.lstsq(basis.T, wanted.T, rcond=None)[0].T)
    assert best <= missing(stored["last"].numpy()) < best * (1 + 1e-4) < missing(rounded["last"].numpy())


@pytest.mark.parametrize("action", ALL, ids=ids)
@pytest.mark.parametrize("scale", [1e-30, 1e-7, 1.0, 1e30])
def test_magnitudes_do_not_matter(action: TensorFormat, scale: float) -> None:
    given, larger = weight_of(CONV), weight_of(CONV, scale=scale)
    assert error(larger, action) == pytest.approx(error(given, action), rel=1e-3)


@pytest.mark.parametrize("action", ALL, ids=ids)
def test_zeros_stay_zeros_and_single_numbers_stay(action: TensorFormat) -> None:
    zeros = torch.zeros(CONV.weight_shape)
    assert torch.equal(approximate(zeros, action, CONV), zeros)
    one = zeros.clone()
    one[3, 2, 1, 1] = -5
    torch.testing.assert_close(approximate(one, action, CONV), one, atol=1e-2, rtol=0)


@pytest.mark.parametrize("action", ALL, ids=ids)
def test_the_same_bytes_again_and_no_random_state_touched(action: TensorFormat) -> None:
    given = weight_of(CONV)
    before = torch.random.get_rng_state()
    np.random.seed(11)  # noqa: NPY002  # the state that tensorly would draw from, were it not given a seed
    expected = np.random.random()  # noqa: NPY002  # likewise
    np.random.seed(11)  # noqa: NPY002  # likewise
    first = Approximator(given, CONV).pack(action)
    other = Approximator(given, CONV)
    for one in ALL:  # what other ranks left in memory does not show
        other.pack(one)
    assert torch.equal(first, other.pack(action))
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.random.random() == expected  # noqa: NPY002  # likewise


@pytest.mark.parametrize("action", ALL, ids=ids)
def test_weighting_by_inputs_leaves_less_error_at_the_outputs(action: TensorFormat) -> None:
    given, channels = weight_of(CONV), 6
    g = torch.Generator().manual_seed(5)
    mixing = torch.randn(channels, channels, generator=g).double() * torch.logspace(0, -2, channels).double()[:, None]
    places = torch.eye(6).double()
    moment = torch.einsum("ij,kl->ikjl", mixing.T @ mixing, places).reshape(36, 36)  # [I, kernel] as columns run
    statistics = LayerStatistics(input_moment=moment.unsqueeze(0))
    weighted = parse(action.to_json() | {"weighting": "input"})

    def at_outputs(made: Tensor) -> float:
        off = (made.double() - given.double()).reshape(8, -1)
        return float((off @ moment * off).sum())

    plain = at_outputs(approximate(given, action, CONV))
    assert at_outputs(approximate(given, weighted, CONV, statistics)) < 0.7 * plain
    with pytest.raises(ActionError, match="input moment, which was not given"):
        approximate(given, weighted, CONV)


def test_without_tensorly_nothing_is_touched(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr("allocator.applier.kinds.kind.find_spec", lambda name: None)
    model = nn.Sequential(nn.Conv2d(6, 8, (3, 2)), nn.Linear(3, 3))
    before = [p.detach().clone() for p in model.parameters()]
    solution = {"1": {"action": {"kind": "quantize", "bits": 4}}, "0": {"action": ALL[0].to_json()}}
    for do in (lambda: apply_(model, solution), lambda: compress(model, solution, tmp_path / "x")):
        with pytest.raises(UnavailableError, match="tensorly"):
            do()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert kind_of(ALL[0]).restore is not None
