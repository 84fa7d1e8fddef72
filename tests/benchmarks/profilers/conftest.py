"""A network of three layers whose measuring takes a moment."""

import gzip

import numpy as np
import pytest
import torch
from torch import nn

from allocator import Space, Workload
from allocator.demos import fashion_mnist
from benchmarks.profilers.bench import Bench
from benchmarks.profilers.subject import Subject
from benchmarks.store import Store


def tiny():
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Sequential(nn.Linear(9, 8), nn.GELU()), nn.Linear(8, 4))
    for parameter in net.parameters():
        parameter.data *= 2

    def batches(sizes):
        inputs = [torch.randn(size, 6, generator=generator) for size in sizes]
        return [(x, net(x).detach().argmax(1)) for x in inputs]

    workload = Workload(net.eval(), batches((30, 30)), batches((40, 40, 40)), name="tiny")
    return Subject(workload, Space.simple(bits=tuple(range(2, 9)), ranks=(), keep=False), samples=80)


@pytest.fixture
def subject():
    return tiny()


@pytest.fixture
def bench(subject, tmp_path):
    return Bench("tiny", lambda: subject, Store(tmp_path / "results.jsonl"), each=10)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """The four files of Fashion-MNIST with a few pictures that are brighter where the class is higher."""
    draw, place = np.random.default_rng(0), tmp_path / "data"
    place.mkdir()
    for split, count in (("train", 400), ("t10k", 60)):
        classes = draw.integers(0, 10, count)
        pictures = draw.integers(0, 100, (count, 28, 28)) + 15 * classes[:, None, None]
        for kind, array in (("images-idx3", pictures), ("labels-idx1", classes)):
            head = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            content = gzip.compress(head + array.astype(np.uint8).tobytes())
            (place / f"{split}-{kind}-ubyte.gz").write_bytes(content)
    monkeypatch.setenv(fashion_mnist.VARIABLE, str(place))
