"""Statistics that cost little, from the network to a solution; and what holds for each of them."""

import numpy as np
import pytest
import torch

import allocator
from allocator.profiling import profile
from allocator.space import Space
from profilers.block_influence import BlockInfluence
from profilers.first_order import FirstOrder
from profilers.fisher import Fisher
from profilers.ggn import Ggn
from profilers.output_error import OutputError
from profilers.rate_distortion import RateDistortion
from profilers.singular_spectrum import SingularSpectrum
from profilers.weight_error import WeightError

CHEAP = (
    Fisher(labels=2),
    FirstOrder(),
    OutputError(),
    SingularSpectrum(whitened=True),
    BlockInfluence(),
    RateDistortion(),
)


def halfway(problem):
    """A budget of bytes between the least and the most that the groups can use."""
    costs = [[choice.cost["weight_bytes"] for choice in group.choices] for group in problem.groups]
    return problem.resources["weight_bytes"].offset + (sum(map(min, costs)) + sum(map(max, costs))) // 2


@pytest.mark.parametrize("solver", ["entropic", "inverse_rank"])
@pytest.mark.parametrize("name", ["lm", "cnn"])
def test_from_a_network_to_a_solution(workload_of, solver, name):
    space = Space.simple(bits=(), ranks=(0.125, 0.25, 0.5))
    problem = profile(workload_of(name), space, [Ggn(interactions=False), "singular_spectrum", "block_influence"])
    budget = halfway(problem)
    solution = allocator.solve(problem, solver, budgets={"weight_bytes": budget})
    assert solution.status in ("feasible", "optimal")
    assert solution.totals["weight_bytes"] <= budget
    assert any(action["kind"] == "low_rank" for action in solution.actions.values())
    if name == "lm":  # the other has too few choices for a difference
        steep = np.arange(1.0, problem.group_count + 1) ** 2
        other = problem.replace(stats={stat: column[::-1] * steep for stat, column in problem.stats.items()})
        assert allocator.solve(other, solver, budgets={"weight_bytes": budget}).choices != solution.choices


@pytest.mark.parametrize("whitened", [False, True])
def test_norm_makes_a_summed_error_relative_for_desired_error(workload_of, whitened):
    space = Space.simple(bits=(2, 3, 4, 8), ranks=())
    kind = "output_error" if whitened else "weight_error"
    problem = profile(workload_of("cnn"), space, [kind, SingularSpectrum(whitened=whitened)])
    ones = problem.replace(stats={"norm": np.ones(len(problem.group_names))})
    budget = {"weight_bytes": halfway(problem) - 400}
    summed = allocator.solve(problem, "desired_error", budgets=budget, score=f"{kind}_sum")
    relative = allocator.solve(ones, "desired_error", budgets=budget, score=f"{kind}_relative")
    absolute = allocator.solve(ones, "desired_error", budgets=budget, score=f"{kind}_sum")
    assert summed.choices == relative.choices != absolute.choices


@pytest.mark.parametrize("statistic", CHEAP, ids=lambda one: one.name)
def test_a_stopped_run_goes_on(workload_of, space, tmp_path, statistic):
    def result(**more):
        return profile(workload_of("cnn"), space, [statistic, WeightError()], **more)

    class StoppedError(Exception):
        pass

    def stop_early(stage, done, total):
        if any(tmp_path.iterdir()):
            raise StoppedError

    whole = result()
    with pytest.raises(StoppedError):
        result(progress=stop_early, resume=tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert times
    resumed = result(resume=tmp_path)
    for column in ("scores", "stderr", "stats"):
        before, after = getattr(whole, column), getattr(resumed, column)
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[name], after[name]) for name in before)
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.parametrize("statistic", CHEAP, ids=lambda one: one.name)
@pytest.mark.parametrize("interrupted", [False, True])
def test_model_is_handed_back_bit_identical(workload_of, space, statistic, interrupted):
    workload = workload_of("cnn")
    model = workload.model.train()
    next(iter(model.parameters())).requires_grad_(False)

    def state():
        return (
            {key: value.clone() for key, value in model.state_dict().items()},
            [module.training for module in model.modules()],
            [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
            [
                (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), sorted(m.__dict__))
                for m in model.modules()
            ],
            torch.get_rng_state(),
        )

    def progress(stage, done, total):
        if interrupted:
            raise KeyboardInterrupt

    before = state()
    try:
        profile(workload, space, [statistic, WeightError()], progress)
    except KeyboardInterrupt:
        assert interrupted
    after = state()
    assert all(torch.equal(before[0][key], after[0][key]) for key in before[0])
    assert before[1:4] == after[1:4]
    assert torch.equal(before[4], after[4])
