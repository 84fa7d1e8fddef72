import pytest
import torch
from torch import nn

from allocator.errors import UsageError
from allocator.profiling import profile
from allocator.space import Space
from allocator.workload import Workload


def measured(workload, space):
    problem = profile(workload, space, ["weight_error", "block_influence"])
    stats = {
        name: dict(zip(problem.group_names, column.tolist(), strict=True)) for name, column in problem.stats.items()
    }
    assert stats["importance"] == stats["block_influence"]
    return stats["importance"], problem.notes.meta["profilers"]["block_influence"]


def turn(pairs, dim):
    cosines = torch.cat([(1 - torch.cosine_similarity(a.double(), b.double(), dim)).flatten() for a, b in pairs])
    return float(cosines.mean())


@torch.no_grad()
def test_residual_blocks_of_a_transformer(workload_of, space):
    workload = workload_of("lm")
    pairs = {0: [], 1: []}
    for batch in workload.calibration:
        x = workload.model.embed(batch)
        for place, layer in enumerate(workload.model.layers):
            y = layer(x)
            pairs[place].append((x, y))
            x = y
    found, notes = measured(workload, space)
    for place, own in pairs.items():
        for layer in ("qkv", "out"):
            assert found[f"layers.{place}.{layer}"] == pytest.approx(turn(own, -1), rel=1e-5)
    assert found["embed"] == pytest.approx((found["layers.0.qkv"] + found["layers.1.qkv"]) / 2)
    assert notes["in_no_block"] == ["embed"]
    assert list(notes["blocks"]) == ["layers.0", "layers.1"]


@torch.no_grad()
def test_residual_blocks_of_a_convolutional_network_that_work_in_place(workload_of, space):
    workload = workload_of("cnn")
    pairs = {0: [], 1: []}
    for x, _ in workload.calibration:
        y = workload.model.stem(x)
        for place, stage in enumerate(workload.model.stages):
            before = y.clone()
            y = stage(y)
            directed = (before.norm(dim=1) > 0) & (y.norm(dim=1) > 0)
            pairs[place].append((before.movedim(1, -1)[directed], y.movedim(1, -1)[directed]))
    found, notes = measured(workload, space)
    for place, own in pairs.items():
        for layer in ("depthwise", "pointwise"):
            assert found[f"stages.{place}.{layer}"] == pytest.approx(turn(own, -1), rel=1e-5)
    assert notes["in_no_block"] == ["stem.0", "head"]


class Doubled(nn.Module):
    """Called by keyword, answers with a tuple, and turns every vector by a known angle."""

    def __init__(self, angle):
        super().__init__()
        c, s = torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))
        self.turn = nn.Linear(2, 2, bias=False)
        self.turn.weight.data = torch.stack([torch.stack([c, -s]), torch.stack([s, c])])

    def forward(self, *, scale, hidden_states):
        return scale * self.turn(hidden_states), None


class Turning(nn.Module):
    def __init__(self, *angles):
        super().__init__()
        self.layers = nn.ModuleList([Doubled(angle) for angle in angles])
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(scale=torch.tensor(2.0), hidden_states=x)[0]
        return self.head(x)


def turning(net, rows=(5, 2)):
    torch.manual_seed(0)
    data = [[(torch.randn(n, 2), torch.zeros(n, dtype=torch.long))] for n in rows]
    data[0][0][0][0] = 0  # no direction, so not counted
    return Workload(net, *data)


def test_a_known_angle():
    found, _ = measured(turning(Turning(0.5, 2.0)), Space.simple(bits=(8,), ranks=()))
    assert found["layers.0.turn"] == pytest.approx(1 - float(torch.cos(torch.tensor(0.5))), rel=1e-5)
    assert found["layers.1.turn"] == pytest.approx(1 - float(torch.cos(torch.tensor(2.0))), rel=1e-5)


def test_a_network_without_such_blocks_is_refused(workload_of, space):
    for name in ("twice", "time_first"):
        with pytest.raises(UsageError, match="block_influence found no block"):
            measured(workload_of(name), space)
    with pytest.raises(UsageError, match="block_influence found no block"):
        measured(turning(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))), space)
