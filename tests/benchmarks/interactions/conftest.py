"""A network of three layers whose measuring takes a moment."""

import pytest
import torch
from torch import nn

from allocator import Space, Workload
from benchmarks.profilers.subject import Subject


@pytest.fixture
def tiny():
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 8), nn.GELU(), nn.Linear(8, 4))
    for parameter in net.parameters():
        parameter.data *= 2

    def batches(sizes):
        inputs = [torch.randn(size, 6, generator=generator) for size in sizes]
        return [(x, net(x).detach().argmax(1)) for x in inputs]

    workload = Workload(net.eval(), batches((40, 40)), batches((40, 40)), name="tiny")
    return Subject(workload, Space.simple(bits=tuple(range(2, 9)), ranks=(), keep=False), samples=80)
