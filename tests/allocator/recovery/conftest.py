"""Small networks with norms, shared weights and padding, compressed so coarsely that there is something to recover."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from allocator.applier import apply_, units
from allocator.workload import Workload

HALF = {"kind": "keep", "dtype": "float16"}
ACTIONS: list[dict[str, Any]] = [
    {"kind": "quantize", "bits": 2},
    {"kind": "quantize", "bits": 3, "scheme": "asymmetric", "granularity": "group", "group_size": 4},
    {"kind": "low_rank", "rank": 2, "left": HALF, "right": {"kind": "quantize", "bits": 4}},
    {"kind": "number_format", "format": "mxfp4"},
    {"kind": "number_format", "format": "ternary"},
]


@pytest.fixture(autouse=True)
def one_thread_and_a_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8, momentum=0.3)
        self.hidden, self.drop = nn.Linear(8, 12), nn.Dropout(0.5)
        self.last = nn.LayerNorm(12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.middle(self.stem(x))))
        return self.head(self.last(self.drop(torch.relu(self.hidden(x.mean((2, 3)))))))


class Texts(nn.Module):
    """An embedding tied to the head, and attention whose four matrices are bare parameters until they are opened."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.block(self.embed(input_ids), src_key_padding_mask=attention_mask == 0))


def _texts(generator: torch.Generator, rows: int) -> dict[str, Tensor]:
    mask = (torch.arange(7) < 7 - torch.arange(rows).unsqueeze(1) % 3).long()
    return {"input_ids": torch.randint(11, (rows, 7), generator=generator), "attention_mask": mask}


def make_workload(name: str) -> Workload:
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(1)
    if name == "texts":
        texts = [_texts(generator, rows) for rows in (16, 16, 12, 20)]
        return Workload(Texts().eval(), texts[:3], texts[3:], "causal_lm", name)

    def images(rows: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(rows, 2, 9, 9, generator=generator) * 2 + 0.5
        return x, torch.randint(5, (rows,), generator=generator)

    model = Images()
    with torch.no_grad():
        for _ in range(20):
            model(images(64)[0])  # running statistics worth having
        model.head.weight.mul_(4)
    return Workload(model.eval(), [images(rows) for rows in (24, 24, 24, 8)], [images(40)], "classification", name)


def allocation(model: nn.Module) -> dict[str, Any]:
    return {
        unit.name: {"action": ACTIONS[place % len(ACTIONS)], "modules": list(unit.modules)}
        for place, unit in enumerate(units(model))
    }


@pytest.fixture(params=["images", "texts"])
def workload(request: pytest.FixtureRequest) -> Workload:
    return make_workload(request.param)


@pytest.fixture
def images() -> Workload:
    return make_workload("images")


@pytest.fixture
def texts() -> Workload:
    return make_workload("texts")


@pytest.fixture
def allocated() -> Callable[[nn.Module], dict[str, Any]]:
    """An allocation that gives the layers different actions in turn."""
    return allocation


@pytest.fixture
def compressed() -> Callable[..., nn.Module]:
    """A packed copy of a workload's network, in a dtype."""

    def make(workload: Workload, dtype: torch.dtype = torch.float32) -> nn.Module:
        return apply_(copy.deepcopy(workload.model).to(dtype), allocation(workload.model), packed=True)

    return make
