"""Layers whose class has a forward of its own: their menus have ranks where those can be run, with the right scores."""

import copy

import numpy as np
import torch
from torch import nn

from allocator.applier import apply_
from allocator.profiling import profile
from allocator.space import Rule, Space
from allocator.tasks.positions import divergence
from allocator.workload import Workload
from profilers.kl import Kl

MENU = (
    {"kind": "low_rank", "fraction": 0.25},
    {"kind": "tucker2", "rank_out": 2, "rank_in": 2, "parts": {"kind": "keep"}},
    {"kind": "quantize", "bits": 4},
)


class Same(nn.Conv2d):
    def forward(self, x):
        return nn.functional.conv2d(nn.functional.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class Standardised(Same):
    def forward(self, x):
        weight = self.weight / self.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return nn.functional.conv2d(x, weight, self.bias)


def test_choices_are_offered_where_they_can_be_run_and_scored_as_they_run():
    torch.manual_seed(0)
    model = nn.Sequential(
        Same(2, 8, 2), nn.ReLU(), Standardised(8, 8, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()  # fmt: skip
    batch = torch.randn(6, 2, 5, 5), torch.arange(6) % 3
    workload = Workload(model, [batch], [(torch.randn(2, 2, 5, 5), torch.arange(2))])
    problem = profile(workload, Space((Rule(choices=MENU),)), Kl())
    names = {group.name: [choice.name for choice in group.choices] for group in problem.groups}
    assert len(names["0"]) == 3
    assert names["2"] == ["int4"]
    first = problem.groups[0]
    assert first.name == "0"
    for row, choice in enumerate(first.choices):
        other = apply_(copy.deepcopy(model), {"0": {"action": choice.action}})
        with torch.no_grad():
            wanted = float(divergence(model(batch[0]), other(batch[0])).mean())
        np.testing.assert_allclose(problem.scores["kl"][row], wanted, rtol=1e-3)
        assert wanted > 1e-7
