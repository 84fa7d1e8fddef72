"""Folded networks: the same logits, fewer numbers, and nothing folded that something else reads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from allocator.errors import UsageError
from allocator.folding import folded
from allocator.workload import Workload


class Net(nn.Module):
    """A chain, a grouped convolution without bias, a norm behind a sum, an input read twice, a layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, bias=True), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.grouped, self.grouped_norm = nn.Conv2d(8, 8, 3, groups=4, padding=1, bias=False), nn.BatchNorm2d(8)
        self.summed = nn.BatchNorm2d(8)
        self.twice, self.twice_norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, affine=False)
        self.line, self.line_norm = nn.Linear(8, 5), nn.BatchNorm1d(5)
        self.shared, self.shared_norm = nn.Linear(5, 5), nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.summed(self.grouped_norm(self.grouped(x)) + x)
        y = self.twice(x)
        x = self.twice_norm(y) * torch.sigmoid(y)
        x = self.line_norm(self.line(x.mean((2, 3))))
        return self.shared_norm(self.shared(torch.tanh(self.shared(x))))


def workload(make: type[nn.Module]) -> Workload:
    torch.manual_seed(0)
    model = make()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.3, 3)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    data = [(torch.randn(4, 2, 9, 9), torch.randint(5, (4,)))]
    return Workload(model.eval(), data, [(torch.randn(4, 2, 9, 9), torch.randint(5, (4,)))], "classification", "net")


def test_what_can_be_folded_is_and_the_logits_stay() -> None:
    plain = workload(Net)
    before = {key: value.clone() for key, value in plain.model.state_dict().items()}
    found = folded(plain)
    kinds = {name: type(module).__name__ for name, module in found.model.named_modules()}
    assert [name for name, kind in kinds.items() if kind == "Identity"] == ["stem.1", "grouped_norm", "line_norm"]
    assert [kinds[name] for name in ("summed", "twice_norm", "shared_norm")] == ["BatchNorm2d"] * 2 + ["BatchNorm1d"]
    x = torch.randn(6, 2, 9, 9)
    with torch.no_grad():
        got, wanted = found.model(x), plain.model(x)
    assert float((got - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())
    assert all(torch.equal(before[key], value) for key, value in plain.model.state_dict().items())
    count = [sum(t.numel() for t in w.model.state_dict().values()) for w in (plain, found)]
    assert count[0] - count[1] == (4 * 8 + 1) + (4 * 8 + 1 - 8) + (4 * 5 + 1)
    assert not found.model.training


def test_a_network_that_reads_the_norm_elsewhere_is_refused() -> None:
    class Sly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5)

        def forward(self, x: Tensor) -> Tensor:
            scale = 1.0 if isinstance(self.norm, nn.Identity) else 2.0
            return scale * self.norm(self.conv(x)).mean((2, 3))

    with pytest.raises(UsageError, match="other logits"):
        folded(workload(Sly))


def test_a_tied_weight_is_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.norm(self.a(x))).mean((2, 3))

    found = folded(workload(Tied))
    assert isinstance(found.model.norm, nn.BatchNorm2d)


def test_without_data_there_is_nothing_to_see() -> None:
    plain = workload(Net)
    with pytest.raises(UsageError, match="empty"):
        folded(Workload(plain.model, [], plain.evaluation, "classification", "net"))


def test_many_short_lived_tensors_do_not_confuse_it() -> None:
    """Python gives a new tensor the id of one that is gone."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1, bias=False) for _ in range(60))
            self.norms = nn.ModuleList(nn.BatchNorm2d(2) for _ in range(60))

        def forward(self, x: Tensor) -> Tensor:
            for conv, norm in zip(self.convs, self.norms, strict=True):
                x = torch.tanh(x + norm(conv(x)) * 0.1) + x * 0.5
            return x.mean((2, 3))

    assert all(isinstance(norm, nn.Identity) for norm in folded(workload(Deep)).model.norms)
