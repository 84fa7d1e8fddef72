import numpy as np

from allocator.applier.approximate import approximate
from profilers._plan import plan
from profilers.weight_error import WeightError


def test_three_scalings_of_the_same_distance(workload_of, space):
    workload = workload_of("lm")
    problem = WeightError().profile(workload, space)
    wanted = {"weight_error": [], "weight_error_sum": [], "weight_error_relative": []}
    for target in plan(workload, space).targets:
        weight = target.unit.weight.detach()
        for item in target.menu:
            gap = (approximate(weight, item.action, target.layer) - weight).numpy().astype(np.float64)
            wanted["weight_error_sum"].append((gap**2).sum())
            wanted["weight_error"].append((gap**2).mean())
            wanted["weight_error_relative"].append((gap**2).sum() / (weight.numpy().astype(np.float64) ** 2).sum())
    for name, column in wanted.items():
        np.testing.assert_allclose(problem.scores[name], column, rtol=1e-12)
        assert problem.score_specs[name]["target"] == "proxy"
    assert not problem.stderr


def test_a_zero_weight_has_no_relative_error(workload_of, space):
    workload = workload_of("twice")
    workload.model.shared.weight.data.zero_()
    problem = WeightError().profile(workload, space)
    assert not problem.scores["weight_error_relative"][: problem.sizes[0]].any()
