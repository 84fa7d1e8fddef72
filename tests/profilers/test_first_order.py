import numpy as np
import pytest
import torch

from allocator.errors import UsageError
from allocator.profiling import profile
from allocator.tasks.measurement import ratio
from allocator.workload import Workload
from profilers._plan import plan
from profilers.first_order import FirstOrder


def test_scores_are_the_slopes_of_the_true_loss_with_their_errors(workload, space, loss_slopes):
    problem = FirstOrder().profile(workload, space)
    found = iter(zip(problem.scores["first_order"], problem.stderr["first_order"], strict=True))
    beyond = changed = 0
    for target in plan(workload, space).targets:
        changes = dict(target.changes())
        for place in range(len(target.menu)):
            score, error = next(found)
            if place not in changes:
                assert score == error == 0
                continue
            slopes, counts = loss_slopes(workload, target.unit.weight, changes[place])
            wanted = ratio(slopes, counts)
            assert score == pytest.approx(wanted.value, rel=1e-3, abs=1e-3 * wanted.stderr)  # signed
            assert error == pytest.approx(wanted.stderr, rel=1e-3)
            changed, beyond = changed + 1, beyond + (abs(score) > 2 * error)
    notes = problem.notes.meta["profilers"]["first_order"]
    assert notes["choices_that_change_the_weight"] == changed
    assert notes["beyond_2_stderr"] == beyond
    assert problem.score_specs["first_order"]["target"] == "ce"


def test_at_a_minimum_few_choices_stand_out(space):
    """Labels drawn from the network make its own weights the best ones."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    shares = []
    for _ in range(20):
        x = torch.randn(60, 6)
        with torch.no_grad():
            labels = torch.multinomial(torch.softmax(net(x), -1), 1).squeeze(1)
        workload = Workload(net, [(x, labels)], [(torch.randn(2, 6), torch.zeros(2, dtype=torch.long))])
        notes = FirstOrder().profile(workload, space).notes.meta["profilers"]["first_order"]
        shares.append(notes["beyond_2_stderr"] / notes["choices_that_change_the_weight"])
    assert np.mean(shares) < 0.2  # 5 % but for the correlation of the choices
    x = torch.randn(2000, 6)
    wrong = Workload(net, [(x, (x[:, 0] > 0).long())], workload.evaluation)
    notes = FirstOrder().profile(wrong, space).notes.meta["profilers"]["first_order"]
    assert notes["beyond_2_stderr"] > 1


def test_it_is_no_loss_when_listed_second(workload_of, space):
    problem = profile(workload_of("cnn"), space, ["ggn", "first_order"])
    assert list(problem.loss.terms) == ["ggn"]
    assert (problem.scores["first_order"] < 0).any()


def test_one_sample_is_refused(workload_of, space):
    workload = workload_of("embedding")
    single = Workload(workload.model, list(workload.calibration)[:1], workload.evaluation, workload.task)
    with pytest.raises(UsageError, match="first_order needs at least 2"):
        FirstOrder().profile(single, space)
