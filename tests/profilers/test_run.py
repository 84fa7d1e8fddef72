"""What holds for every profiler: the model is handed back as it was, and what cannot be followed is refused."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from allocator.applier.inventory import outside_bytes
from allocator.applier.layers import units
from allocator.errors import ActionError, UsageError
from allocator.profiling import profile
from allocator.space import Rule, Space
from allocator.workload import Workload
from profilers.ggn import Ggn
from profilers.ggn_diag import GgnDiag
from profilers.kl import Kl
from profilers.weight_error import WeightError

ALL = (Ggn(), Kl(), WeightError())


def everything(model):
    """All that a profiler could leave behind."""
    return {
        "state": {k: (v.data_ptr(), v.clone()) for k, v in model.state_dict(keep_vars=True).items()},
        "buffers": [(id(b), b.clone()) for b in model.buffers()],
        "modes": [m.training for m in model.modules()],
        "grads": [(p.requires_grad, p.grad, p.is_leaf) for p in model.parameters()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), sorted(m.__dict__))
            for m in model.modules()
        ],
        "random": (random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()),  # noqa: NPY002
        "threads": torch.get_num_threads(),
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def disturbed(workload):
    """Modes, gradients and requires_grad as a user in the middle of training has them."""
    torch.manual_seed(9)
    parameters = list(workload.model.parameters())
    workload.model.train()
    next(iter(workload.model.children())).eval()
    parameters[0].requires_grad_(False)
    parameters[-1].grad = torch.ones_like(parameters[-1])
    return workload


def test_model_is_handed_back_bit_identical(workload, space):
    disturbed(workload)
    before = everything(workload.model)
    profile(workload, space, ALL)
    assert same(before, everything(workload.model))


@pytest.mark.parametrize("statistic", [*ALL, GgnDiag()])
def test_model_is_handed_back_after_an_interruption(workload_of, space, statistic):
    workload = disturbed(workload_of("cnn"))
    before = everything(workload.model)

    def stop(stage, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        statistic.profile(workload, space, stop)
    assert same(before, everything(workload.model))


def test_training_mode_does_not_show_in_scores(workload_of, space):
    quiet, loud = profile(workload_of("cnn"), space, ALL), profile(disturbed(workload_of("cnn")), space, ALL)
    for name in quiet.scores:
        assert np.array_equal(quiet.scores[name], loud.scores[name])


def test_groups_costs_and_provenance(workload_of, space):
    workload = workload_of("lm")
    problem = profile(workload, space, ("weight_error", "kl"))
    groups = {group.name: group for group in problem.groups}
    assert groups["embed"].modules == ("embed", "head")
    assert groups["embed"].weights == 88
    assert groups["embed"].tags == ("linear",)
    assert groups["layers.1.qkv"].tags == ("linear", "layers.1")
    choices = {choice.name: choice for choice in groups["layers.1.qkv"].choices}
    assert choices["int4"].cost == {"weight_bytes": 24 * 8 // 2 + 2 * 24, "macs": 192 * 6, "bops": 192 * 6 * 4 * 32}
    assert choices["keep"].cost["bops"] == 192 * 6 * 32 * 32
    assert {c.name: c.cost["macs"] for c in groups["embed"].choices}["int4"] == 88 * 6  # the head's: a lookup has none
    assert list(problem.loss.terms) == ["weight_error"]
    assert problem.reference == "keep"
    assert problem.resources["weight_bytes"].offset == outside_bytes(workload.model, units(workload.model))
    assert problem.notes.provenance["calibration"]["sample_digests"] == workload.digests("calibration")
    assert problem.notes.provenance["profiler"] == ["WeightError()", repr(Kl())]
    assert len(problem.notes.provenance["model_sha256"]) == 64


def test_skipped_layers_count_in_the_offsets_and_pinned_ones_in_groups(workload_of, space):
    whole = profile(workload_of("cnn"), space, "weight_error")
    rules = (Rule(modules="stem.*", choices="skip"), Rule(modules="head", choices="pin"), *space.rules)
    part = profile(workload_of("cnn"), Space(rules), ALL)
    names = [group.name for group in part.groups]
    assert names == [group.name for group in whole.groups if group.name != "stem.0"]
    assert part.resources["macs"].offset == 6 * 2 * 9 * 16
    assert part.resources["weight_bytes"].offset > whole.resources["weight_bytes"].offset + 4 * 6 * 2 * 9 - 200
    head = next(group for group in part.groups if group.name == "head")
    assert [choice.name for choice in head.choices] == ["keep"]
    assert part.notes.meta["skipped"] == ["stem.0"]


def test_depthwise_convolutions_get_no_rank(workload_of, space):
    groups = {group.name: group for group in profile(workload_of("cnn"), space, "weight_error").groups}
    assert [c.name for c in groups["stages.0.depthwise"].choices] == ["int2", "int4", "keep"]


def data(rows, *shape):
    return [(torch.randn(rows, *shape), torch.zeros(rows, dtype=torch.long))]


class ReadsWeights(nn.Module):
    """Two layers, of which one is never called."""

    def __init__(self):
        super().__init__()
        self.read, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        self.table = nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return self.head(torch.tanh(nn.functional.linear(x @ self.table, self.read.weight)))


def test_weights_read_past_their_module_are_refused_then_reported(space, skipping):
    torch.manual_seed(0)
    workload = Workload(ReadsWeights(), data(4, 8), data(2, 8))
    with pytest.raises(UsageError, match=r'read is never called.*a rule {"modules": "read", "choices": "skip"}'):
        profile(workload, space, "weight_error")
    problem = profile(workload, skipping("read"), ALL)
    assert [group.name for group in problem.groups] == ["head"]
    assert [u["name"] for u in problem.notes.meta["uncovered"]] == ["table"]


def test_networks_without_layers_choices_or_float32_are_refused(workload_of, space):
    with pytest.raises(UsageError, match="no layer to compress"):
        profile(Workload(nn.ReLU(), data(4, 3), data(2, 3)), space)
    with pytest.raises(UsageError, match="skips every layer"):
        profile(workload_of("cnn"), Space((Rule(choices="skip"),)))
    half = workload_of("twice")
    half.model.shared.double()
    with pytest.raises(UsageError, match=r"layer shared is torch.float64.*model.float\(\)"):
        profile(half, space)
    with pytest.raises(UsageError, match=r"rule 0 of the space, 'laier\*', names no layer.*stem.0"):
        profile(workload_of("cnn"), Space((Rule(modules="laier*", choices="skip"), *space.rules)))


def test_profilers_by_name_instance_and_their_errors(workload_of, space):
    workload = workload_of("twice")
    assert next(iter(profile(workload, space, ["kl", WeightError()]).scores)) == "kl"
    assert list(profile(workload, None, "ggn_diag").scores) == ["ggn_diag"]
    with pytest.raises(UsageError, match=r"there is no profiler .hesian.*known: .*ggn, .*kl, .*weight_error"):
        profile(workload, space, "hesian")
    with pytest.raises(UsageError, match="no profiler was given"):
        profile(workload, space, ())
    with pytest.raises(UsageError, match="two profilers measure 'kl'"):
        profile(workload, space, ["kl", Kl(samples=3)])

    class Foreign:
        def profile(self, workload, space):
            return Kl().profile(workload, space)

    assert list(profile(workload, space, Foreign()).scores) == ["kl"]
    with pytest.raises(UsageError, match="Foreign cannot share a problem"):
        profile(workload, space, ["ggn", Foreign()])


def test_choices_that_cannot_be_done_name_the_layer(workload_of):
    gptq = Space((Rule(choices=({"kind": "quantize", "bits": 4, "method": "gptq", "rounding": "ceil"},)),))
    with pytest.raises(ActionError, match=r"layer stem.0 and choice .*gptq"):
        profile(workload_of("cnn"), gptq)
