"""A ResNeXt on Fashion-MNIST: 23 weight layers, 529 thousand parameters (88 % in 1 × 1), trained beforehand."""

from __future__ import annotations

from torch import Tensor, nn

from allocator.demos import fashion_mnist
from allocator.demos.checkpoints import load
from allocator.space import Space
from allocator.workload import Workload

NAME = "fashion-resnext"
METRIC = "accuracy"
PROFILERS = ("ggn", "kl", "weight_error")
BUDGETS = (("int2", "int3"), "int3", ("int3", "int4"))
WIDTH, EXPANSION, CARDINALITY, STAGES, BLOCKS_PER_STAGE = 32, 4, 8, 3, 2


def space() -> Space:
    """2 to 8 bits per output channel: 23 layers, 161 choices."""
    return Space.simple(bits=(2, 3, 4, 5, 6, 7, 8), ranks=(), keep=False)


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3 in eight groups of channels, 1 × 1; around them the input, through 1 × 1 where the shape changes."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=CARDINALITY, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        inner = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        out: Tensor = self.relu(self.bn3(self.conv3(inner)) + self.shortcut(x))
        return out


class Resnext(nn.Module):
    """Blocks of Xie et al. (2017, arXiv 1611.05431, figure 3c) in three stages; [N, 1, 28, 28] to [N, 10].

    The stages work at 14, 7 and 4 pixels; their blocks are `width`, 2·width and 4·width channels wide inside and four
    times that outside. That is far more than the pictures need, so the weights have room to be of low rank.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        blocks: list[Bottleneck] = []
        outputs = width
        for stage in range(STAGES):
            for block in range(BLOCKS_PER_STAGE):
                inputs, inner = outputs, width << stage
                outputs = EXPANSION * inner
                blocks.append(Bottleneck(inputs, inner, outputs, 2 if stage and not block else 1))
        self.blocks = nn.Sequential(*blocks)
        self.classes = nn.Linear(outputs, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features = self.blocks(self.stem(images))
        out: Tensor = self.classes(features.mean((2, 3)))
        return out


def workload(calibration: int = fashion_mnist.CALIBRATION) -> Workload:
    """The trained network; 256 of its training pictures to profile it, the 10,000 of the test split to judge it."""
    parts = fashion_mnist.parts(calibration)
    return Workload(load(Resnext, NAME, "benchmarks.compression.train"), *parts, task="classification", name=NAME)
