import copy

import pytest
import torch

from allocator.errors import UsageError
from allocator.tasks.positions import divergence, per_sample
from allocator.workload import Workload
from profilers._plan import plan
from profilers._single import first
from profilers.first_order import FirstOrder
from profilers.ggn import Ggn
from profilers.remainder import Remainder


def rise(workload, place, weight, batches, kind):
    """Mean rise of the loss, or divergence, of a copy with that parameter replaced."""
    changed = copy.deepcopy(workload.model)
    with torch.no_grad():
        list(changed.parameters())[place].copy_(weight)
        total = mass = 0.0
        for batch in batches:
            before, after = (workload.task.logits(model, batch) for model in (workload.model, changed))
            if kind == "kl":
                sums, counts = per_sample(divergence(before, after), workload.task.mask(batch))
            else:
                ends = [workload.task.metrics(logits, batch)["loss"] for logits in (after, before)]
                sums, counts = ends[0][0] - ends[1][0], ends[0][1]
            total, mass = total + float(sums.sum()), mass + float(counts.sum())
    return total / mass


@pytest.mark.parametrize("name", ["cnn", "lm_padded", "twice", "embedding"])
@pytest.mark.parametrize(("expansion", "kind"), [(FirstOrder(), "ce"), (Ggn(), "kl")])
def test_remainders_are_measured_less_predicted_on_the_same_rows(workload_of, space, name, expansion, kind):
    workload, rows = workload_of(name), 0 if name == "embedding" else 6
    problem = Remainder(of=expansion.name, samples=rows).profile(workload, space)
    batches = list(first(workload.calibration, rows or None))
    assert torch.equal(
        torch.tensor(problem.scores[expansion.name]),
        torch.tensor(expansion.profile(workload, space).scores[expansion.name]),
    )  # on all data
    nearby = Workload(workload.model, batches, workload.evaluation, workload.task)
    predicted = expansion.profile(nearby, space).scores[expansion.name]
    row = 0
    for target in plan(workload, space).targets:
        place = [p is target.unit.weight for p in workload.model.parameters()].index(True)
        for choice, item in enumerate(target.menu):
            measured = rise(workload, place, target.approximation(choice), batches, kind)
            wanted = abs(measured - predicted[row])
            assert problem.remainder[expansion.name][row] == pytest.approx(wanted, rel=1e-4, abs=1e-7), item.name
            row += 1
    assert problem.remainder[expansion.name].max() > 1e-4
    assert list(problem.loss.terms) == [expansion.name]


def test_what_is_no_expansion_is_refused(workload_of, space):
    for of in ("weight_error", "remainder", "block_influence"):
        with pytest.raises(UsageError, match=f"of='{of}' of remainder|no residual|block_influence found no block"):
            Remainder(of=of).profile(workload_of("twice"), space)
    with pytest.raises(UsageError, match="no profiler 'nothing'"):
        Remainder(of="nothing").profile(workload_of("twice"), space)
    with pytest.raises(UsageError, match="2 are the least"):
        Remainder(samples=1).profile(workload_of("twice"), space)
