"""What networks tie together, against sets that were written down by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from allocator.errors import UsageError
from allocator.grouping.find import find_couplings
from allocator.workload import Workload


class RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class LlamaAttention(nn.Module):
    """Grouped queries with rotated halves, as in models of that family."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(8, 8, bias=False), nn.Linear(8, 4, bias=False)
        self.v_proj, self.o_proj = nn.Linear(8, 4, bias=False), nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (p(x).view(n, t, -1, 4).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        angles = torch.arange(t)[:, None] / torch.tensor([1.0, 10.0, 1.0, 10.0])
        q, k = (a * angles.cos() + torch.cat([-a[..., 2:], a[..., :2]], -1) * angles.sin() for a in (q, k))
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(n, t, 8))


class LlamaMlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(8, 12, bias=False), nn.Linear(8, 12, bias=False)
        self.down_proj = nn.Linear(12, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.mlp = LlamaAttention(), LlamaMlp()
        self.input_layernorm, self.post_attention_layernorm = RmsNorm(8), RmsNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens, self.layers = nn.Embedding(11, 8), nn.ModuleList([LlamaBlock(), LlamaBlock()])
        self.norm, self.lm_head = RmsNorm(8), nn.Linear(8, 11, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x))


class Basic(nn.Module):
    """A residual block of an image network: two convolutions, and one on the way round where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu, self.shortcut = nn.ReLU(inplace=True), nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        return self.relu(y)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        self.layers = nn.Sequential(Basic(4, 4, 1), Basic(4, 6, 2), Basic(6, 6, 1))
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(self.stem(x)).mean((2, 3)))


class Vit(nn.Module):
    """Patches, a class token put in front, torch's encoder, cross attention; post-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 8, 2, 2), nn.Parameter(torch.randn(1, 1, 8))
        self.place = nn.Embedding(5, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 1)
        self.query, self.across = nn.Parameter(torch.randn(1, 1, 8)), nn.MultiheadAttention(8, 2, batch_first=True)
        self.value, self.advantage = nn.Linear(8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place(torch.arange(5))
        x = self.encoder(x)
        x = self.across(self.query.expand(len(x), -1, -1), x, x, need_weights=False)[0][:, 0]
        return self.value(x) + self.advantage(x)


def images(make: type[nn.Module], size: int) -> Workload:
    torch.manual_seed(0)
    data = [[(torch.randn(n, 3, size, size), torch.zeros(n, dtype=torch.long))] for n in (3, 2)]
    return Workload(make(), *data)


def llama() -> Workload:
    torch.manual_seed(0)
    return Workload(Llama(), [torch.randint(11, (3, 6))], [torch.randint(11, (2, 6))], "causal_lm")


def found(workload: Workload, kind: str) -> list[set[str]]:
    return [set(one.groups) for one in find_couplings(workload, [kind])]


def test_a_llama_fuses_its_inputs_and_shares_its_stream() -> None:
    workload = llama()
    names = [f"layers.{i}" for i in range(2)]
    fused = [{f"{n}.self_attn.{p}_proj" for p in "qkv"} for n in names]
    gated = [{f"{n}.mlp.gate_proj", f"{n}.mlp.up_proj"} for n in names]
    assert found(workload, "fused") == [fused[0], gated[0], fused[1], gated[1]]
    stream = {"embed_tokens", *(f"{n}.self_attn.o_proj" for n in names), *(f"{n}.mlp.down_proj" for n in names)}
    assert found(workload, "residual") == [stream]
    assert find_couplings(workload)[0].name == "layers.0.self_attn.q_proj+k_proj+v_proj"


def test_a_resnet_ties_each_stage() -> None:
    workload = images(ResNet, 16)
    assert found(workload, "fused") == []
    assert found(workload, "residual") == [
        {"stem.0", "layers.0.conv2"},
        {"layers.1.conv2", "layers.1.shortcut.0", "layers.2.conv2"},
    ]


def test_attention_of_torch_tokens_and_sums_of_unequal_width() -> None:
    workload = images(Vit, 4)
    self_attn = "encoder.layers.0.self_attn"
    assert found(workload, "fused") == [
        {f"{self_attn}.q_proj", f"{self_attn}.k_proj", f"{self_attn}.v_proj"},
        {"across.k_proj", "across.v_proj"},
        {"value", "advantage"},
    ]
    assert found(workload, "residual") == [{"patch", "place", f"{self_attn}.out_proj", "encoder.layers.0.linear2"}]
    assert type(workload.model.across) is nn.MultiheadAttention


class Sly(nn.Module):
    """Between its two readings the tensor is written over; the convolutions differ in stride."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1, stride=2)
        self.d = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        early = self.a(x).mean((2, 3)) + self.c(x).mean((2, 3)) + self.d(x).mean((2, 3))
        return early * self.b(x.relu_()).mean((2, 3))


def test_only_the_same_tensor_and_the_same_geometry_fuse() -> None:
    assert found(images(Sly, 4), "fused") == [{"a", "d"}]
    assert found(images(Sly, 4), "residual") == []  # means over space are followed no further


class Gated(nn.Module):
    """Channel gates, and features joined side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.other, self.join = (
            nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 8, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        z = functional.dropout(self.other(x), 0.5, self.training) - y / 2
        joined = torch.cat([z, y], 1)
        return (joined + self.join(joined)).mean((2, 3))


def test_products_and_joins_tie_nothing() -> None:
    assert found(images(Gated, 4), "residual") == [{"conv", "other"}]


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(UsageError, match="no kind of coupling 'shape'; known: fused, residual"):
        find_couplings(llama(), ["shape"])
