"""fidelity(): measurements are those of the applied network on evaluation data, and survive a kill."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

import allocator
from allocator.applier.apply import apply_
from allocator.errors import UsageError
from allocator.faithfulness.checking import fidelity
from allocator.profiling import profile
from allocator.statement import Basis, Pairs
from allocator.tasks.measurement import measure
from allocator.workload import Workload
from profilers._groups import model_sha256
from profilers.ggn import Ggn
from profilers.kl import Kl


@pytest.fixture
def problem(workload, space):
    return profile(workload, space, ("kl", "weight_error"))


def small(workload, problem, **options):
    return fidelity(workload, problem, **{"allocations": 8, **options})


def applied(workload, problem, rows):
    """The network with the actions of some rows, as the applier leaves it."""
    taken = {}
    for row in rows.tolist():
        group = problem.groups[int(problem.group_of[row])]
        choice = next(c for c in group.choices if c.row == row)
        taken[group.name] = {"action": choice.action, "modules": list(group.modules)}
    return apply_(copy.deepcopy(workload.model), taken)


def test_measured_is_what_the_applied_network_loses_on_evaluation_data(workload, problem):
    found = small(workload, problem)
    for i, whole in enumerate(found.wholes):
        wanted = measure(workload, applied(workload, problem, whole.rows), workload.model)["kl"]
        assert found.whole_loss[i] == pytest.approx(wanted.value, rel=1e-4, abs=1e-9)
        assert found.whole_stderr[i] == pytest.approx(wanted.stderr, rel=1e-4, abs=1e-9)
    assert {whole.kind for whole in found.wholes} == {"all", "low", "middle", "high", "uniform", "optimal"}


def test_single_choices_are_those_that_kl_measures_on_the_evaluation_data(workload, problem, space):
    found = small(workload, problem, allocations=0)
    swapped = Workload(workload.model, workload.evaluation, workload.calibration, workload.task)
    wanted = profile(swapped, space, Kl())
    assert found.singles.tolist() == list(range(problem.choice_count))
    assert np.array_equal(found.single_loss, wanted.scores["kl"])
    assert np.array_equal(found.single_stderr, wanted.stderr["kl"])
    assert not np.allclose(found.single_loss, problem.scores["kl"], rtol=0.2)


def test_calibration_data_decides_nothing_but_scores(make_workload, problem):
    workload, other = make_workload(), make_workload()
    found = small(workload, problem)
    shifted = [(5 * images + 1, classes) for images, classes in other.calibration]
    again = small(Workload(other.model, shifted, other.evaluation, other.task, other.name), problem)
    assert json.dumps(found.to_json()) == json.dumps(again.to_json())


def test_fewer_samples_are_the_first_ones(workload, problem):
    found = small(workload, problem, allocations=4, samples=33)
    assert found.samples == 33
    batch = tuple(torch.cat([part[k] for part in workload.evaluation])[:33] for k in (0, 1))
    less = Workload(workload.model, workload.calibration, [batch], workload.task)
    assert np.allclose(found.whole_loss, small(less, problem, allocations=4).whole_loss, rtol=1e-4, atol=1e-9)


def test_the_model_is_left_as_it_was(workload, problem):
    before = model_sha256(workload.model)
    state = torch.get_rng_state()
    small(workload, problem)
    assert model_sha256(workload.model) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert workload.model.body[2].weight is workload.model.body[0].weight


def test_scores_add_up_and_interactions_are_one_more_predictor(workload, problem):
    rng = np.random.default_rng(0)
    basis = Basis("kl", np.array([0.5, -0.2]), rng.normal(size=(problem.choice_count, 2)))
    last = problem.choice_count - 1
    pairs = Pairs("weight_error", np.array([[0, last]]), np.array([1.0]))
    both = problem.replace(interactions=(basis, pairs)).with_loss("kl", stderr_weight=2.0)
    found = small(workload, both, singles=3)
    names = ["kl", "kl with interactions", "weight_error", "weight_error with interactions"]
    names += ["weight_error_sum", "weight_error_relative"]
    assert [p.name for p in found.predictors] == names
    assert [p.in_nats for p in found.predictors] == [True, True, False, False, False, False]
    plain = problem.replace(interactions=(basis,)).with_loss("kl", stderr_weight=0.0)
    for i, whole in enumerate(found.wholes):
        assert found.whole_predicted[0, i] == pytest.approx(problem.scores["kl"][whole.rows].sum())
        wanted = plain.evaluate(whole.rows - problem.indptr[:-1]).loss
        assert found.whole_predicted[1, i] == pytest.approx(wanted)
    assert np.array_equal(found.single_predicted[0], problem.scores["kl"][found.singles])
    assert np.array_equal(found.single_predicted[1], found.single_predicted[0])
    own = {whole.about.partition(" at ")[0] for whole in found.wholes if whole.kind == "optimal"}
    assert own == set(names)


class StoppedError(Exception):
    pass


def test_a_stopped_run_goes_on_with_the_same_bytes(workload, problem, tmp_path):
    whole = json.dumps(small(workload, problem).to_json())

    def stop_early(stage, done, total):
        if stage == "measured" and done == 20:
            raise StoppedError

    with pytest.raises(StoppedError):
        small(workload, problem, resume=tmp_path, progress=stop_early)
    left = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert len(left) > 20
    assert json.dumps(small(workload, problem, resume=tmp_path).to_json()) == whole
    assert {p: p.stat().st_mtime_ns for p in left} == left


def test_other_data_or_weights_do_not_use_what_was_kept(make_workload, problem, tmp_path):
    small(make_workload(), problem, resume=tmp_path)
    other = make_workload(scale=2.0)
    assert json.dumps(small(other, problem, resume=tmp_path).to_json()) == json.dumps(small(other, problem).to_json())
    moved = make_workload()
    with torch.no_grad():
        moved.model.head.weight.mul_(1.1)
    found = small(moved, problem, resume=tmp_path)
    assert json.dumps(found.to_json()) == json.dumps(small(moved, problem).to_json())
    assert "other weights" in found.warnings[0]


def test_a_problem_calibrated_on_the_evaluation_data_is_refused(workload, space):
    swapped = Workload(workload.model, workload.evaluation, workload.calibration, workload.task)
    with pytest.raises(UsageError, match="50 evaluation samples of tiny are calibration samples"):
        small(workload, profile(swapped, space, "weight_error"))


def test_what_cannot_be_measured_is_refused(workload, problem):
    with pytest.raises(UsageError, match="no action"):
        small(workload, problem.replace(action_code=None, action_table=()))
    del workload.model.head
    with pytest.raises(allocator.errors.ActionError, match="group 'head'"):
        small(workload, problem)
    with pytest.raises(UsageError, match="allocations -1"):
        fidelity(workload, problem, allocations=-1)
    with pytest.raises(UsageError, match="samples 1"):
        fidelity(workload, problem, samples=1)


def test_too_few_samples_are_said(workload, problem):
    found = small(workload, problem, samples=12)
    assert found.relative_stderr > 0.1
    assert "over 12 samples: give about" in found.warnings[0]


class Leaving(nn.Module):
    """Returns what it got, and leaves something behind that the end of the network needs."""

    def __init__(self, behind):
        super().__init__()
        self.behind = behind

    def forward(self, x):
        self.behind.append(0.0)
        return x + 0


def test_a_network_whose_blocks_do_more_than_return_is_run_in_full(make_workload, problem):
    workload, behind = make_workload(), []
    plain = small(workload, problem, allocations=2)
    workload.model.stem.append(Leaving(behind))
    workload.model.head.register_forward_hook(lambda module, args, output: output + behind.pop())
    with pytest.warns(UserWarning, match="run in full"):
        found = small(workload, problem, allocations=2)
    assert np.array_equal(found.whole_loss, plain.whole_loss)
    assert np.array_equal(found.single_loss, plain.single_loss)


def test_rows_and_files_are_taken_too(workload, problem, tmp_path):
    path = tmp_path / "problem.json"
    allocator.save_problem(problem, path)
    first = small(workload, path, allocations=4, singles=2)
    assert np.array_equal(first.whole_loss, small(workload, problem, allocations=4, singles=2).whole_loss)
    assert len(first.singles) == 2


def test_kl_of_the_same_distribution_is_right_in_order_and_size(make_workload, space):
    """Calibration and evaluation alike, and many: what kl predicts for single choices is what is measured."""
    workload = make_workload(scale=1.0)
    g = torch.Generator().manual_seed(9)
    batch = (torch.randn(400, 1, 5, 5, generator=g), torch.randint(4, (400,), generator=g))
    many = Workload(workload.model, [batch], workload.evaluation, workload.task, "many")
    problem = profile(many, space, (Kl(), Ggn()))
    found = small(many, problem, allocations=0)
    singles = found.judgements["kl"].singles
    assert singles.spearman > 0.95
    assert singles.ratio.median == pytest.approx(1, abs=0.3)
    assert found.judgements["kl"].verdict == "cannot tell"


def test_the_function_is_one_of_the_package():
    assert allocator.fidelity is fidelity
