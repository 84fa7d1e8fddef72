import math

import numpy as np
import pytest
import torch

import allocator
from allocator.actions import Layer, Quantize
from allocator.errors import UsageError
from allocator.profiling import profile
from allocator.space import Rule, Space
from profilers._plan import plan
from profilers.rate_distortion import RateDistortion


def curve(workload, space, **options):
    problem = profile(workload, space, ["weight_error", RateDistortion(**options)])
    return problem.stats["rd_scale"], problem.stats["rd_decay"]


def test_the_curve_is_that_of_independent_errors(workload_of, space, exact_curvature):
    """At b bits it gives ½ Σ G_ii S_i² 4^−b, S_i² the variance of the weight's row."""
    workload = workload_of("twice")
    target = plan(workload, space).targets[0]
    weight = target.unit.weight.detach()
    wanted = 0.0
    for i in range(weight.numel()):
        alone = torch.zeros(weight.numel())
        alone[i] = weight[i // weight.shape[1]].std(correction=0)
        wanted += exact_curvature(workload, target.unit.weight, alone.view_as(weight))
    draws = []
    for seed in range(12):
        scale, decay = curve(workload_of("twice"), space, sketches=4, seed=seed)
        cost = Quantize(bits=4).stored_bytes(Layer("linear", (6, 6)))
        draws.append(scale[0] * math.exp(-decay[0] * cost) * 4**4)
    error = np.std(draws, ddof=1) / math.sqrt(len(draws))
    assert abs(np.mean(draws) - wanted) < 4 * error
    assert error < 0.1 * wanted


@pytest.mark.parametrize("resource", ["weight_bytes", "bops"])
def test_one_bit_more_quarters_the_loss(workload_of, resource):
    space = Space.simple(bits=(4, 6), ranks=())
    problem = profile(workload_of("cnn"), space, ["weight_error", RateDistortion(resource=resource)])
    for group, a, b in zip(problem.groups, problem.stats["rd_scale"], problem.stats["rd_decay"], strict=True):
        four, six = (next(c.cost[resource] for c in group.choices if c.name == name) for name in ("int4", "int6"))
        assert a > 0
        apart = 2 * math.log(4) / b  # costs between which the loss falls to a sixteenth
        assert abs(six - four - apart) <= (
            1 if resource == "weight_bytes" else 1e-6
        )  # a stream of codes ends in a byte


def test_every_network_gets_one_and_sketches_agree(workload, space):
    few, many = curve(workload, space, sketches=16), curve(workload, space, sketches=16, seed=1)
    assert (few[0] > 0).all()
    assert np.array_equal(few[1], many[1])
    assert 0.5 < np.exp(np.log(few[0] / many[0]).mean()) < 2


def test_water_filling_reads_it(workload_of):
    space = Space.simple(bits=(2, 3, 4, 6, 8), ranks=())
    problem = profile(workload_of("cnn"), space, ["ggn_diag", "rate_distortion"])
    costs = [[choice.cost["weight_bytes"] for choice in group.choices] for group in problem.groups]
    offset = problem.resources["weight_bytes"].offset
    budget = offset + sum(map(min, costs)) * 2
    solution = allocator.solve(problem, "water_filling", budgets={"weight_bytes": budget})
    assert solution.status in ("feasible", "optimal")
    assert solution.totals["weight_bytes"] <= budget
    other = problem.replace(stats={**problem.stats, "rd_scale": problem.stats["rd_scale"][::-1].copy()})
    assert allocator.solve(other, "water_filling", budgets={"weight_bytes": budget}).choices != solution.choices


def test_bad_options_and_layers_without_a_curve_are_refused(workload_of, space):
    with pytest.raises(UsageError, match=r"resource='macs'.*weight_bytes, bops"):
        curve(workload_of("twice"), space, resource="macs")
    with pytest.raises(UsageError, match="sketches=0"):
        curve(workload_of("twice"), space, sketches=0)
    with pytest.raises(UsageError, match="layer place uses no bops"):
        curve(workload_of("lm_positions"), space, resource="bops")
    assert curve(workload_of("twice"), Space((Rule(choices="pin"),)))[0].min() > 0
