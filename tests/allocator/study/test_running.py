"""The study: its errors by hand, its drops against the evaluation of a changed copy, its τ against scipy."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from allocator.errors import UsageError
from allocator.study.errors_of_layers import ERRORS
from allocator.study.plotting import draw
from allocator.study.running import study
from allocator.study.tensor_formats import FORMATS
from allocator.tasks.measurement import measure
from allocator.workload import Workload
from profilers._groups import model_sha256

pytest.importorskip("tensorly")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.hidden = nn.Linear(8, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.body(self.stem(x))).mean((2, 3))
        return self.head(torch.tanh(self.hidden(x)))


@pytest.fixture(scope="module")
def workload():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = Net().eval()
        nn.init.normal_(net.head.weight, std=4)

    def data(seed, *rows):
        g = torch.Generator().manual_seed(seed)
        return [(torch.randn(n, 1, 8, 8, generator=g), torch.randint(4, (n,), generator=g)) for n in rows]

    return Workload(net, data(1, 5, 3), data(2, 20, 10), "classification", "small")


@pytest.fixture(scope="module")
def found(workload):
    return study(workload, fewer=(0.3, 0.8))


def approximated(workload, row):
    layer = workload.model.get_submodule(row.layer)
    weight = layer.weight.detach().double().numpy()
    return torch.from_numpy(FORMATS[row.tensor_format](weight, 1 - row.fewer).weight).float()


def test_every_inner_layer_is_approximated_by_every_format(found, workload):
    done = {(row.layer, row.tensor_format) for row in found.rows}
    assert done == {("hidden", "SVD"), *(("body.0", name) for name in FORMATS)}
    assert len(found.rows) == 10
    for row in found.rows:
        assert row.parameters <= (1 - row.fewer) * row.weights
    with_ends = study(workload, formats=("svd",), fewer=(0.5,), ends=True)
    assert [row.layer for row in with_ends.rows] == ["stem.0", "body.0", "hidden", "head"]


def test_errors_are_the_six(found, workload):
    images = torch.cat([batch for batch, _ in workload.calibration])
    for row in found.rows:
        layer, other = workload.model.get_submodule(row.layer), approximated(workload, row)
        with torch.no_grad():
            x = workload.model.stem(images)
            if row.layer == "hidden":
                x = workload.model.depthwise(workload.model.body(x)).mean((2, 3))
            second = copy.deepcopy(layer)
            second.weight.copy_(other)
            before, after = layer(x).flatten(1), second(x).flatten(1)
        off, norm = (other - layer.weight).norm().item(), layer.weight.norm().item()
        moved, size = (after - before).norm(dim=1), before.norm(dim=1)
        wanted = {
            "absolute weights": off,
            "relative weights": off / norm,
            "scaled weights": off / other.numel(),
            "absolute features": moved.mean().item(),
            "relative features": (moved / size).mean().item(),
            "scaled features": moved.mean().item() / before.shape[1],
        }
        assert set(row.errors) == set(ERRORS)
        assert row.errors == pytest.approx(wanted, rel=1e-4)


def test_drops_are_those_of_a_changed_copy_on_evaluation_data(found, workload):
    original = measure(workload)
    assert found.original == pytest.approx({k: original[k].value for k in ("loss", "accuracy")})
    for row in found.rows[::3]:
        other = copy.deepcopy(workload.model)
        with torch.no_grad():
            other.get_submodule(row.layer).weight.copy_(approximated(workload, row))
        measured = measure(workload, other, workload.model)
        assert row.drops["kl"] == pytest.approx(measured["kl"].value, rel=1e-4)
        assert row.drops["loss"] == pytest.approx(measured["loss"].value - original["loss"].value, rel=1e-3, abs=1e-6)
        assert row.drops["accuracy"] == pytest.approx(original["accuracy"].value - measured["accuracy"].value)


def test_correlations_are_those_of_scipy(found):
    for one in found.correlations:
        some = {
            "all": lambda row: True,
            "50 % fewer and more": lambda row: row.fewer >= 0.5,
            "30 % fewer": lambda row: row.fewer == 0.3,
            "80 % fewer": lambda row: row.fewer == 0.8,
        }.get(one.selection, lambda row, name=one.selection: row.tensor_format == name)
        rows = [row for row in found.rows if some(row)]
        x = [row.drops["kl"] if one.error == "kl" else row.errors[one.error] for row in rows]
        wanted = stats.kendalltau(x, [row.drops[one.drop] for row in rows]).statistic
        assert one.count == len(rows)
        assert one.tau == pytest.approx(wanted, abs=1e-12, nan_ok=True)
        assert abs(one.tau_a) <= abs(one.tau) + 1e-12 or np.isnan(one.tau)
    assert {one.error for one in found.correlations if one.drop == "loss"} == {*ERRORS, "kl"}


def test_nothing_is_left_behind_and_a_second_run_says_the_same(found, workload):
    before = model_sha256(workload.model)
    again = study(workload, fewer=(0.3, 0.8))
    assert model_sha256(workload.model) == before
    assert again.to_json() == found.to_json()


def test_the_plot_is_written(found, tmp_path):
    draw(found, str(tmp_path / "study.png"))
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match=r"study\.nothing"):
        draw(found, str(tmp_path / "study.nothing"))


def test_arguments_that_cannot_be_meant(workload):
    with pytest.raises(UsageError, match="level of 1"):
        study(workload, fewer=(1.0,))
    with pytest.raises(UsageError, match="samples 1"):
        study(workload, samples=1)
    tiny = Workload(nn.Sequential(nn.Linear(3, 2)), *[[(torch.randn(2, 3), torch.zeros(2).long())] for _ in "ab"])
    with pytest.raises(UsageError, match="no layer to approximate"):
        study(tiny)
