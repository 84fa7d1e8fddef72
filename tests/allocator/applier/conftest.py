"""Small models that between them have every kind of layer, and a torch that does not fight over cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from allocator.applier import LayerStatistics, units


@pytest.fixture(autouse=True)
def one_thread_and_a_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


class Convolutions(nn.Module):
    """Strides, paddings, dilation, groups, a one-dimensional branch, a norm with running state."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.dilated = nn.Conv2d(8, 12, (3, 1), padding="same", dilation=2, padding_mode="circular", bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, 3, groups=12)
        self.line = nn.Conv1d(12, 10, 3, stride=2, padding=2)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.relu(self.dilated(torch.relu(self.first(x)))))
        x = torch.relu(self.line(self.depthwise(x).flatten(2)))
        return self.head(x.mean(-1))


class TiedLanguageModel(nn.Module):
    """An embedding with a padding index whose weight is the output layer's too, and attention in between."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, 8, padding_idx=0)
        self.position = nn.Parameter(torch.randn(1, 6, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 17, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.ones(3, 3), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.block(self.embed(ids) + self.position))


@pytest.fixture
def convolutions() -> Callable[[], Convolutions]:
    return Convolutions


@pytest.fixture
def language_model() -> Callable[[], TiedLanguageModel]:
    return TiedLanguageModel


@pytest.fixture
def made_up() -> Callable[[nn.Module], dict[str, LayerStatistics]]:
    """Statistics of all layers of a model but embeddings, of random inputs."""

    def make(model: nn.Module) -> dict[str, LayerStatistics]:
        draw, found = torch.Generator().manual_seed(3), {}
        for unit in units(model):
            layer = unit.layer
            x = torch.randn(layer.groups, 40, layer.columns, generator=draw, dtype=torch.float64) + 0.5
            found[unit.name] = LayerStatistics(input_moment=x.transpose(1, 2) @ x / 40, input_mean=x.mean(1))
        return found

    return make


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 14, 14, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, 17, (4, 6), generator=torch.Generator().manual_seed(1))
