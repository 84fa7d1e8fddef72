"""ResNet-34 of width 12 on Fashion-MNIST: 37 weight layers, 752 thousand parameters, trained beforehand."""

from __future__ import annotations

from torch import Tensor, nn

from allocator.demos import fashion_mnist
from allocator.demos.basic_block import Block
from allocator.demos.checkpoints import load
from allocator.space import Space
from allocator.workload import Workload

NAME = "fashion-resnet34"
METRIC = "accuracy"
PROFILERS = ("ggn", "kl", "weight_error")
BUDGETS = (("int2", "int3"), "int3", ("int3", "int4"))
WIDTH, BLOCKS = 12, (3, 4, 6, 3)


def space() -> Space:
    """2 to 8 bits per output channel: 37 layers, 259 choices."""
    return Space.simple(bits=(2, 3, 4, 5, 6, 7, 8), ranks=(), keep=False)


class Resnet34(nn.Module):
    """The 34-layer topology of He et al. (2016, arXiv 1512.03385, table 1), narrower; [N, 1, 28, 28] to [N, 10].

    For pictures of 28 × 28 pixels the first convolution is 3 × 3, and no pooling follows it: the four stages work at
    14, 7, 4 and 2 pixels.
    """

    def __init__(self, width: int = WIDTH, blocks: tuple[int, ...] = BLOCKS) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        made: list[Block] = []
        outputs = width
        for stage, count in enumerate(blocks):
            for block in range(count):
                inputs, outputs = outputs, width << stage
                made.append(Block(inputs, outputs, 2 if stage and not block else 1))
        self.blocks = nn.Sequential(*made)
        self.classes = nn.Linear(outputs, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features = self.blocks(self.stem(images))
        out: Tensor = self.classes(features.mean((2, 3)))
        return out


def workload(calibration: int = fashion_mnist.CALIBRATION) -> Workload:
    """The trained network; 256 of its training pictures to profile it, the 10,000 of the test split to judge it."""
    parts = fashion_mnist.parts(calibration)
    return Workload(load(Resnet34, NAME, "benchmarks.compression.train"), *parts, task="classification", name=NAME)
