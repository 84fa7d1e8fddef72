"""Which weights are units, what ties do, and that nothing of two dimensions is passed over in silence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from allocator.actions import Layer
from allocator.applier import uncovered, units
from allocator.applier.layers import ROOT
from allocator.applier.opening import Opening


def test_every_kind_is_found_in_order(convolutions: Callable[[], nn.Module]) -> None:
    found = units(convolutions())
    assert [(u.name, u.modules) for u in found] == [
        (name, (name,)) for name in ("first", "dilated", "depthwise", "line", "head")
    ]
    assert [u.layer for u in found] == [
        Layer("conv2d", (8, 3, 3, 3)),
        Layer("conv2d", (12, 8, 3, 1)),
        Layer("conv2d", (12, 1, 3, 3), groups=12),
        Layer("conv1d", (10, 12, 3)),
        Layer("linear", (5, 10)),
    ]


def test_tied_weights_are_one_unit_that_multiplies(language_model: Callable[[], nn.Module]) -> None:
    model = language_model()
    first = units(model)[0]
    assert first.modules == ("embed", "head")
    assert first.layer == Layer("linear", (17, 8))
    assert first.weight is model.embed.weight


def test_units_and_uncovered_share_out_every_matrix(language_model: Callable[[], nn.Module]) -> None:
    model = language_model()
    with Opening(model):
        covered = {id(u.weight) for u in units(model)}
        named = {u.name: u.reason for u in uncovered(model)}
        assert set(named) == {n for n, p in model.named_parameters() if p.dim() > 1 and id(p) not in covered}
    assert {u.name: u.reason for u in uncovered(model)} == named
    assert [u.name for u in units(model)][1:3] == ["block.self_attn.q_proj", "block.self_attn.k_proj"]
    assert "bare parameter of TiedLanguageModel" in named["position"]


class _Rotated(nn.Linear):
    """A subclass counts as what it derives from."""


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        (nn.ConvTranspose2d(2, 2, 3), "weight", "transposed"),
        (nn.ConvTranspose1d(2, 2, 3), "weight", "their rows are inputs"),
        (nn.LSTM(2, 3), "weight_ih_l0", "recurrent"),
        (nn.GRUCell(2, 3), "weight_ih", "recurrent"),
        (nn.EmbeddingBag(5, 2), "weight", "bags"),
        (nn.Bilinear(2, 3, 4), "weight", "bilinear"),
        (nn.Embedding(5, 2, max_norm=1.0), "weight", "max_norm"),
        (nn.LazyLinear(3), "weight", "lazy"),
        (weight_norm(nn.Linear(2, 3)), "parametrizations.weight.original1", "parametri"),
    ],
)
def test_the_reason_is_given(module: nn.Module, name: str, said: str) -> None:
    model = nn.Sequential(_Rotated(2, 2), module)
    assert [u.name for u in units(model)] == ["0"]
    assert said in {u.name: u.reason for u in uncovered(model)}[f"1.{name}"]


def test_a_layer_that_shares_its_weight_with_a_bare_parameter_is_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Module())
    model[1].register_parameter("table", model[0].weight)
    assert units(model) == ()
    assert "shared by 0.weight, 1.table" in uncovered(model)[0].reason


def test_weights_side_by_side_in_one_storage_are_not_tied() -> None:
    flat = torch.randn(24)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 3, bias=False))
    model[0].weight = nn.Parameter(flat[:12].view(4, 3))
    model[1].weight = nn.Parameter(flat[12:].view(3, 4))
    assert [u.modules for u in units(model)] == [("0",), ("1",)]


def test_weights_that_overlap_without_being_equal_are_left_out() -> None:
    flat = torch.randn(12)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 3, bias=False))
    model[0].weight = nn.Parameter(flat.view(4, 3))
    model[1].weight = nn.Parameter(flat.view(3, 4))
    assert units(model) == ()
    assert "overlap" in uncovered(model)[0].reason


def test_a_tie_between_different_groups_is_left_out() -> None:
    model = nn.Sequential(nn.Conv1d(4, 4, 3, groups=2), nn.Conv1d(2, 4, 3))
    model[1].weight = model[0].weight
    assert units(model) == ()
    assert "different numbers of groups" in uncovered(model)[0].reason


def test_the_model_itself_may_be_the_layer() -> None:
    (unit,) = units(nn.Linear(2, 3))
    assert (unit.name, unit.modules) == (ROOT, ("",))


def test_meta_models_have_units_too() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    assert [u.name for u in units(model)] == ["0", "1"]
