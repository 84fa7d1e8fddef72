import copy

import numpy as np
import pytest
import torch
from torch import nn

from allocator.applier.approximate import approximate
from allocator.errors import UsageError
from allocator.space import Space
from allocator.tasks.positions import divergence
from allocator.workload import Workload
from profilers._blocks import blocks, inside
from profilers._plan import plan
from profilers._replay import record, replay
from profilers.kl import Kl


def naive(workload, space):
    """Every choice by a full forward pass of a copy whose weight is replaced."""
    scores = []
    for place, target in enumerate(plan(workload, space).targets):
        for item in target.menu:
            other = copy.deepcopy(workload.model)
            weight = plan(Workload(other, workload.calibration, [], workload.task), space).targets[place].unit.weight
            weight.data.copy_(approximate(weight, item.action, target.layer))
            mass = 0
            sums = []
            for batch in workload.calibration:
                with torch.no_grad():
                    base, changed = workload.task.logits(workload.model, batch), workload.task.logits(other, batch)
                values, mask = divergence(base, changed), workload.task.mask(batch)
                keep = torch.ones(values.shape, dtype=torch.bool) if mask is None else mask
                sums.append(torch.where(keep, values, 0).reshape(len(values), -1).sum(1))
                mass += int(keep.sum())
            total = float(torch.cat(sums).sum())
            scores.append(total / mass)
    return np.array(scores)


def test_remembered_prefixes_give_the_very_bits_of_full_passes(workload, space):
    cached = Kl().profile(workload, space)
    assert np.array_equal(cached.scores["kl"], naive(workload, space))
    assert np.array_equal(cached.scores["kl"], Kl(cache_bytes=0).profile(workload, space).scores["kl"])
    assert np.array_equal(cached.stderr["kl"], Kl(cache_bytes=1).profile(workload, space).stderr["kl"])
    assert (cached.scores["kl"] != 0).sum() > 3


def test_blocks_before_the_layer_are_not_run_again(workload_of, space):
    ran = {}
    for cache in (0, 1 << 30):
        workload = workload_of("cnn")
        count = [0]
        # A bare function on the instance, so that remembered calls (which replace forward) are not counted.
        inner = workload.model.stem[0]

        def counting(x, inner=inner, count=count):
            count[0] += 1
            return inner._conv_forward(x, inner.weight, inner.bias)

        inner.forward = counting
        Kl(cache_bytes=cache).profile(workload, space)
        assert inner.__dict__["forward"] is counting
        ran[cache] = count[0]
    # "keep" is not run, and a layer whose forward is patched cannot be factored; the layer counted is the first
    choices, layers, batches = 2, 6, 2
    assert ran[1 << 30] == 1 + batches + 1 + choices * batches  # layout, recording, check of its own cut, its choices
    assert ran[0] > layers * batches


def test_blocks_of_containers_bodies_and_lone_layers():
    body = nn.Module()
    body.embed, body.layers = nn.Linear(2, 2), nn.ModuleList([nn.Sequential(nn.Linear(2, 2)), nn.Bilinear(2, 2, 2)])
    net = nn.Module()
    net.body, net.head = body, nn.Linear(2, 2)
    assert list(blocks(net)) == [body.embed, body.layers[0][0], body.layers[1], net.head]


def test_inside_a_block_is_what_stands_beside_its_layers():
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), nn.Sequential(nn.ReLU()))
    assert list(inside(net, [net[0], net[1][1]])) == [net[0], net[1], net[1][0], net[1][1], net[2]]
    assert list(inside(net[0], [net[0]])) == []


class Stacked(nn.Module):
    """Hands features past its blocks' outputs."""

    def __init__(self, fail: bool) -> None:
        super().__init__()
        self.stack = []
        self.blocks = nn.ModuleList([Push(self.stack), nn.Linear(4, 4), nn.Linear(4, 4)])
        self.fail = fail

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        if self.fail:
            return x + self.stack.pop()
        kept = sum(self.stack)
        self.stack.clear()
        return x + kept


class Push(nn.Module):
    def __init__(self, stack: list) -> None:
        super().__init__()
        self.stack, self.fc = stack, nn.Linear(4, 4)

    def forward(self, x):
        self.stack.append(x)
        return self.fc(x)


@pytest.mark.parametrize("fail", [True, False])
def test_blocks_that_talk_past_their_outputs_are_run_in_full_with_a_warning(fail, space):
    torch.manual_seed(0)
    data = [(torch.randn(6, 4), torch.zeros(6, dtype=torch.long))]
    other = [(torch.randn(2, 4), torch.zeros(2, dtype=torch.long))]
    workload = Workload(Stacked(fail), data, other)
    with pytest.warns(UserWarning, match="kl runs it in full"):
        found = Kl().profile(workload, space).scores["kl"]
    assert np.array_equal(found, naive(workload, space))


def test_samples_takes_the_first_ones_only(workload_of, space):
    workload = workload_of("cnn")
    (x, y), (x2, y2) = workload.calibration
    first_five = Workload(workload.model, [(x, y), (x2[:1], y2[:1])], workload.evaluation)
    assert np.array_equal(
        Kl(samples=5).profile(workload, space).scores["kl"], Kl().profile(first_five, space).scores["kl"]
    )
    with pytest.raises(UsageError, match="at least 2 calibration samples"):
        Kl(samples=1).profile(workload, space)


def test_declaration_and_standard_error(workload_of):
    workload = workload_of("twice")
    problem = Kl().profile(workload, Space.simple(bits=(2,), ranks=()))
    assert {k: problem.score_specs["kl"][k] for k in ("unit", "target", "per")} == {
        "unit": "nat",
        "target": "kl",
        "per": "sample",
    }
    target = plan(workload, Space.simple(bits=(2,), ranks=())).targets[0]
    other = copy.deepcopy(workload.model)
    other.shared.weight.data.copy_(target.approximation(0))
    inputs = torch.cat([x for x, _ in workload.calibration])
    with torch.no_grad():
        each = divergence(workload.model(inputs), other(inputs)).numpy()
    assert problem.scores["kl"][0] == pytest.approx(each.mean(), rel=1e-9)
    assert problem.stderr["kl"][0] == pytest.approx(each.std(ddof=1) / len(each) ** 0.5, rel=1e-9)


def test_progress_reaches_the_total(workload_of, space):
    for cache in (1, 1 << 30):
        calls = []
        Kl(cache_bytes=cache).profile(workload_of("cnn"), space, lambda *call, calls=calls: calls.append(call))
        assert [done for _, done, _ in calls] == sorted({done for _, done, _ in calls})
        assert calls[-1][1] == calls[-1][2]


class Inner(nn.Module):
    """A block of two layers; the second writes to what the first returned where its own weight is small."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.limit = nn.Linear(4, 4), nn.Linear(4, 4), 1e9
        self.ran = 0

    def forward(self, x):
        y = self.first(x)
        self.ran += 1
        if self.second.weight.abs().max() < self.limit:
            y.mul_(2)
        return self.second(y)


def inner_net(limit: float) -> tuple[Workload, Inner]:
    torch.manual_seed(0)
    block = Inner()
    net = nn.Sequential(block, nn.Linear(4, 3))
    block.limit = limit
    data = [(torch.randn(12, 4), torch.zeros(12, dtype=torch.long))]
    return Workload(net, data, [(torch.randn(2, 4), torch.zeros(2, dtype=torch.long))]), block


@pytest.mark.parametrize("limit", [0.0, 1e9], ids=["unwritten", "written"])
def test_layers_inside_a_block_are_remembered_whether_or_not_they_are_written_to(limit, space):
    workload, _ = inner_net(limit)
    assert np.array_equal(Kl().profile(workload, space).scores["kl"], naive(workload, space))
    batch = workload.calibration[0]
    net = workload.model
    with torch.no_grad():
        seen = record(
            workload.task, net, batch, [net[0], net[1]], list(net[0].children()), list(net[0].children()), 1 << 20
        )
    assert [block for block, _ in seen.before([net[0].second])] == [net[0].first]
    assert [block for block, _ in seen.before([net[1]])] == []  # not watched
    assert (seen.calls[net[0].first].versions is None) == (limit > 0)


def test_an_output_that_is_written_to_only_this_time_is_forgotten(space):
    workload, block = inner_net(0.0)
    net, batch = workload.model, workload.calibration[0]
    with torch.no_grad():
        seen = record(workload.task, net, batch, [net[0], net[1]], [block.second], [block.first], 1 << 20)
        block.limit = 1e9
        wanted = net(batch[0])
        for _ in range(2):
            assert torch.equal(replay(workload.task, net, seen, seen.before([block.second])), wanted)
    assert block.first not in seen.calls


def test_room_bounds_what_is_remembered_inside_blocks():
    workload, block = inner_net(0.0)
    net, batch = workload.model, workload.calibration[0]
    with torch.no_grad():
        seen = record(workload.task, net, batch, [net[0]], [block.second], list(block.children()), 12 * 4 * 4)
    assert set(seen.calls) == {net[0], block.first}
