"""A packed embedding gives the rows of the whole weight, bit for bit, and unpacks no others when they are few."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from allocator.applier import apply_
from allocator.applier.kinds.quantize import QuantizeKind
from allocator.engine import WITHOUT
from allocator.testing.live_bytes import LiveBytes

ROWS = 40
ACTIONS: dict[str, dict[str, Any]] = {
    **{f"{b} bits": {"kind": "quantize", "bits": b} for b in (1, 3, 4, 8)},
    "5 bits in groups": {"kind": "quantize", "bits": 5, "granularity": "group", "group_size": 3},
    "7 bits, one scale": {"kind": "quantize", "bits": 7, "scheme": "asymmetric", "granularity": "tensor"},
    "2 bits, minima": {"kind": "quantize", "bits": 2, "scheme": "asymmetric", "scale_dtype": "float32"},
    "half": {"kind": "keep", "dtype": "float16"},
    "bfloat16": {"kind": "keep", "dtype": "bfloat16"},
}
IDS = {
    "a sentence": torch.tensor([[3, 39, 3, 0], [17, 5, 5, 1]]),
    "one": torch.tensor(38),
    "short integers": torch.tensor([1, 2, 30], dtype=torch.int32),
    "none": torch.zeros(2, 0, dtype=torch.long),
    "more than there are": torch.arange(3 * ROWS) % ROWS,
}


@pytest.fixture(params=["C", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(WITHOUT, "numpy" if request.param == "torch" else "")
    return request.param


def packed(model: nn.Module, action: dict[str, Any]) -> nn.Module:
    return apply_(copy.deepcopy(model), {"e": {"action": action, "modules": [""]}}, packed=True)


def bits_of(x: Tensor) -> Tensor:
    return x.detach().contiguous().view(torch.uint8)


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
@pytest.mark.parametrize("columns", [16, 7])
def test_the_rows_of_the_whole_weight(way: str, action: dict[str, Any], columns: int) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        model = packed(nn.Embedding(ROWS, columns, padding_idx=3).to(dtype), action)
        for name, ids in IDS.items():
            wanted = nn.functional.embedding(ids, model.weight)
            found = model(ids)
            assert found.dtype == dtype
            assert found.shape == wanted.shape, name
            assert torch.equal(bits_of(found), bits_of(wanted)), name


@pytest.mark.parametrize("action", [ACTIONS["3 bits"], ACTIONS["half"]], ids=["3 bits", "half"])
def test_few_rows_need_little_memory(way: str, action: dict[str, Any]) -> None:
    model = packed(nn.Embedding(4000, 50), action)
    for count, whole in ((5, False), (4000, True)):
        ids = torch.arange(count)
        with LiveBytes() as live:
            model(ids)
        assert (live.peak >= 4000 * 50 * 4) == whole, count
        assert whole or live.peak < 20_000


def test_indices_and_dtypes_that_torch_refuses_are_refused_as_before() -> None:
    model = packed(nn.Embedding(ROWS, 4), ACTIONS["3 bits"])
    for ids in (torch.tensor([ROWS]), torch.tensor([-1])):
        with pytest.raises(IndexError, match="index out of range"):
            model(ids)
    with pytest.raises(RuntimeError, match="indices"):
        model(torch.tensor([0.5]))


class Scaled(nn.Embedding):
    """A subclass with a forward of its own."""

    def forward(self, ids: Tensor) -> Tensor:
        return 2 * super().forward(ids)


def test_a_subclass_keeps_its_forward() -> None:
    model = packed(Scaled(ROWS, 4), ACTIONS["4 bits"])
    ids = IDS["a sentence"]
    assert torch.equal(model(ids), 2 * nn.functional.embedding(ids, model.weight))


def test_tied_layers_share_the_bytes_and_only_the_embedding_looks_rows_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Embedding(ROWS, 8), nn.Linear(8, ROWS, bias=False))
    model[1].weight = model[0].weight
    ids = IDS["a sentence"]
    plain = apply_(copy.deepcopy(model), {"0": {"action": ACTIONS["3 bits"]}})
    apply_(model, {"0": {"action": ACTIONS["3 bits"]}}, packed=True)
    whole: list[int] = []
    restore = QuantizeKind.restore
    monkeypatch.setattr(QuantizeKind, "restore", lambda *args: (whole.append(1), restore(*args))[1])
    assert torch.equal(model(ids), plain(ids))
    assert len(whole) == 1
    assert model[0].packed is model[1].packed


def test_torch_func_sees_through() -> None:
    model = packed(nn.Embedding(ROWS, 4), ACTIONS["3 bits"])
    ids = IDS["a sentence"]
    assert torch.equal(torch.vmap(model)(ids), model(ids))
