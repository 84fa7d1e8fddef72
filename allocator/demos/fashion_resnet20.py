"""ResNet-20 of width 8 on Fashion-MNIST at 14 × 14: 22 weight layers, 69 thousand parameters, trained beforehand."""

from __future__ import annotations

from torch import Tensor, nn

from allocator.demos import fashion_mnist
from allocator.demos.basic_block import Block
from allocator.demos.checkpoints import load
from allocator.space import Space
from allocator.workload import Workload

NAME = "fashion-resnet20"
METRIC = "accuracy"
PROFILERS = ("ggn", "kl", "weight_error")
BUDGETS = (("int2", "int3"), "int3", ("int3", "int4"))
WIDTH, BLOCKS_PER_STAGE = 8, 3


def space() -> Space:
    """2 to 8 bits per output channel: 22 layers, 154 choices."""
    return Space.simple(bits=(2, 3, 4, 5, 6, 7, 8), ranks=(), keep=False)


class Resnet20(nn.Module):
    """The CIFAR topology of He et al. (2016, arXiv 1512.03385, section 4.2); [N, 1, 28, 28] to [N, 10]."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        stages = [(width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2)]
        self.blocks = nn.Sequential(
            *(
                Block(outputs if later else inputs, outputs, 1 if later else stride)
                for inputs, outputs, stride in stages
                for later in range(BLOCKS_PER_STAGE)
            )
        )
        self.classes = nn.Linear(4 * width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of pictures that are first averaged over squares of 2 × 2 pixels."""
        features = self.blocks(self.stem(self.pool(images)))
        out: Tensor = self.classes(features.mean((2, 3)))
        return out


def workload() -> Workload:
    """The trained network; 256 of its training pictures to profile it, the 10,000 of the test split to judge it."""
    calibration, evaluation = fashion_mnist.parts()
    return Workload(load(Resnet20, NAME), calibration, evaluation, task="classification", name=NAME)
