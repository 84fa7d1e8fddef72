"""A small residual network that every method can work with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from allocator.methods.choosing import Setting
from allocator.methods.running import budgeted, method_named
from allocator.problem import Problem
from allocator.space import Space
from allocator.statement import Budget
from allocator.workload import Workload


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.tanh(self.up(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = nn.Linear(6, 8), nn.ModuleList([Block(8), Block(8)]), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture
def workload() -> Workload:
    """24 samples to calibrate on in three batches, 40 to judge."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Net()
        nn.init.normal_(net.head.weight, std=1.5)
    g = torch.Generator().manual_seed(1)
    batches = [(torch.randn(n, 6, generator=g), torch.randint(4, (n,), generator=g)) for n in (8, 8, 8, 40)]
    return Workload(net.eval(), batches[:3], batches[3:], "classification", "tiny")


@pytest.fixture
def space() -> Space:
    return Space.simple(bits=(2, 3, 4, 8), ranks=(0.25, 0.5))


@pytest.fixture
def choose():
    """Labels that a method takes on a problem written by hand, under a budget on ``bytes``."""

    def chosen(name, problem: Problem, room: float | None):
        method = method_named(name)
        rows = () if room is None else (Budget(resource="weight_bytes", max=room),)
        stated = budgeted(method, problem, rows)
        return method.allocate(Setting(workload=None, problem=stated))  # type: ignore[arg-type]  # a table has no net

    return chosen


@pytest.fixture
def table():
    """A problem of scores and costs [G, K], with remainders and stats."""

    def made(costs, remainder=None, stats=None, **scores) -> Problem:
        import numpy as np

        problem = Problem.from_arrays(
            {name: np.asarray(rows, float) for name, rows in scores.items()}, {"weight_bytes": np.asarray(costs)},
            choice_names=[f"c{k}" for k in range(len(costs[0]))],
        )  # fmt: skip
        gaps = {name: np.asarray(rows, float).ravel() for name, rows in (remainder or {}).items()}
        return problem.replace(remainder=gaps, stats={k: np.asarray(v, float) for k, v in (stats or {}).items()})

    return made
