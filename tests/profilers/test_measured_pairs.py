import copy
import itertools

import pytest
import torch

from allocator.errors import UsageError
from allocator.space import Space
from allocator.tasks.positions import divergence, per_sample
from profilers._plan import plan
from profilers.measured_pairs import MeasuredPairs

SPACE = Space.simple(bits=(2, 4), ranks=())


def rise(workload, weights, kind):
    """Mean rise of the loss with these parameters replaced in a copy."""
    changed = copy.deepcopy(workload.model)
    with torch.no_grad():
        for place, weight in weights.items():
            list(changed.parameters())[place].copy_(weight)
        total = mass = 0.0
        for batch in workload.calibration:
            before, after = (workload.task.logits(model, batch) for model in (workload.model, changed))
            if kind == "kl":
                sums, counts = per_sample(divergence(before, after), workload.task.mask(batch))
            else:
                ends = [workload.task.metrics(logits, batch)["loss"] for logits in (after, before)]
                sums, counts = ends[0][0] - ends[1][0], ends[0][1]
            total, mass = total + float(sums.sum()), mass + float(counts.sum())
    return total / mass


@pytest.mark.parametrize(("name", "kind"), [("twice", "ce"), ("lm_padded", "kl"), ("embedding", "ce")])
def test_loss_of_one_and_of_two_changed_layers_is_the_measured_one(workload_of, name, kind):
    workload = workload_of(name)
    problem = MeasuredPairs(samples=0, measure_by=kind).profile(workload, SPACE)
    targets = plan(workload, SPACE).targets
    keep = [[item.name for item in target.menu].index("keep") for target in targets]
    parameters = list(workload.model.parameters())
    places = [[p is target.unit.weight for p in parameters].index(True) for target in targets]
    largest = 0.0
    for a, b in itertools.combinations(range(len(targets)), 2):
        for i, j in itertools.product(range(len(targets[a].menu)), range(len(targets[b].menu))):
            choice = list(keep)
            choice[a], choice[b] = i, j
            weights = {places[a]: targets[a].approximation(i), places[b]: targets[b].approximation(j)}
            wanted = rise(workload, weights, kind)
            assert problem.evaluate(choice).loss == pytest.approx(wanted, rel=1e-4, abs=1e-7)
            largest = max(largest, abs(problem.evaluate(choice).loss - problem.unary[_rows(problem, choice)].sum()))
    assert largest > 1e-5  # there is something between the layers
    assert problem.score_specs["measured_pairs"]["target"] == kind


def _rows(problem, choice):
    return problem.indptr[:-1] + torch.tensor(choice).numpy()


def test_what_cannot_be_measured_is_refused(workload_of, space):
    with pytest.raises(UsageError, match="pairs of choices, a forward pass each, and most=3"):
        MeasuredPairs(most=3).profile(workload_of("cnn"), space)
    with pytest.raises(UsageError, match="no measure_by='l2'"):
        MeasuredPairs(measure_by="l2").profile(workload_of("twice"), space)  # type: ignore[arg-type]
