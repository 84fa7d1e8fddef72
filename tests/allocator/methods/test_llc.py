"""Rounding directions as choices."""

import pytest
import torch

from allocator.methods.menus import directions
from allocator.methods.running import run
from allocator.space import Rule, Space
from allocator.workload import Workload


def test_llc_takes_the_direction_that_opposes_the_gradient(workload):
    """One weight row (7, 2.4, .4)/7 into logits (h, 0) and labels 0: the loss falls with every weight."""
    net = Slope()
    g = torch.Generator().manual_seed(0)
    batches = [(torch.rand(16, 3, generator=g) + 0.5, torch.zeros(16, dtype=torch.long)) for _ in range(2)]
    slope = Workload(net, batches[:1], batches[1:], "classification", "slope")
    four = {"kind": "quantize", "bits": 4, "scale_dtype": "float32"}
    space = Space((Rule(choices=(four, {"kind": "keep", "dtype": "float32"})),))
    found = run(slope, "llc[samples=12]", budgets="weight_bytes=86", space=space)
    assert dict(found.chosen.solution.choices) == {"layer": "int4_ceil"}  # codes 7, 3, 1
    names = [choice.name for choice in found.chosen.problem.groups[0].choices]
    assert names == ["int4", "int4_floor", "int4_ceil", "keep"]
    scores, costs = found.chosen.problem.scores["first_order"], found.chosen.problem.costs["weight_bytes"]
    assert scores[2] < 0 < scores[0] <= scores[1]
    assert len(set(costs[:3].tolist())) == 1
    nearest = run(slope, "llc[samples=12,directions=false]", budgets="weight_bytes=86", space=space)
    assert dict(nearest.chosen.solution.choices) == {"layer": "int4"}
    assert found.judged.value("loss").value < nearest.judged.value("loss").value
    # by hand: g = −mean(σ(−h) x), Δ = (0, .6, .6)/7, on the three quarters that are profiled
    x = batches[0][0][:12]
    h = x @ net.layer.weight.detach()[0]
    wanted = -(torch.sigmoid(-h)[:, None] * x).mean(0) @ torch.tensor([0, 0.6, 0.6]) / 7
    assert scores[2] == pytest.approx(float(wanted), rel=1e-4)


class Slope(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[7, 2.4, 0.4]]) / 7)

    def forward(self, x):
        h = self.layer(x)
        return torch.cat([h, torch.zeros_like(h)], 1)


def test_directions_leave_signs_and_other_choices_alone():
    space = directions(Space.simple(bits=(1, 2), ranks=(0.5,)))
    (rule,) = space.rules
    assert [c.get("rounding") for c in rule.choices] == [None, "nearest", "floor", "ceil", None, None]
    assert directions(space) == space
    pinned = Space((Rule(modules="head", choices="pin"),))
    assert directions(pinned) == pinned
    up = Space((Rule(choices=({"kind": "quantize", "bits": 1, "scheme": "asymmetric"},)),))
    assert len(directions(up).rules[0].choices) == 3
