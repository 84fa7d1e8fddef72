"""Statistics of layers against sums written out position by position, and choices made by them from end to end."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import allocator
import allocator.actions
import allocator.errors
from allocator.applier import apply_, approximate, units
from allocator.applier.statistics import LayerStatistics
from allocator.applying import applied, fitted, layer_statistics
from allocator.errors import ActionError
from allocator.space import Rule, Space
from allocator.splitting import halves
from allocator.tasks.measurement import measure
from allocator.workload import Workload
from profilers._statistics import statistics_for
from profilers.ggn import Ggn
from profilers.kl import Kl

HALF = {"kind": "keep", "dtype": "float16"}
WHITE = {"kind": "low_rank", "rank": 2, "left": HALF, "right": HALF, "weighting": "input"}
FISHER = {**WHITE, "weighting": "fisher"}
EVERYTHING = frozenset({"input_moment", "input_mean", "output_fisher"})


def patches_by_hand(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """[positions, groups, columns] of one call, by torch's own unfold."""
    if isinstance(module, nn.Linear):
        return x.reshape(-1, 1, module.in_features).double()
    unfolded = nn.functional.unfold(
        nn.functional.pad(x.double(), module._reversed_padding_repeated_twice, mode=_mode(module)),
        module.kernel_size,
        stride=module.stride,
    )
    return unfolded.transpose(1, 2).reshape(-1, module.groups, module.weight[0].numel())


def _mode(module: nn.Conv2d) -> str:
    return "constant" if module.padding_mode == "zeros" else module.padding_mode


@pytest.mark.parametrize("name", ["cnn", "lm_positions", "time_first", "twice"])
def test_moments_are_means_over_every_position(workload_of, name):
    workload = workload_of(name)
    named = dict(workload.model.named_modules())
    layers = {u.name: named[u.name] for u in units(workload.model) if isinstance(named[u.name], (nn.Linear, nn.Conv2d))}
    seen: dict[str, list[torch.Tensor]] = {key: [] for key in layers}
    handles = [
        module.register_forward_hook(lambda m, args, _, key=key: seen[key].append(patches_by_hand(m, args[0])))
        for key, module in layers.items()
    ]
    with torch.no_grad():
        for batch in workload.calibration:
            workload.task.logits(workload.model, batch)
    for handle in handles:
        handle.remove()
    got = statistics_for(workload, dict.fromkeys(layers, EVERYTHING), lambda *_: None)
    assert set(got) == set(layers)
    for key in layers:
        x = torch.cat(seen[key])
        np.testing.assert_allclose(got[key].input_mean.numpy(), x.mean(0).numpy(), rtol=1e-5, atol=1e-6)
        second = torch.einsum("pgi,pgj->gij", x, x) / len(x)
        np.testing.assert_allclose(got[key].input_moment.numpy(), second.numpy(), rtol=1e-5, atol=1e-6)
        assert got[key].output_fisher.shape == (len(layers[key].weight),)
        assert bool((got[key].output_fisher >= 0).all())
        assert bool(got[key].output_fisher.any())


def test_only_what_is_needed_is_measured(workload_of):
    workload = workload_of("cnn")
    solution = {"head": {"action": WHITE}, "stem.0": {"action": {"kind": "quantize", "bits": 3}}}
    found = layer_statistics(workload, solution)
    assert set(found) == {"head"}
    assert found["head"].input_moment is not None
    assert found["head"].input_mean is None
    assert found["head"].output_fisher is None
    assert layer_statistics(workload, {"head": {"action": HALF}}) == {}


def test_the_weighted_svd_has_the_least_error_of_the_outputs(workload_of):
    workload = workload_of("cnn")
    unit = next(u for u in units(workload.model) if u.name == "head")
    found = layer_statistics(workload, {"head": {"action": WHITE}})["head"]
    moment, weight = found.input_moment[0].double(), unit.weight.detach().double()

    def error(action: dict[str, object]) -> float:
        exact = {**action, "left": {"kind": "keep"}, "right": {"kind": "keep"}}
        got = approximate(unit.weight, allocator.actions.parse(exact), unit.layer, found).double() - weight
        return float((got @ moment @ got.T).trace())

    # Eckart and Young in the metric of the inputs: the sum of the squared singular values of W·M^½ that are left out.
    values, vectors = torch.linalg.eigh(moment)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    least = float(torch.linalg.svdvals(weight @ root)[2:].square().sum())
    assert error(WHITE) == pytest.approx(least, rel=1e-3)
    assert error(WHITE) < error({**WHITE, "weighting": "none"})


def test_output_weights_move_the_error_to_rows_that_count_less():
    torch.manual_seed(0)
    weight, layer = torch.randn(8, 8), allocator.actions.Layer("linear", (8, 8))
    fisher = torch.tensor([100.0] * 2 + [0.01] * 6)
    statistics = LayerStatistics(torch.eye(8)[None], torch.zeros(1, 8), fisher)
    error = (approximate(weight, allocator.actions.parse(FISHER), layer, statistics) - weight).square().sum(1)
    plain = (approximate(weight, allocator.actions.parse(WHITE), layer, statistics) - weight).square().sum(1)
    assert float(error[:2].sum()) < 0.05 * float(plain[:2].sum())
    assert float((fisher * error).sum()) < float((fisher * plain).sum())


def test_a_grouped_convolution_is_whitened_group_by_group(workload_of):
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 3)
    layer = allocator.actions.Layer("conv1d", (6, 4, 3), groups=2)
    x = torch.randn(2, 50, 12) * torch.linspace(0.1, 3, 12)
    statistics = LayerStatistics((x.transpose(1, 2) @ x) / 50, x.mean(1))
    got = approximate(weight, allocator.actions.parse({**WHITE, "left": {"kind": "keep"}}), layer, statistics)
    for g in range(2):
        part = LayerStatistics(statistics.input_moment[g : g + 1])
        rows = slice(3 * g, 3 * g + 3)
        alone = allocator.actions.Layer("conv1d", (3, 4, 3))
        wanted = approximate(weight[rows], allocator.actions.parse({**WHITE, "left": {"kind": "keep"}}), alone, part)
        torch.testing.assert_close(got[rows], wanted)


@pytest.mark.parametrize("profiler", [Kl(), Ggn()])
def test_a_profile_scores_choices_on_the_half_that_they_are_not_fitted_to(workload_of, profiler):
    workload = workload_of("cnn")
    fitting, scoring = halves(workload)
    assert not set(fitting.digests()) & set(scoring.digests())
    menu = Space((Rule(modules="head", choices=(WHITE, FISHER, {"kind": "keep"})), Rule(choices="skip")))
    problem = profiler.profile(workload, menu)
    assert [choice.name for choice in problem.groups[0].choices] == [
        "rank2_keep_float16_input",
        "rank2_keep_float16_fisher",
        "keep",
    ]
    (score,) = problem.loss.terms
    values = problem.scores[score]
    assert values[2] == 0
    assert (values[:2] > 0).all()
    if score == "kl":
        for action, value in zip((WHITE, FISHER), values, strict=False):
            other = applied(fitting, {"head": {"action": action}})
            mass, total = 0, 0.0
            for batch in scoring.calibration:
                with torch.no_grad():
                    before, after = (workload.task.logits(model, batch) for model in (workload.model, other))
                p = torch.log_softmax(before.double(), -1)
                total += float((p.exp() * (p - torch.log_softmax(after.double(), -1))).sum())
                mass += len(before)
            assert value == pytest.approx(total / mass, rel=1e-4)


def test_choices_that_are_fitted_to_nothing_are_scored_on_all_data(workload_of):
    workload = workload_of("cnn")
    plain = Space((Rule(modules="head", choices=({"kind": "quantize", "bits": 3},)), Rule(choices="skip")))
    both = Space((Rule(modules="head", choices=({"kind": "quantize", "bits": 3}, WHITE)), Rule(choices="skip")))
    whole, half = (Kl().profile(workload, space).scores["kl"][0] for space in (plain, both))
    assert half == Kl().profile(halves(workload)[1], plain).scores["kl"][0]
    assert whole != half


def wide(positions):
    """One layer of 48 inputs, with so many samples to profile it."""
    g = torch.Generator().manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(48, 4))
    torch.nn.init.normal_(net[0].weight, generator=g)
    data = [[(torch.randn(n, 48, generator=g), torch.zeros(n, dtype=torch.long))] for n in (positions, 256)]
    return Workload(net.eval(), *data)


FITTED = Space((Rule(choices=({"kind": "quantize", "bits": 2, "method": "gptq"},)),))


def test_with_many_samples_all_of_them_fit_and_score_what_is_applied():
    workload = wide(4096)
    problem = Kl().profile(workload, FITTED)
    known, scoring = fitted(workload, problem)
    assert scoring is workload
    assert torch.equal(known["0"].input_moment, layer_statistics(workload, problem)["0"].input_moment)
    other = applied(workload, {"0": {"action": FITTED.rules[0].choices[0]}})
    judged = Workload(workload.model, workload.calibration, workload.calibration, workload.task)
    got = measure(judged, other, workload.model)["kl"].value
    assert problem.scores["kl"][0] == pytest.approx(got, rel=1e-4)


class Experts(torch.nn.Module):
    """Two layers, of which the sign of the first input chooses one."""

    def __init__(self):
        super().__init__()
        self.one, self.other = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)

    def forward(self, x):
        first = x[:, 0] > 0
        out = torch.empty(len(x), 3)
        out[first], out[~first] = self.one(x[first]), self.other(x[~first])
        return out


def test_a_layer_that_one_half_does_not_reach_is_fitted_to_all_data():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(32, 4, generator=g)
    x[:, 0] = torch.linspace(-1, 1, 32)
    data = [[(x, torch.zeros(32, dtype=torch.long))], [(x[::2] + 0.1, torch.zeros(16, dtype=torch.long))]]
    workload = Workload(Experts().eval(), *data)
    problem = Kl().profile(workload, FITTED)
    assert (problem.scores["kl"] > 0).all()
    assert fitted(workload, problem)[1] is workload


def test_nothing_is_run_where_nothing_is_fitted():
    workload = wide(48)
    problem = Kl().profile(workload, Space((Rule(choices=({"kind": "quantize", "bits": 2},)),)))
    assert fitted(workload, problem) == ({}, workload)


def test_a_layer_as_wide_as_there_are_samples_fits_its_own_samples_alone():
    """Compensated rounding makes nearly no error on the data that it is fitted to; the score is of other data."""
    workload = wide(48)
    net, solution = workload.model, {"0": {"action": FITTED.rules[0].choices[0]}}
    score = float(Kl().profile(workload, FITTED).scores["kl"][0])

    def loss(half):
        inputs = half.evaluation[0][0]
        with torch.no_grad():
            p, q = (torch.log_softmax(m(inputs).double(), -1) for m in (net, applied(fitting, solution)))
        return float((p.exp() * (p - q)).sum(-1).mean())

    fitting = halves(workload)[0]
    assert score == pytest.approx(loss(workload), rel=0.3)
    seen = Workload(net, fitting.calibration, fitting.calibration, workload.task)
    assert loss(seen) < 0.2 * score


def test_what_is_packed_is_what_was_applied(workload_of, tmp_path):
    workload = workload_of("cnn")
    solution = {"head": {"action": FISHER}, "stages.0.pointwise": {"action": WHITE}}
    known = layer_statistics(workload, solution)
    x = workload.calibration[0][0]
    plain, packed = (apply_(copy.deepcopy(workload.model), solution, p, known) for p in (False, True))
    allocator.compress(workload.model, solution, tmp_path, known)
    loaded = allocator.load_compressed(copy.deepcopy(workload.model), tmp_path)
    assert torch.equal(plain(x), packed(x))
    assert torch.equal(plain(x), loaded(x))


def test_missing_statistics_are_named_and_nothing_is_changed(workload_of, tmp_path):
    workload = workload_of("cnn")
    solution = {"stem.0": {"action": {"kind": "quantize", "bits": 2}}, "head": {"action": FISHER}}
    before = copy.deepcopy(workload.model.state_dict())
    for act in (
        lambda: apply_(workload.model, solution),
        lambda: allocator.compress(workload.model, solution, tmp_path),
    ):
        with pytest.raises(ActionError, match=r"group 'head'.*input moment.*layer_statistics"):
            act()
    assert all(torch.equal(before[key], value) for key, value in workload.model.state_dict().items())
    assert not any(tmp_path.iterdir())


def test_a_layer_that_no_data_reaches_is_named(workload_of):
    workload = workload_of("cnn")
    workload.model.unused = nn.Linear(3, 3)
    with pytest.raises(allocator.errors.UsageError, match="unused gets no input"):
        layer_statistics(workload, {"unused": {"action": {**WHITE, "rank": 1}}})
