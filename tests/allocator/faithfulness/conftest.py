"""Small networks whose evaluation data say something else than their calibration data."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from allocator.space import Space
from allocator.workload import Workload

SPACE = Space.simple(bits=(2, 3, 4), ranks=(0.5,))


class Net(nn.Module):
    """A convolution with normalisation, a residual linear layer used twice, and a head."""

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


def make(scale: float = 3.0) -> Workload:
    """A fresh workload, always the same; its evaluation images are ``scale`` times as bright."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = Net()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.3)
        nn.init.normal_(net.head.weight, std=2.0)

    def batches(seed: int, rows: tuple[int, ...], by: float) -> list[tuple[Tensor, Tensor]]:
        g = torch.Generator().manual_seed(seed)
        return [(by * torch.randn(n, 1, 5, 5, generator=g), torch.randint(4, (n,), generator=g)) for n in rows]

    return Workload(net.eval(), batches(1, (6, 4), 1.0), batches(2, (30, 20), scale), "classification", "tiny")


@pytest.fixture
def workload() -> Workload:
    return make()


@pytest.fixture
def make_workload() -> Callable[..., Workload]:
    return make


@pytest.fixture
def space() -> Space:
    return SPACE
