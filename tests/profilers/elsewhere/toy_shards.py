"""A workload and a statistic that a worker process can import, as a user's own package would offer them."""

import os
import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from allocator.errors import UsageError
from allocator.workload import Workload
from profilers._findings import Findings
from profilers._run import Profiler
from profilers._score import Score
from profilers._shards import sharded
from profilers._switch import switched


class Net(nn.Module):
    """Eight layers, two of which share a weight; as slow as the environment says."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.first.weight
        self.rest = nn.Sequential(*[nn.Linear(8, 8) for _ in range(6)])

    def forward(self, x):
        time.sleep(float(os.environ.get("TOY_PAUSE", "0")))
        return self.rest(torch.tanh(self.again(torch.tanh(self.first(x)))))


def workload():
    generator = torch.Generator().manual_seed(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        net = Net()
    data = [
        [(torch.randn(n, 8, generator=generator), torch.randint(8, (n,), generator=generator)) for n in rows]
        for rows in ((4, 3), (5,))
    ]
    return Workload(net, data[0], data[1], "classification", "toy")


@dataclass(frozen=True, kw_only=True)
class Toy(Profiler):
    """The cross entropy with one layer changed, a shard per layer."""

    name: ClassVar[str] = "toy"
    scale: float = 1.0

    def measure(self, plan, progress):
        with torch.no_grad():
            pieces = list(sharded(plan, "toy", self, range(len(plan.targets)), self.work, progress))
        losses = [piece["loss"].tolist() for piece in pieces]
        return Findings(scores={"toy": Score(losses, None, unit="nat", target="ce", per="sample")})

    def work(self, plan, key):
        task, model, target = plan.workload.task, plan.workload.model, plan.targets[key]
        losses = []
        for place in range(len(target.menu)):
            with switched(target.unit.weight, target.approximation(place)):
                losses.append(sum(task.loss(task.logits(model, b), b) for b in plan.workload.calibration))
        return {"loss": torch.stack(losses).double() * self.scale}


@dataclass(frozen=True)
class Look:
    """What a shard sees of its surroundings."""

    def work(self, plan, key):
        if key == "refuse":
            raise UsageError("refused")
        if key == "end":
            os._exit(9)
        if key == "slow":
            time.sleep(0.5)
        parameters = list(plan.workload.model.parameters())
        plan.memory["seen"] = plan.memory.get("seen", 0) + 1
        seen = {
            "process": os.getpid(),
            "threads": torch.get_num_threads(),
            "gradients": torch.is_grad_enabled(),
            "trained": sum(p.requires_grad for p in parameters),
            "tied": plan.workload.model.first.weight is plan.workload.model.again.weight,
            "own": any(plan.targets[0].unit.weight is p for p in parameters),
            "training": plan.workload.model.training,
            "model": id(plan.workload.model),
            "memory": plan.memory["seen"],
        }
        for p in parameters:
            p.requires_grad_(False)
        return {name: torch.tensor(int(value)) for name, value in seen.items()}
