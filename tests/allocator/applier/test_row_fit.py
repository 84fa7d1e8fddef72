"""Kept weights fitted again: each way of solving against one dense solve per row."""

import pytest
import torch

from allocator.actions import Keep, Layer, Prune
from allocator.applier import row_fit
from allocator.applier.row_fit import DAMPING, fit, metric, rough_fit
from allocator.applier.statistics import LayerStatistics
from allocator.applier.weight import Weight

ACTION = Prune(pattern="unstructured", density=0.4, values=Keep(), weighting="input", compensate=True)


@pytest.fixture(params=[1e-12, 1.0, 1e9])
def case(request):
    """A grouped convolution whose inputs hang together closely, in units small and large, and which weights stay."""
    g = torch.Generator().manual_seed(4)
    layer = Layer("conv2d", (6, 10, 3, 3), groups=2)
    x = torch.randn(2, 70, layer.columns, generator=g) @ torch.randn(2, layer.columns, layer.columns, generator=g)
    moment = (x.transpose(1, 2) @ x / 70 * request.param**2).float()
    weight = Weight(torch.randn(layer.weight_shape, generator=g), layer, LayerStatistics(input_moment=moment))
    mask = torch.rand(layer.rows, layer.columns, generator=g) < 0.4
    mask[1] = False
    mask[2] = True
    mask[3] = torch.rand(layer.columns, generator=g) < 0.8
    return weight, mask


def dense(weight, mask):
    """ŵ_S = H_SS⁻¹ (H w)_S of each row, one after the other."""
    inner, found = metric(weight, ACTION), torch.zeros(mask.shape, dtype=torch.float64)
    for row, keep in enumerate(mask):
        h = inner[row // (len(mask) // len(inner))]
        wanted = h @ weight.matrix[row].double()
        found[row, keep] = torch.linalg.solve(h[keep][:, keep], wanted[keep])
    return found


@pytest.mark.parametrize("exact", [True, False])
def test_the_fit_is_that_of_a_dense_solve(case, exact, monkeypatch):
    monkeypatch.setattr(row_fit, "EXACT_COLUMNS", 600 if exact else 0)
    torch.testing.assert_close(fit(*case, ACTION), dense(*case), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("start", ["weights", "zero"])
def test_the_rough_fit_has_some_of_its_digits_wherever_it_begins(case, start, wide, monkeypatch):
    if wide:
        monkeypatch.setattr(row_fit, "EXACT_COLUMNS", 0)
    monkeypatch.setattr(row_fit, "ROUGH_COLUMNS", 0)
    weight, mask = case
    near = weight.matrix if start == "weights" else torch.zeros_like(weight.matrix)
    found, wanted = rough_fit(weight, mask, ACTION, near).double(), dense(weight, mask)
    assert bool((found[~mask] == 0).all())
    assert float((found - wanted).norm() / wanted.norm()) < 1e-2


def test_where_float32_has_too_few_digits_the_rough_fit_is_the_fit(case, monkeypatch):
    monkeypatch.setattr(row_fit, "EXACT_COLUMNS", 0)
    monkeypatch.setattr(row_fit, "ROUGH_COLUMNS", 0)
    cholesky = torch.linalg.cholesky

    def failing(matrix):
        if matrix.dtype == torch.float32:
            raise torch.linalg.LinAlgError("not positive-definite")
        return cholesky(matrix)

    monkeypatch.setattr(torch.linalg, "cholesky", failing)
    assert torch.equal(rough_fit(*case, ACTION, case[0].matrix), fit(*case, ACTION))


@pytest.mark.parametrize("large", [1, 1000])
def test_how_a_matrix_is_cut_out_does_not_show(case, large, monkeypatch):
    before = fit(*case, ACTION)
    monkeypatch.setattr(row_fit, "_LARGE", large)
    assert torch.equal(fit(*case, ACTION), before)


def test_the_metric_is_the_moment_in_a_unit_of_its_own(case):
    inner = metric(case[0], ACTION)
    torch.testing.assert_close(
        inner.diagonal(dim1=1, dim2=2).mean(1), torch.full((2,), 1 + DAMPING, dtype=torch.float64)
    )
