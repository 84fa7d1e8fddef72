import copy

import pytest
import torch
from torch import nn

from allocator.errors import UsageError
from allocator.tasks.batches import count, take
from allocator.tasks.measurement import ratio
from allocator.workload import Workload
from profilers._plan import plan
from profilers._project import Call
from profilers.output_fisher import OutputFisher, _products


def dense(workload, weight, delta):
    """(Σ g² Δy² of every sample, positions), one sample and one call at a time, by autograd on the whole network."""
    model, task = workload.model, workload.task
    place = [p is weight for p in model.parameters()].index(True)
    changed = copy.deepcopy(model)
    list(changed.parameters())[place].data += delta
    sums, masses = [], []
    batches = list(workload.calibration)
    ones = [take(b, i, i + 1) for b in batches for i in range(count(b))] if task.name != "embedding" else batches
    for one in ones:
        seen = []

        def keep(module, args, output, seen=seen):
            output.requires_grad_() if not output.requires_grad else output.retain_grad()
            seen.append((module, args[0].detach().clone(), output))
            return output.clone()  # what follows may work in place

        modules = [m for m in model.modules() if getattr(m, "weight", None) is weight]
        handles = [m.register_forward_hook(keep) for m in modules]
        logits = task.logits(model, one)
        for handle in handles:
            handle.remove()
        mask = task.mask(one)
        mass = float(logits[..., 0].numel() if mask is None else mask.sum())
        gradients = torch.autograd.grad(task.loss(logits, one) * mass, [o for *_, o in seen])
        total = 0.0
        for (module, x, output), g in zip(seen, gradients, strict=True):
            name = next(n for n, m in model.named_modules() if m is module)
            with torch.no_grad():
                moved = changed.get_submodule(name)(x) - output
            total += float((g.double() * moved.double()).square().sum())
        sums.append(total)
        masses.append(mass)
    return torch.tensor(sums, dtype=torch.float64), torch.tensor(masses, dtype=torch.float64)


@pytest.mark.parametrize("name", ["cnn", "lm", "lm_padded", "twice", "time_first", "embedding"])
def test_scores_are_those_of_autograd_sample_by_sample(workload_of, space, name):
    workload = workload_of(name)
    problem = OutputFisher().profile(workload, space)
    found = iter(zip(problem.scores["output_fisher"], problem.stderr["output_fisher"], strict=True))
    for target in plan(workload, space).targets:
        changes = dict(target.changes())
        for place in range(len(target.menu)):
            score, error = next(found)
            if place not in changes:
                assert score == error == 0
                continue
            wanted = ratio(*dense(workload, target.unit.weight, changes[place]))
            assert score == pytest.approx(wanted.value, rel=1e-3)
            assert error == pytest.approx(wanted.stderr, rel=1e-3)


def test_one_layer_by_hand():
    """Δ moves the first of two outputs by 3x: x = 1, 2; gradients ∓½ and ±½. g²Δy² = ¼·9 and ¼·36."""
    call = Call(nn.Linear(1, 2, bias=False), torch.tensor([[1.0], [2.0]]), ((), {}))
    gradient = torch.tensor([[-0.5, 0.5], [0.5, -0.5]])
    assert _products(call, gradient, torch.tensor([[[3.0], [0.0]]]), 2).tolist() == [[0.25 * 9], [0.25 * 36]]


def test_one_sample_is_refused(workload_of, space):
    workload = workload_of("embedding")
    single = Workload(workload.model, list(workload.calibration)[:1], workload.evaluation, workload.task)
    with pytest.raises(UsageError, match="output_fisher needs at least 2"):
        OutputFisher().profile(single, space)
