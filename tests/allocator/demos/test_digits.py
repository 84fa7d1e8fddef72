import copy

import numpy as np
import pytest
import torch

from allocator.demos import digits
from allocator.profiling import profile
from allocator.tasks.measurement import evaluate
from profilers.kl import Kl


@pytest.fixture(scope="module")
def workload():
    state = torch.get_rng_state()
    made = digits.workload()
    assert torch.equal(torch.get_rng_state(), state)
    return made


def test_the_network_is_good_and_the_data_apart(workload):
    parts = workload.check()
    assert [len(parts[part]) for part in ("calibration", "evaluation")] == [256, 500]
    assert evaluate(workload)["accuracy"]["value"] >= 0.98
    assert 30_000 < sum(p.numel() for p in workload.model.parameters()) < 40_000
    assert not any(p.grad is not None for p in workload.model.parameters())


def test_training_is_deterministic():
    images, classes = digits.data()
    nets = [digits.train(images[500:628], classes[500:628]) for _ in range(2)]
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_one_backward_pass_ranks_choices_as_measured_kl_does(workload):
    problem = profile(workload, digits.space(), ("ggn", Kl()))
    assert problem.group_count == 6
    assert problem.resources["weight_bytes"].offset > 0
    ggn, kl = problem.scores["ggn"], problem.scores["kl"]
    order = [np.argsort(np.argsort(column)) for column in (ggn, kl)]
    assert np.corrcoef(order)[0, 1] > 0.97


def test_kl_predicts_what_a_choice_does_to_held_out_digits(workload):
    problem = profile(workload, digits.space(), "kl")
    place = {(g.name, c.name): i for i, (g, c) in enumerate((g, c) for g in problem.groups for c in g.choices)}
    found = {}
    for name in ("features.1.0", "classes"):
        other = copy.deepcopy(workload.model)
        weight = other.get_submodule(name).weight
        scale = weight.flatten(1).abs().amax(1).view(-1, *[1] * (weight.dim() - 1)).half().float()
        weight.data.copy_((weight / scale).round().clamp(-1, 1) * scale)  # two bits, by hand
        found[name] = evaluate(workload, other, workload.model)["kl"]["value"]
    measured = {name: problem.scores["kl"][place[name, "int2"]] for name in found}
    assert 1 / 5 < (found["classes"] / found["features.1.0"]) / (measured["classes"] / measured["features.1.0"]) < 5
