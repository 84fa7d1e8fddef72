"""A small convolutional network trained on the spot on scikit-learn's handwritten digits (8 × 8, ten classes)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from allocator.space import Space
from allocator.workload import Workload

NAME = "digits"
METRIC = "accuracy"
PROFILERS = ("kl", "ggn", "weight_error")
BUDGETS = (("int2", "int3"), "int3", ("int3", "int4"))
HELD_OUT, CALIBRATION, BATCH, SEED, EPOCHS = 500, 256, 64, 0, 24


def space() -> Space:
    """2, 3, 4 and 8 bits, a quarter or half of the rank, or as it is."""
    return Space.simple()


class DigitsNet(nn.Module):
    """Four convolutions and two linear layers, 36 thousand weights; [N, 1, 8, 8] to [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _stage(1, 16),
            _stage(16, 32),
            nn.MaxPool2d(2),
            _stage(32, 32),
            _stage(32, 64),
            nn.MaxPool2d(2),
        )
        self.hidden = nn.Linear(64 * 2 * 2, 16)
        self.classes = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch of images with values 0 to 1."""
        classes: Tensor = self.classes(torch.relu(self.hidden(self.features(images).flatten(1))))
        return classes


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def data() -> tuple[Tensor, Tensor]:
    """All 1,797 digits in a fixed shuffled order: images [1797, 1, 8, 8] in 0…1, classes [1797]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(SEED))
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    return images[order], torch.tensor(digits.target, dtype=torch.int64)[order]


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine: several threads add up floats differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def train(images: Tensor, classes: Tensor) -> DigitsNet:
    """Train from a fixed seed with Adam and a one-cycle rate; the global random state is left alone."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        net = DigitsNet()
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        for rows in torch.split(order[: len(order) // BATCH * BATCH], BATCH):
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(nn.functional.cross_entropy(net(images[rows]), classes[rows]))
            optimizer.step()
            schedule.step()
    optimizer.zero_grad(set_to_none=True)
    return net.eval()


def workload() -> Workload:
    """The network, 256 digits to profile it and 500 to judge it: none of them is one that it was trained on.

    On its own training data a network is almost certain of its answers, and divergences come out up to thirty times too
    low.
    """
    images, classes = data()
    seen = slice(HELD_OUT, HELD_OUT + CALIBRATION)
    net = train(images[seen.stop :], classes[seen.stop :])
    return Workload(
        net,
        calibration=list(zip(torch.split(images[seen], BATCH), torch.split(classes[seen], BATCH), strict=True)),
        evaluation=[(images[:HELD_OUT], classes[:HELD_OUT])],
        task="classification",
        name=NAME,
    )
