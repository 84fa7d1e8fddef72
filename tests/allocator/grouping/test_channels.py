"""Which channels can be left out, against sets written down by hand and against the network itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from allocator.applier.layers import units
from allocator.demos.fashion_resnet20 import Resnet20
from allocator.errors import UsageError
from allocator.grouping import channels
from allocator.grouping.channels import ChannelSpace, find_channels
from allocator.workload import Workload


class Residual(nn.Module):
    """Batch norms, a shortcut, in-place sums and activations, a depthwise convolution, a pooled head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.up, self.up_bn = nn.Conv2d(6, 10, 1), nn.BatchNorm2d(10)
        self.deep, self.deep_bn = nn.Conv2d(10, 10, 3, padding=1, groups=10, padding_mode="reflect"), nn.BatchNorm2d(10)
        self.down = nn.Conv2d(10, 6, 1)
        self.grow, self.short = nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(6, 8, 1, 2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu_(self.bn(self.stem(x)))
        y = self.deep_bn(self.deep(functional.relu6(self.up_bn(self.up(x)))))
        y = self.down(functional.hardswish(y))
        y += x
        z = functional.relu(self.grow(y)) + self.short(y)
        return self.head(functional.dropout(functional.adaptive_avg_pool2d(z, 1), 0.5, self.training).flatten(1))


def test_the_spaces_of_a_resnet_are_those_of_the_page() -> None:
    page = (Path(__file__).parents[3] / "docs/channels.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:4] for line in page.splitlines() if re.match(r"\| \d+ \| `", line)]
    wanted = [(int(n), *(set(re.findall("`([^`]+)`", names)) for names in sides)) for n, *sides in rows]
    data = [[(torch.randn(n, 1, 28, 28), torch.zeros(n, dtype=torch.long))] for n in (2, 1)]
    spaces = [
        (space.count, set(space.producers), set(space.consumers))
        for space in find_channels(Workload(Resnet20().eval(), *data))
    ]
    inside = [({f"blocks.{i}.conv1"}, {f"blocks.{i}.conv2"}) for i in range(9)]
    assert len(wanted) == 3
    assert [space for space in spaces if len(space[1]) > 1] == wanted
    assert [space[1:] for space in spaces if len(space[1]) == 1] == inside


class Flattened(nn.Module):
    """A convolution whose channels are flattened into a Linear, then an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)
        self.mlp = nn.Sequential(nn.Linear(36, 7), nn.GELU(), nn.Linear(7, 9), nn.BatchNorm1d(9), nn.Linear(9, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.pool(torch.relu(self.conv(x))).view(len(x), -1))


class Gated(nn.Module):
    """A gated MLP on tokens whose residual stream goes through a norm over channels, and gates by channel means."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(3, 6), nn.LayerNorm(6)
        self.gate, self.up, self.down = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(12, 6)
        self.mix, self.squeeze, self.excite = nn.Conv1d(6, 8, 3), nn.Linear(8, 4), nn.Linear(4, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(2).transpose(1, 2))
        x = x + self.down(functional.silu(self.gate(self.norm(x))) * self.up(self.norm(x)))
        y = self.mix(x.transpose(1, 2))
        scale = torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean(2)))))
        return self.head((y * scale.unsqueeze(-1)).amax(-1))


def images(model: nn.Module, size: int = 8) -> Workload:
    data = [[(torch.randn(n, 3, size, size), torch.zeros(n, dtype=torch.long))] for n in (3, 2)]
    return Workload(model, *data)


def found(model: Callable[[], nn.Module], size: int = 8) -> list[tuple[int, set[str], set[str]]]:
    torch.manual_seed(0)
    spaces = find_channels(images(model(), size))
    return [(space.count, set(space.producers), set(space.consumers)) for space in spaces]


def test_residual_streams_depthwise_convolutions_and_pooling() -> None:
    assert found(Residual) == [
        (6, {"stem", "down"}, {"up", "grow", "short"}),
        (10, {"up", "deep"}, {"down"}),
        (8, {"grow", "short"}, {"head"}),
    ]


def test_channels_flattened_into_a_linear() -> None:
    assert found(Flattened) == [(4, {"conv"}, {"mlp.0"}), (7, {"mlp.0"}, {"mlp.2"}), (9, {"mlp.2"}, {"mlp.4"})]


def test_products_tie_and_norms_over_channels_seal() -> None:
    assert found(Gated) == [
        (12, {"gate", "up"}, {"down"}),
        (8, {"mix", "excite"}, {"squeeze", "head"}),
        (4, {"squeeze"}, {"excite"}),
    ]


class Between(nn.Module):
    """Two convolutions and what is done to the channels between them."""

    def __init__(self, step: Callable[..., Tensor], wide: int = 6, groups: int = 1) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(wide, 5, 1)
        self.extra = nn.Conv2d(6, 6, 1, groups=groups)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.step(self.first(x), self, x)).mean((2, 3))


def shuffled(y: Tensor, net: nn.Module, x: Tensor) -> Tensor:
    n, c, h, w = y.shape
    return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def through_a_buffer(y: Tensor, net: nn.Module, x: Tensor) -> Tensor:
    buffer = torch.zeros(len(y), 6, 8, 8)
    buffer[:, 1:] = y[:, :-1].clone()
    return buffer


def into_a_view(y: Tensor, net: nn.Module, x: Tensor) -> Tensor:
    buffer = torch.zeros(len(y), 6, 8, 8)
    buffer.view(len(y), 6, 64).copy_(y.flatten(2))
    return buffer.flip(1)


def out_argument(y: Tensor, net: nn.Module, x: Tensor) -> Tensor:
    buffer = torch.zeros(2, *y.shape)
    torch.mul(y, 2, out=buffer[0])
    return buffer[0].flip(1) + buffer[1]


def by_the_weight(y: Tensor, net: nn.Module, x: Tensor) -> Tensor:
    return y * (1 + net.first.weight.sum())


def attended(y: Tensor, net: nn.Module, x: Tensor) -> Tensor:
    tokens = y.flatten(2).transpose(1, 2).unflatten(-1, (2, 3)).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(tokens, tokens, tokens)
    return mixed.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(-1, (8, 8))


SEALED: dict[str, Callable[..., Tensor]] = {
    "concatenation": lambda y, net, x: torch.cat([y[:, :3], net.extra(y)[:, 3:]], 1),
    "joined whole": lambda y, net, x: torch.cat([y, y], 1)[:, ::2],
    "layer norm": lambda y, net, x: functional.layer_norm(y, y.shape[1:]),
    "group norm": lambda y, net, x: functional.group_norm(y, 3),
    "softmax": lambda y, net, x: torch.softmax(y, 1),
    "mean of channels": lambda y, net, x: y - y.mean(1, keepdim=True),
    "mean of all": lambda y, net, x: y / (1 + y.mean() ** 2),
    "flipped": lambda y, net, x: y.flip(1),
    "cumulated": lambda y, net, x: y.cumsum(1),
    "picked": lambda y, net, x: y[:, torch.tensor([0, 0, 1, 2, 3, 4])],
    "looked at": lambda y, net, x: y * (2 if float(y.sum()) > 0 else 1),
    "rolled": lambda y, net, x: y.roll(1, 1),
    "padded": lambda y, net, x: functional.pad(y, (0, 0, 0, 0, 1, -1)),
    "as tokens": lambda y, net, x: y + functional.linear(y.transpose(1, 3), torch.ones(6, 6)).transpose(1, 3),
    "into rows": lambda y, net, x: y.permute(0, 2, 1, 3).reshape(len(y), 6, 8, 8),
    "shuffled": shuffled,
    "through a buffer": through_a_buffer,
    "into a view": into_a_view,
    "out argument": out_argument,
    "by the weight": by_the_weight,
    "heads": attended,
}


@pytest.mark.parametrize("step", SEALED.values(), ids=SEALED)
def test_what_mixes_channels_or_is_not_known_seals_them(step: Callable[..., Tensor]) -> None:
    assert found(lambda: Between(step)) == []


def test_grouped_convolutions_write_but_read_what_cannot_go() -> None:
    both = [(6, {"first"}, {"extra"}), (6, {"extra"}, {"last"})]
    assert found(lambda: Between(lambda y, net, x: net.extra(y))) == both
    assert found(lambda: Between(lambda y, net, x: net.extra(y), groups=2)) == both[1:]


KEPT: dict[str, Callable[..., Tensor]] = {
    "the input added": lambda y, net, x: y + x.mean(1, keepdim=True),
    "channels last": lambda y, net, x: y.permute(0, 2, 3, 1).contiguous().tanh().permute(0, 3, 1, 2),
    "rows and back": lambda y, net, x: y.flatten(2).relu().unflatten(-1, (8, 8)),
    "cut and joined in space": lambda y, net, x: torch.cat([y[..., :3], y[..., 5:], y[:, :, :, 0:1]], 3),
    "padded": lambda y, net, x: functional.pad(y, (1, 2)),
    "resized": lambda y, net, x: functional.interpolate(y, scale_factor=2),
    "masked": lambda y, net, x: torch.where(y > 0, y, y * 0.1),
    "its own max": lambda y, net, x: y - y.amax((2, 3), keepdim=True),
    "a scale of each": lambda y, net, x: y * torch.arange(6.0).view(6, 1, 1),
}


@pytest.mark.parametrize("step", KEPT.values(), ids=KEPT)
def test_what_leaves_each_channel_to_itself_does_not_seal(step: Callable[..., Tensor]) -> None:
    assert found(lambda: Between(step)) == [(6, {"first"}, {"last"})]


class Own(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.weight.norm()


def test_layers_with_a_forward_or_hooks_of_their_own_are_not_trusted() -> None:
    def own() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 1), Own(4, 5, 1), nn.Conv2d(5, 6, 1), nn.Flatten(), nn.Linear(384, 5))

    def hooked() -> nn.Module:
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Flatten(), nn.Linear(384, 5))
        model[0].register_forward_hook(lambda module, args, output: output.flip(1))
        return model

    assert found(own) == [(6, {"2"}, {"4"})]
    assert found(hooked) == [(6, {"1"}, {"3"})]


class Tied(nn.Module):
    """One layer called twice, whose inputs and outputs are then the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.same, self.out = nn.Linear(192, 6), nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.same(torch.relu(self.same(self.into(x.flatten(1)))))))


def test_a_layer_called_twice_reads_what_it_writes() -> None:
    assert found(Tied) == [(6, {"into", "same"}, {"same", "out"})]


class Vocabulary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(11, 6), nn.Linear(6, 8), nn.Linear(8, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.head(x + self.down(torch.relu(self.up(x))))


def test_embeddings_seal_their_stream() -> None:
    torch.manual_seed(0)
    workload = Workload(Vocabulary(), [torch.randint(11, (3, 6))], [torch.randint(11, (2, 6))], "causal_lm")
    assert find_channels(workload) == (ChannelSpace(8, ("up",), ("down",)),)


@pytest.mark.parametrize("make", [Residual, Flattened, Gated, Tied], ids=lambda make: make.__name__)
def test_rows_of_channels_that_nobody_reads_show_nowhere(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    workload = images(make().double().eval())
    model, data = workload.model, torch.randn(4, 3, 8, 8, dtype=torch.float64)
    workload = Workload(model, [(data, torch.zeros(4, dtype=torch.long))], [])
    weights = {unit.name: unit.weight.data for unit in units(model)}
    for space in find_channels(workload):
        gone = torch.randperm(space.count)[: space.count // 2]
        for name in space.consumers:
            weights[name].view(len(weights[name]), space.count, -1)[:, gone] = 0
        before = model(data)
        for name in space.producers:
            weights[name][gone] = torch.randn_like(weights[name][gone]) * 10
        torch.testing.assert_close(model(data), before, rtol=1e-9, atol=1e-9)
        for name in space.producers:
            weights[name].copy_(torch.randn_like(weights[name]) * 10)
        assert not torch.allclose(model(data), before)


def test_the_model_is_left_as_it_was_and_a_space_that_fails_its_trial_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    workload = images(Residual().train())
    before = {key: value.clone() for key, value in workload.model.state_dict().items()}
    assert len(find_channels(workload)) == 3
    wrong = ChannelSpace(6, ("stem", "down"), ("up", "short"))  # grow reads them too
    right = ChannelSpace(10, ("up", "deep"), ("down",))
    monkeypatch.setattr(channels, "_spaces", lambda *_: (wrong, right))
    assert find_channels(workload) == (right,)
    assert workload.model.training
    assert all(torch.equal(before[key], value) for key, value in workload.model.state_dict().items())


class Masked(nn.Module):
    """Some logits are ruled out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(192, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x.flatten(1)))).masked_fill(torch.arange(5) == 2, -torch.inf)


def test_infinite_logits_and_other_memory_formats_are_no_obstacle() -> None:
    assert found(Masked) == [(6, {"a"}, {"b"})]
    assert found(lambda: Residual().to(memory_format=torch.channels_last)) == found(Residual)


def test_no_data_is_refused() -> None:
    with pytest.raises(UsageError, match=r"calibration data of .* is empty"):
        find_channels(Workload(Residual(), [], []))
