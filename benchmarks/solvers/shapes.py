"""Weight matrices of real networks: kind and shape of every tensor that would be compressed, in model order."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Tensor:
    """One weight: rows = output channels, columns = inputs per output. uses: how often a forward pass applies it.

    uses counts positions of a feature map for a convolution (224 × 224 input), and the share of tokens that
    reach an expert for a mixture.
    """

    name: str
    kind: str
    rows: int
    columns: int
    uses: float = 1.0

    @property
    def weights(self) -> int:
        """Stored scalars."""
        return self.rows * self.columns


def resnet50() -> list[Tensor]:
    """ResNet-50 (He et al., 2016): 53 convolutions and the classifier, 25.5 million weights in 54 tensors."""
    found = [_conv("conv1", 64, 3, 7, 112)]
    inputs, side = 64, 56
    for stage, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), 1):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 1 else 1
            name = f"layer{stage}.{block}"
            found.append(_conv(f"{name}.conv1", width, inputs, 1, side))
            side //= stride
            found.append(_conv(f"{name}.conv2", width, width, 3, side))
            found.append(_conv(f"{name}.conv3", 4 * width, width, 1, side))
            if block == 0:
                found.append(_conv(f"{name}.downsample", 4 * width, inputs, 1, side))
            inputs = 4 * width
    return [*found, Tensor("fc", "linear", 1000, inputs)]


def _conv(name: str, out: int, inputs: int, kernel: int, side: int) -> Tensor:
    return Tensor(name, f"conv{kernel}", out, prod((inputs, kernel, kernel)), float(side * side))


def llama8b() -> list[Tensor]:
    """Llama 3 8B (2024): 32 blocks of 7 matrices, embedding and head: 8.03 billion weights in 226 tensors."""
    hidden, keys, inner, words = 4096, 1024, 14336, 128256
    found = [Tensor("embed", "embedding", words, hidden)]
    for i in range(32):
        found += _attention(f"layers.{i}", hidden, keys)
        found += _swiglu(f"layers.{i}.mlp", hidden, inner)
    return [*found, Tensor("head", "linear", words, hidden)]


def mixtral() -> list[Tensor]:
    """Mixtral 8x7B (Jiang et al., 2024): 32 blocks of 4 matrices and 8 experts of 3, embedding, head: 898 tensors.

    Routers are small and stay as they are; two of eight experts see a token.
    """
    hidden, keys, inner, words = 4096, 1024, 14336, 32000
    found = [Tensor("embed", "embedding", words, hidden)]
    for i in range(32):
        found += _attention(f"layers.{i}", hidden, keys)
        for e in range(8):
            found += _swiglu(f"layers.{i}.experts.{e}", hidden, inner, 2 / 8)
    return [*found, Tensor("head", "linear", words, hidden)]


def many_experts() -> list[Tensor]:
    """A mixture of 61,069 tensors: 79 blocks of 5 latent-attention matrices and 256 experts of 3, embedding, head.

    Matrix shapes of DeepSeek-V3 (2024), made deeper and without its dense blocks and shared experts; 8 of 256
    experts see a token.
    """
    hidden, inner, words = 7168, 2048, 129280
    latent = {"q_a": (1536, hidden), "q_b": (24576, 1536), "kv_a": (576, hidden), "kv_b": (32768, 512)}
    found = [Tensor("embed", "embedding", words, hidden)]
    for i in range(79):
        found += [Tensor(f"layers.{i}.{n}", n, rows, columns) for n, (rows, columns) in latent.items()]
        found.append(Tensor(f"layers.{i}.o", "o", hidden, 16384))
        for e in range(256):
            found += _swiglu(f"layers.{i}.experts.{e}", hidden, inner, 8 / 256)
    return [*found, Tensor("head", "linear", words, hidden)]


def _attention(name: str, hidden: int, keys: int) -> list[Tensor]:
    rows = {"q": hidden, "k": keys, "v": keys, "o": hidden}
    return [Tensor(f"{name}.{kind}", kind, out, hidden) for kind, out in rows.items()]


def _swiglu(name: str, hidden: int, inner: int, uses: float = 1.0) -> list[Tensor]:
    shapes = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
    return [Tensor(f"{name}.{kind}", kind, rows, columns, uses) for kind, (rows, columns) in shapes.items()]
