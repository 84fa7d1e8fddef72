"""Small networks of several kinds, with enough calibration data to be cut in two."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from allocator.problem import Problem
from allocator.profiling import profile
from allocator.space import Space
from allocator.workload import Workload

SPACE = Space.simple(bits=(2, 3, 4, 8), ranks=(0.5,))


class Tied(nn.Module):
    """A convolution with normalisation, linear layers of which two share a weight, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.body = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)])
        self.head = nn.Linear(6, 4)
        self.body[2].weight = self.body[0].weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).mean((2, 3))
        for layer in self.body:
            x = x + torch.tanh(layer(x))
        return self.head(x)


class Attends(nn.Module):
    """nn.MultiheadAttention between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.mix, self.head = nn.Linear(5, 8), nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.word(x)
        return self.head((x + self.mix(x, x, x, need_weights=False)[0]).mean(1))


class Lm(nn.Module):
    """Embedding and head share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(11, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.head(x + self.down(torch.relu(self.up(x))))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word, self.out = nn.Linear(4, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.word(x)).mean(1))


def make(name: str = "tied", rows: tuple[int, ...] = (24, 16)) -> Workload:
    """A fresh workload of that name, always the same; ``rows`` are the batches of its calibration data."""
    g = torch.Generator().manual_seed(5)

    def classes(*shape: int) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        parts = [
            [(torch.randn(n, *shape, generator=g), torch.randint(4, (n,), generator=g)) for n in sizes]
            for sizes in (rows, (9,))
        ]
        return parts[0], parts[1]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        match name:
            case "tied":
                net: nn.Module = Tied()
                nn.init.normal_(net.stem[1].running_mean, std=0.3)
                nn.init.normal_(net.head.weight, std=2.0)
                return Workload(net.eval(), *classes(1, 5, 5), "classification", name)
            case "attention":
                return Workload(Attends().eval(), *classes(3, 5), "classification", name)
            case "lm":
                data = [[torch.randint(11, (n, 6), generator=g) for n in sizes] for sizes in (rows, (9,))]
                return Workload(Lm().eval(), data[0], data[1], "causal_lm", name)
            case "embedding":
                pairs = [
                    [(torch.randn(n, 2, 3, 4, generator=g), torch.rand(n, generator=g)) for n in sizes]
                    for sizes in (rows, (4,))
                ]
                return Workload(Encoder().eval(), pairs[0], pairs[1], "embedding", name)
            case _:
                raise ValueError(name)


@pytest.fixture
def workload_of() -> Callable[..., Workload]:
    return make


@pytest.fixture
def workload() -> Workload:
    return make()


@pytest.fixture
def space() -> Space:
    return SPACE


@pytest.fixture(scope="session")
def profiled() -> Problem:
    """``ggn`` of the network ``tied``."""
    return profile(make(), SPACE, "ggn")
