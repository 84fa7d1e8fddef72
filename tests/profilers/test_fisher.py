import math

import numpy as np
import pytest
import torch

from allocator.errors import UsageError
from allocator.progress import silent
from allocator.tasks.guard import untouched
from allocator.workload import Workload
from profilers._labels import drawn, true
from profilers._plan import plan
from profilers.fisher import Fisher


def repeated(workload, space, seeds, labels):
    """Both scores of many seeds [seeds, …choices] on one plan, with the plan's changes."""
    with untouched(workload.model):
        laid_out = plan(workload, space)
        found = [Fisher(seed=s, labels=labels).measure(laid_out, silent).scores for s in range(seeds)]
        changes = [(t, p, d) for t in laid_out.targets for p, d in t.changes()]
        places = [(t, p) for t in laid_out.targets for p in range(len(t.menu))]
    runs = {name: np.array([[v for row in one[name].value for v in row] for one in found]) for name in found[0]}
    return runs, changes, places


def test_projection_has_the_exact_curvature_as_its_mean(workload, space, exact_curvature):
    runs, changes, places = repeated(workload, space, 12, 8)
    for target, place, delta in changes:
        column = runs["fisher_projected"][:, places.index((target, place))]
        error = column.std(ddof=1) / math.sqrt(len(column))
        exact = exact_curvature(workload, target.unit.weight, delta)
        assert abs(column.mean() - exact) < 4 * error, (target.name, target.menu[place].name)
        assert 0 < error < 0.5 * exact  # or the line above would say nothing


def test_diagonal_has_the_exact_one_as_its_mean(workload_of, space, exact_curvature):
    workload = workload_of("twice")
    runs, changes, places = repeated(workload, space, 12, 8)
    target, place, delta = next((t, p, d) for t, p, d in changes if t.name == "shared" and t.menu[p].name == "int2")
    one_by_one = 0.0
    for i in range(delta.numel()):
        alone = torch.zeros(delta.numel())
        alone[i] = delta.flatten()[i]
        one_by_one += exact_curvature(workload, target.unit.weight, alone.view_as(delta))
    column = runs["fisher"][:, places.index((target, place))]
    error = column.std(ddof=1) / math.sqrt(len(column))
    assert abs(column.mean() - one_by_one) < 4 * error
    assert error < 0.1 * one_by_one


def test_empirical_scores_square_the_slopes_of_the_true_loss(workload, space, loss_slopes):
    problem = Fisher(empirical=True).profile(workload, space)
    assert list(problem.scores) == ["fisher_empirical", "fisher_empirical_projected"]
    found = iter(problem.scores["fisher_empirical_projected"])
    for target in plan(workload, space).targets:
        changes = dict(target.changes())
        for place in range(len(target.menu)):
            if place not in changes:
                assert next(found) == 0
                continue
            slopes, counts = loss_slopes(workload, target.unit.weight, changes[place])
            assert next(found) == pytest.approx(float(slopes.square().sum() / counts.sum()) / 2, rel=1e-3)


def test_empirical_diagonal_squares_each_weight_alone(workload_of, space, loss_slopes):
    workload = workload_of("lm")
    problem = Fisher(empirical=True).profile(workload, space)
    target = next(t for t in plan(workload, space).targets if t.name == "layers.0.out")
    place, delta = next((p, d) for p, d in target.changes() if target.menu[p].name == "int2")
    wanted = 0.0
    for i in range(delta.numel()):
        alone = torch.zeros(delta.numel())
        alone[i] = delta.flatten()[i]
        slopes, counts = loss_slopes(workload, target.unit.weight, alone.view_as(delta))
        wanted += float(slopes.square().sum() / counts.sum()) / 2
    group = next(group for group in problem.groups if group.name == "layers.0.out")
    assert group.choices[place].score["fisher_empirical"] == pytest.approx(wanted, rel=1e-3)


def test_drawn_labels_have_mean_zero_and_the_softmax_covariance():
    logits, mask = torch.tensor([[[1.0, 0.0, -2.0], [0.0, 3.0, 0.0]]]), torch.tensor([[True, False]])
    generator = torch.Generator().manual_seed(0)
    rows = torch.cat([drawn(logits, mask, generator) for _ in range(20000)]).double()
    assert not rows[:, 1].any()
    p = torch.softmax(logits[0, 0].double(), -1)
    assert (rows[:, 0].mean(0).abs() < 4 * (p / len(rows)).sqrt()).all()
    covariance = rows[:, 0].T @ rows[:, 0] / len(rows)
    assert (covariance - (p.diag() - p.outer(p))).abs().max() < 4 / math.sqrt(len(rows))


def test_declaration_errors_and_seed(workload_of, space):
    problem = Fisher(labels=2).profile(workload_of("lm"), space)
    assert problem.score_specs["fisher"]["target"] == "kl"
    assert problem.score_specs["fisher"]["per"] == "token"
    names = [choice.name for group in problem.groups for choice in group.choices]
    for name in problem.scores:
        for choice, score, error in zip(names, problem.scores[name], problem.stderr[name], strict=True):
            assert (score == error == 0) if choice == "keep" else (score > 0 and error > 0)
    assert Fisher(empirical=True).profile(workload_of("lm"), space).score_specs["fisher_empirical"]["target"] == "proxy"
    again = Fisher(labels=2, cache_bytes=0).profile(workload_of("lm"), space)
    assert np.array_equal(again.scores["fisher"], problem.scores["fisher"])
    other = Fisher(labels=2, seed=1).profile(workload_of("lm"), space)
    assert not np.array_equal(other.scores["fisher"], problem.scores["fisher"])


def test_standard_errors_are_those_of_independent_data(workload_of, space):
    generator, net = torch.Generator().manual_seed(3), workload_of("twice").model
    other = [(torch.randn(2, 6, generator=generator), torch.zeros(2, dtype=torch.long))]
    draws, said = [], []
    for seed in range(16):
        data = [(torch.randn(40, 6, generator=generator), torch.zeros(40, dtype=torch.long))]
        problem = Fisher(seed=seed).profile(Workload(net, data, other), space)
        draws.append(problem.scores["fisher"])
        said.append(problem.stderr["fisher"])
    spread, mean = np.std(draws, axis=0, ddof=1), np.mean(said, axis=0)
    assert 0.5 < np.median(spread[mean > 0] / mean[mean > 0]) < 2


def test_bad_options_data_and_losses_are_refused(workload_of, space):
    workload = workload_of("embedding")
    single = Workload(workload.model, list(workload.calibration)[:1], workload.evaluation, workload.task)
    with pytest.raises(UsageError, match="several batches where a whole batch is one sample"):
        Fisher().profile(single, space)
    with pytest.raises(UsageError, match="labels=0"):
        Fisher(labels=0).profile(workload, space)

    class Cut:
        name = "cut"

        def mask(self, batch):
            return None

        def loss(self, logits, batch):
            return logits.detach().mean()

    with pytest.raises(UsageError, match="loss of task cut carries no gradient"):
        true(Cut(), torch.zeros(2, 3), None)


def test_a_sample_of_padding_alone_has_no_gradient(workload_of):
    task = workload_of("lm_padded").task
    batch = {"input_ids": torch.zeros(1, 3, dtype=torch.long), "attention_mask": torch.zeros(1, 3)}
    assert not true(task, torch.randn(1, 2, 5), batch).any()
