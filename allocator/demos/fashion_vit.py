"""A vision transformer on Fashion-MNIST: four blocks, 18 linear layers, 205 thousand parameters, trained beforehand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from allocator.demos import fashion_mnist
from allocator.demos.checkpoints import load
from allocator.space import Space
from allocator.workload import Workload

NAME = "fashion-vit"
METRIC = "accuracy"
PROFILERS = ("ggn", "kl", "weight_error")
BUDGETS = (("int2", "int3"), "int3", ("int3", "int4"))
WIDTH, HEADS, DEPTH, EXPANSION, PATCH, PATCHES = 64, 4, 4, 4, 7, 16


def space() -> Space:
    """2 to 8 bits per output channel: 18 layers, 126 choices."""
    return Space.simple(bits=(2, 3, 4, 5, 6, 7, 8), ranks=(), keep=False)


class Attention(nn.Module):
    """Every patch looks at all sixteen; queries, keys and values come out of one linear layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, patches, width] to the same."""
        samples, patches, width = x.shape
        q, k, v = self.qkv(x).reshape(samples, patches, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(samples, patches, width))
        return out


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a normalisation and around its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, EXPANSION * width), nn.GELU(), nn.Linear(EXPANSION * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[N, patches, width] to the same."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Vit(nn.Module):
    """Dosovitskiy et al. (2021, arXiv 2010.11929), read by the mean over patches; [N, 1, 28, 28] to [N, 10]."""

    def __init__(self, width: int = WIDTH, depth: int = DEPTH) -> None:
        super().__init__()
        self.embedding = nn.Linear(PATCH * PATCH, width)
        self.positions = nn.Parameter(0.02 * torch.randn(PATCHES, width))
        self.blocks = nn.Sequential(*(Block(width, HEADS) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of pictures that are cut into sixteen squares of 7 × 7 pixels."""
        squares = (
            images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).reshape(images.shape[0], PATCHES, PATCH * PATCH)
        )
        out: Tensor = self.classes(self.norm(self.blocks(self.embedding(squares) + self.positions)).mean(1))
        return out


def workload() -> Workload:
    """The trained network; 256 of its training pictures to profile it, the 10,000 of the test split to judge it."""
    calibration, evaluation = fashion_mnist.parts()
    return Workload(load(Vit, NAME), calibration, evaluation, task="classification", name=NAME)
