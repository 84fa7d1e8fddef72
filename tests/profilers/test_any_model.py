"""Networks of all sorts: every profiler works on them and hands them back, or says in words why not."""

import copy
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

import allocator
from allocator import registry
from allocator.actions import parse
from allocator.applier import apply_, approximate, compress, load_compressed, outside_bytes, units
from allocator.applier.opening import Opening
from allocator.errors import AllocatorError, UsageError
from allocator.profiling import profile
from allocator.space import Space
from allocator.tasks.positions import divergence
from allocator.workload import Workload
from profilers._findings import Findings
from profilers._sketch import Sketch
from profilers.ggn import Ggn

SPACE = Space.simple(bits=(2,), ranks=(0.5,))
NAMES = sorted(registry.entries("profilers"))


def encoder_layer():
    return nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)


class Calls(nn.Module):
    """A body between a layer and a head, called as it is told."""

    def __init__(self, body, inputs=8, width=8, how=lambda body, x: body(x)):
        super().__init__()
        self.stem, self.body, self.head, self.how = nn.Linear(inputs, width), body, nn.Linear(width, 3), how

    def forward(self, x):
        y = self.how(self.body, self.stem(x))
        return self.head(y if y.dim() == 2 else y.mean(1))


class Named(nn.Module):
    """Takes its inputs by keyword only."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, *, x, scale):
        return self.b(torch.relu(self.a(input=x))) * scale[:, None]


class Scaled(nn.Conv2d):
    """A subclass with a forward of its own."""

    def forward(self, x):
        return self._conv_forward(x, self.weight / 2, self.bias)


class Cross(nn.Module):
    """Attention of two sequences of other widths, time first, and a decoder layer."""

    def __init__(self):
        super().__init__()
        self.across = nn.MultiheadAttention(8, 2, kdim=5, vdim=4, add_bias_kv=True)
        self.decoder = nn.TransformerDecoderLayer(8, 2, 12)
        self.memory, self.head = nn.Linear(8, 9), nn.Linear(8, 3)

    def forward(self, x):
        x = x.transpose(0, 1)
        keys, values = self.memory(x).split([5, 4], -1)
        x = self.across(x, keys, values)[0]
        return self.head(self.decoder(x, x.flip(0)).mean(0))


def images():
    conv = nn.Conv2d(2, 4, 3, padding=1)
    return nn.Sequential(
        conv, nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, groups=2), nn.Hardswish(inplace=True),
        Scaled(4, 4, 1), nn.Conv2d(4, 4, 3, groups=4, padding_mode="circular", padding=1), nn.ELU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    ).train()  # fmt: skip


def volumes():
    return nn.Sequential(nn.Conv3d(2, 4, 3), nn.ReLU(), nn.ConvTranspose3d(4, 2, 2), nn.Flatten(), nn.Linear(128, 3))


def checkpointed(how):
    return Calls(encoder_layer(), how=lambda body, x: checkpoint(body, x, use_reentrant=how))


def twice(body, x):
    return body(torch.tanh(body(x)))


def padded(body, x):
    return body(x, src_key_padding_mask=torch.arange(x.shape[1]).expand(x.shape[:2]) >= 4)


def tied():
    body = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Tanh(), nn.Linear(8, 8, bias=False))
    body[2].weight = body[0].weight
    return Calls(body)


NETWORKS = {
    "attention": (lambda: Calls(nn.MultiheadAttention(8, 2, batch_first=True), how=lambda m, x: m(x, x, x)[0]), (5, 8)),
    "encoder": (lambda: Calls(nn.TransformerEncoder(encoder_layer(), 2)), (5, 8)),
    "padded encoder": (lambda: Calls(nn.TransformerEncoder(encoder_layer(), 1), how=padded), (5, 8)),
    "cross attention": (Cross, (5, 8)),
    "images": (images, (2, 6, 6)),
    "volumes": (volumes, (2, 5, 5, 5)),
    "weight norm": (lambda: Calls(weight_norm(nn.Linear(8, 8))), (8,)),
    "old weight norm": (lambda: Calls(nn.utils.weight_norm(nn.Linear(8, 8))), (8,)),
    "tied": (tied, (8,)),
    "shared layer": (lambda: Calls(nn.Linear(8, 8), how=twice), (8,)),
    "shared block": (lambda: Calls(encoder_layer(), how=twice), (5, 8)),
    "keywords": (Named, None),
    "checkpointed": (lambda: checkpointed(False), (5, 8)),
    "checkpointed anew": (lambda: checkpointed(True), (5, 8)),
}
REFUSED = {("ggn", "checkpointed anew"), ("ggn_diag", "checkpointed anew")}
"""No gradient can be followed there."""
SURE = {"ggn", "ggn_diag", "kl", "weight_error"}
"""Profilers that must work on all the others."""


def workload_of(name):
    torch.manual_seed(3)
    make, shape = NETWORKS[name]
    data = []
    for rows in (4, 3):
        labels = torch.arange(rows) % 3
        if shape is None:
            data.append([{"x": torch.randn(rows, 8), "scale": torch.rand(rows), "labels": labels}])
        else:
            data.append([(torch.randn(rows, *shape), labels)])
    return Workload(make(), *data)


def left(model):
    """All that could be left behind."""
    return [
        {key: (value.data_ptr(), value.clone()) for key, value in model.state_dict(keep_vars=True).items()},
        [(name, type(m), m.training, sorted(vars(m)), list(m._parameters)) for name, m in model.named_modules()],
        [(p.requires_grad, p.grad) for p in model.parameters()],
        [getattr(m, "use_nested_tensor", None) for m in model.modules()],
    ]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("profiler", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_every_network_is_measured_and_handed_back_or_refused_in_words(profiler, network):
    workload = workload_of(network)
    before = left(workload.model)
    try:
        problem = profile(workload, SPACE, profiler)
    except AllocatorError as refusal:
        problem, said = None, str(refusal)
    assert same(before, left(workload.model))
    if problem is None:
        assert len(said) > 40
        assert profiler not in SURE or (profiler, network) in REFUSED, said
        return
    assert (profiler, network) not in REFUSED
    assert all(np.isfinite(column).all() for column in problem.scores.values())
    assert {group.name for group in problem.groups} <= {unit.name for unit in units(workload.model)}


@pytest.mark.parametrize("network", ["attention", "padded encoder", "cross attention"])
@pytest.mark.parametrize("profiler", ["ggn", "kl"])
def test_attention_has_the_scores_of_the_same_network_written_with_layers(profiler, network):
    closed, opened = workload_of(network), workload_of(network)
    with Opening(opened.model) as opening:
        opening.stay()
    found, wanted = (profile(workload, SPACE, profiler) for workload in (closed, opened))
    assert any(name.endswith("q_proj") for name in found.group_names)
    assert list(found.group_names) == list(wanted.group_names)
    assert np.array_equal(found.scores[profiler], wanted.scores[profiler])
    assert np.array_equal(found.costs["macs"], wanted.costs["macs"])


def test_the_divergence_of_one_third_is_that_of_torchs_own_attention():
    workload = workload_of("attention")
    problem = profile(workload, SPACE, "kl")
    changed = copy.deepcopy(workload.model)
    unit = next(unit for unit in units(changed) if unit.name == "body.k_proj")
    with torch.no_grad():
        changed.body.in_proj_weight[8:16] = approximate(unit.weight, parse({"kind": "quantize", "bits": 2}), unit.layer)
        x = workload.calibration[0][0]
        divergences = divergence(workload.model(x), changed(x))
    choices = {choice.name: choice for choice in problem.groups[problem.group_names.index("body.k_proj")].choices}
    assert choices["int2"].score["kl"] == pytest.approx(float(divergences.mean()), rel=1e-4)
    assert choices["int2"].cost["macs"] == 5 * 64


@dataclass(frozen=True, kw_only=True)
class FullSketch(Ggn):
    """Projections as they come, nothing drawn towards anything."""

    def measure(self, plan, progress):
        found = Sketch(name="ggn", passes=self.sketches, seed=0, diagonal=False, cache_bytes=1 << 30).run(
            plan, progress
        )
        return Findings(scores={"ggn": found.score([u.square().mean(0) for u in found.projections])})


def test_the_curvature_of_attention_is_exact_in_the_mean(exact_curvature):
    workload = workload_of("cross attention")
    problem = profile(workload, Space.simple(bits=(3,), ranks=()), FullSketch(sketches=200))
    with Opening(workload.model.eval()) as opening:
        opening.stay()
    for name in ("across.k_proj", "across.out_proj", "decoder.multihead_attn.v_proj", "decoder.linear1"):
        unit = next(unit for unit in units(workload.model) if unit.name == name)
        delta = approximate(unit.weight, parse({"kind": "quantize", "bits": 3}), unit.layer) - unit.weight.detach()
        choice = problem.groups[problem.group_names.index(name)].choices[0]
        assert choice.score["ggn"] == pytest.approx(exact_curvature(workload, unit.weight, delta), rel=0.3)


def test_a_fast_path_that_says_something_else_is_told():
    with pytest.warns(UserWarning, match="other logits on torch's fast path"):
        profile(workload_of("padded encoder"), SPACE, "weight_error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
        profile(workload_of("encoder"), SPACE, "weight_error")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_are_refused_with_a_way_out(dtype):
    workload = workload_of("attention")
    workload.model.to(dtype)
    with pytest.raises(UsageError, match=rf"layer stem is {dtype}.*model.float\(\)"):
        profile(workload, SPACE, "kl")


def test_what_is_applied_costs_what_was_said(tmp_path):
    workload = workload_of("encoder")
    problem = profile(workload, SPACE, "weight_error")
    solution = allocator.solve(problem, budgets="weight_bytes=60%")
    info = compress(workload.model, solution, tmp_path)
    assert info.bytes - info.described == solution.totals["weight_bytes"]
    assert outside_bytes(workload.model, units(workload.model)) == problem.resources["weight_bytes"].offset
    x = workload.evaluation[0][0]
    fresh = load_compressed(workload_of("encoder").model, tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(fresh(x), apply_(workload.model, solution).eval()(x))
