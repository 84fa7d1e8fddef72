import pytest
import torch
from torch import nn

from allocator.space import Space
from allocator.tasks.batches import count, take
from allocator.workload import Workload
from profilers._run import run
from profilers.orthogonality import Orthogonality
from profilers.weight_error import WeightError

SPACE = Space.simple(bits=(4,), ranks=())


def likeness(workload, samples):
    problem = run((Orthogonality(samples=samples), WeightError()), workload, SPACE)
    return problem.stats["likeness"].tolist()


def dense(workload, samples):
    """ORM by its definition, from features one sample at a time."""
    outputs = {}
    ones = [take(b, i, i + 1) for b in workload.calibration for i in range(count(b))][:samples]
    layers = [m for m in workload.model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    for one in ones:
        found = {}

        def keep(module, _, output, found=found):
            found.setdefault(module, output.detach().double().flatten())

        handles = [m.register_forward_hook(keep) for m in layers]
        with torch.no_grad():
            workload.task.logits(workload.model, one)
        for handle in handles:
            handle.remove()
        for m, y in found.items():
            outputs.setdefault(m, []).append(y)
    Y = [torch.stack(outputs[m]) for m in layers]
    orm = [[float((b.T @ a).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm())) for b in Y] for a in Y]
    return [sum(row) - row[i] for i, row in enumerate(orm)]


@pytest.mark.parametrize(("name", "samples"), [("cnn", 5), ("cnn", 7), ("twice", 7), ("time_first", 6)])
def test_likeness_is_that_of_the_definition(workload_of, name, samples):
    workload = workload_of(name)
    assert likeness(workload, samples) == pytest.approx(dense(workload, samples), rel=1e-4)


def test_layers_with_orthogonal_and_with_equal_features():
    """Three layers on x = e_1, e_2: two answer e_1ᵀx and are alike, one answers e_2ᵀx and is like none of them."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(2, 1, bias=False) for _ in range(3))
            for layer, row in ((self.a, [1.0, 0]), (self.b, [2.0, 0]), (self.c, [0, 1.0])):
                layer.weight.data = torch.tensor([row])

        def forward(self, x):
            return torch.cat([self.a(x) + self.b(x), self.c(x)], -1)

    data = [(torch.eye(2), torch.tensor([0, 1]))]
    workload = Workload(Net(), data, [(torch.ones(1, 2), torch.tensor([0]))])
    assert likeness(workload, 0) == pytest.approx([1, 1, 0], abs=1e-12)
