"""What a traced sample says of each layer: how many positions its outputs and its inputs have."""

import torch
from torch import nn

import allocator
from allocator.applier import apply_
from allocator.profiling import profile
from allocator.space import Rule, Space
from allocator.tasks.guard import untouched
from allocator.workload import Workload
from profilers._plan import plan


class Strided(nn.Module):
    """Convolutions that change the number of positions, one of them by keyword, one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depthwise(input=torch.relu(self.down(x))))
        x = self.twice(torch.relu(self.twice(x)))
        return self.head(torch.relu(x).mean((2, 3)))


def workload() -> Workload:
    torch.manual_seed(0)
    data = [[(torch.randn(4, 4, 12, 10), torch.randint(3, (4,)))] for _ in range(2)]
    return Workload(Strided().eval(), data[0], data[1], "classification", "strided")


TENSORS = tuple(
    {"kind": kind, "fraction": 0.5, "parts": {"kind": "keep", "dtype": "float16"}} for kind in ("tucker2", "cp", "tt")
)
SPACE = Space((Rule(choices=(*TENSORS, {"kind": "keep", "dtype": "float32"})),))


def test_convolutions_know_the_positions_of_their_inputs() -> None:
    work = workload()
    with untouched(work.model):
        layers = {target.name: target.layer for target in plan(work, SPACE).targets}
    assert {name: (layer.positions, layer.input_positions) for name, layer in layers.items()} == {
        "down": (6 * 5, 12 * 10),
        "depthwise": (4 * 3, 6 * 5),
        "twice": (2 * 4 * 3, 2 * 4 * 3),
        "head": (1, None),
    }


def test_tensor_formats_are_costed_where_they_run_and_can_be_applied() -> None:
    work = workload()
    problem = profile(work, SPACE, profiler="weight_error")
    group = next(group for group in problem.groups if group.name == "down")
    macs = {choice.name: choice.cost["macs"] for choice in group.choices}
    assert macs == {
        "tucker5x2_keep_float16": 2 * 4 * 120 + 5 * 2 * 9 * 30 + 8 * 5 * 30,
        "cp8_keep_float16": 8 * (4 * 120 + 3 * (6 * 10) + 3 * 30 + 8 * 30),
        "tt6-3-3_keep_float16": 3 * 4 * 120 + 3 * 3 * 3 * (6 * 10) + 6 * 3 * 3 * 30 + 8 * 6 * 30,
        "keep": 8 * 4 * 9 * 30,
    }
    before = work.model.state_dict()["down.weight"].clone()
    solution = allocator.solve(problem, budgets="weight_bytes=60%")
    assert torch.equal(work.model.state_dict()["down.weight"], before)
    assert any(choice.startswith(("tucker", "cp", "tt")) for choice in solution.choices.values())
    x = work.calibration[0][0]
    with torch.no_grad():
        loose, applied = work.model(x), apply_(work.model, solution)(x)
    assert 0 < float((applied - loose).norm()) < float(loose.norm())
