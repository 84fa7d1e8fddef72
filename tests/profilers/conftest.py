"""Small networks with the traps of real ones, and a slow, dense truth for curvature."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from allocator.space import Rule, Space
from allocator.workload import Workload

SPACE = Space.simple(bits=(2, 4), ranks=(0.5,))


class Residual(nn.Module):
    """Adds in place to what it was given, after an activation in place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, padding_mode="reflect")
        self.norm = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.act(self.norm(self.depthwise(x))))
        y += x
        return self.act(y)


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList([Residual(6), Residual(6)])
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(self.drop(x.mean((2, 3))))


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return x + self.out(nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))


class Lm(nn.Module):
    """Embedding and head share one weight; the table of positions is one row set for the whole batch."""

    def __init__(self, positions: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.place = nn.Embedding(6, 8) if positions else None
        self.layers = nn.ModuleList([Attention(8), Attention(8)])
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embed(input_ids)
        if self.place is not None:
            x = x + self.place(torch.arange(input_ids.shape[1]).unsqueeze(0))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class TimeFirst(nn.Module):
    """Works on (time, sample, feature), with as many time steps as some batches have samples."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(5, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(x.transpose(0, 1))).mean(0))


class Twice(nn.Module):
    """One layer called twice, and one whose weight takes part standardised."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.head = nn.Linear(6, 6), Standardised(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.shared(torch.tanh(self.shared(x)))))


class Standardised(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        weight = self.weight / self.weight.norm(dim=1, keepdim=True)
        return nn.functional.linear(input, weight, self.bias)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word, self.out = nn.Linear(4, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.word(x)).mean(1))


def _classes(
    generator: torch.Generator, *shape: int, classes: int, rows: tuple[int, ...]
) -> list[tuple[Tensor, Tensor]]:
    return [
        (torch.randn(n, *shape, generator=generator), torch.randint(classes, (n,), generator=generator)) for n in rows
    ]


def _ids(generator: torch.Generator, rows: tuple[int, ...]) -> list[Tensor]:
    return [torch.randint(11, (n, 6), generator=generator) for n in rows]


def _padded(generator: torch.Generator, rows: tuple[int, ...]) -> list[dict[str, Tensor]]:
    masks = [(torch.arange(6) < 6 - torch.arange(n).unsqueeze(1) % 3).long() for n in rows]
    return [{"input_ids": i, "attention_mask": m} for i, m in zip(_ids(generator, rows), masks, strict=True)]


def _pairs(generator: torch.Generator, rows: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(n, 2, 3, 4, generator=generator), torch.rand(n, generator=generator)) for n in rows]


def make(name: str) -> Workload:
    """A fresh workload of that name, always the same."""
    generator = torch.Generator().manual_seed(5)
    rows = (4, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net: nn.Module
        match name:
            case "cnn":
                net, task = Cnn(), "classification"
                data = [_classes(generator, 2, 9, 9, classes=4, rows=r) for r in (rows, (5,))]
            case "lm" | "lm_positions":
                net, task = Lm(name == "lm_positions"), "causal_lm"
                data = [_ids(generator, r) for r in (rows, (2,))]
            case "lm_padded":
                net, task = Lm(False), "causal_lm"
                data = [_padded(generator, r) for r in (rows, (2,))]
            case "time_first":
                net, task = TimeFirst(), "classification"
                data = [_classes(generator, 4, 5, classes=3, rows=r) for r in (rows, (5,))]
            case "twice":
                net, task = Twice(), "classification"
                data = [_classes(generator, 6, classes=5, rows=r) for r in (rows, (5,))]
            case "embedding":
                net, task = Encoder(), "embedding"
                data = [_pairs(generator, r) for r in ((5, 4, 6), (4,))]
            case _:
                raise ValueError(name)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.5, 2)
    return Workload(net.eval(), data[0], data[1], task, name)


@pytest.fixture
def workload_of() -> Callable[[str], Workload]:
    return make


@pytest.fixture
def space() -> Space:
    return SPACE


@pytest.fixture
def skipping() -> Callable[[str], Space]:
    return lambda name: Space((Rule(modules=name, choices="skip"), *SPACE.rules))


@pytest.fixture(
    params=["cnn", "lm", "lm_positions", "lm_padded", "time_first", "twice", "embedding"],
)
def workload(request: pytest.FixtureRequest) -> Workload:
    return make(request.param)


def moved(workload: Workload, weight: nn.Parameter, delta: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """(logits, JΔ, mask) of every calibration batch, by forward-mode differentiation of the whole network."""
    model, task = workload.model, workload.task
    name = next(name for name, parameter in model.named_parameters() if parameter is weight)

    class Called(nn.Module):
        def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
            return functional_call(model, {name: self.weight}, args, kwargs)  # tied names follow

    for batch in workload.calibration:

        def logits(w: Tensor, batch: object = batch) -> Tensor:
            called = Called()
            called.weight = w
            return task.logits(called, batch)

        with sdpa_kernel([SDPBackend.MATH]):  # the default CPU kernel has no forward mode
            z, dz = jvp(logits, (weight.detach(),), (delta,))
        yield z.detach(), dz.detach(), task.mask(batch)


@pytest.fixture
def exact_curvature() -> Callable[[Workload, nn.Parameter, Tensor], float]:
    """½ ΔᵀGΔ per position, dense and in float64."""

    def curvature(workload: Workload, weight: nn.Parameter, delta: Tensor) -> float:
        double = copy.deepcopy(workload)
        place = [p is weight for p in workload.model.parameters()].index(True)
        other = list(double.model.double().parameters())[place]
        data = [_double(batch) for batch in workload.calibration]
        double = Workload(double.model, data, data, workload.task)
        total = mass = 0.0
        for z, dz, mask in moved(double, other, delta.double()):
            p = torch.softmax(z, -1)
            quadratic = (p * dz.square()).sum(-1) - (p * dz).sum(-1).square()
            keep = torch.ones_like(quadratic) if mask is None else mask.double()
            total, mass = total + float((quadratic * keep).sum()) / 2, mass + float(keep.sum())
        return total / mass

    return curvature


@pytest.fixture
def directional() -> Callable[[Workload, nn.Parameter, Tensor], Iterator[tuple[Tensor, Tensor, Tensor | None]]]:
    return moved


def _double(batch: object) -> object:
    if isinstance(batch, Tensor):
        return batch.double() if batch.is_floating_point() else batch
    if isinstance(batch, dict):
        return {key: _double(value) for key, value in batch.items()}
    assert isinstance(batch, tuple)
    return tuple(_double(value) for value in batch)


def slopes_of(workload: Workload, weight: nn.Parameter, delta: Tensor, step: float = 1e-5) -> tuple[Tensor, Tensor]:
    """(change of the summed true loss per unit of Δ, positions) of every sample, by central differences in float64."""
    double = copy.deepcopy(workload.model).double()
    place = [p is weight for p in workload.model.parameters()].index(True)
    moved_weight, start = list(double.parameters())[place], list(double.parameters())[place].detach().clone()
    ends, counts = [], []
    for way in (1, -1):
        moved_weight.data = start + way * step * delta.double()
        with torch.no_grad():
            data = [_double(batch) for batch in workload.calibration]
            rows = [workload.task.metrics(workload.task.logits(double, batch), batch)["loss"] for batch in data]
        ends.append(torch.cat([total for total, _ in rows]))
        counts.append(torch.cat([count for _, count in rows]))
    return (ends[0] - ends[1]) / (2 * step), counts[0]


@pytest.fixture
def loss_slopes() -> Callable[[Workload, nn.Parameter, Tensor], tuple[Tensor, Tensor]]:
    return slopes_of
