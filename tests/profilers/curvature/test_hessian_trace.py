import numpy as np
import pytest
import torch

from allocator.errors import UsageError
from profilers._hutchpp import BLOCK, hutchpp
from profilers._plan import plan
from profilers.hessian_trace import HessianTrace


def told(problem):
    return problem.notes.meta["profilers"]["hessian_trace"]["traces"]


@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
@pytest.mark.parametrize("name", ["cnn", "lm_padded", "embedding"])
def test_traces_are_those_of_the_dense_blocks(true_loss, space, dense, name, method):
    workload = true_loss(name)
    exact = dense(workload)
    traces = told(HessianTrace(method=method, probes=32, tolerance=0.03, pieces=2).profile(workload, space))
    for layer, found in traces.items():
        wanted = float(exact.block(layer).trace())
        size = float(exact.block(layer).norm())
        assert abs(found["trace"] - wanted) < 4 * found["probing_stderr"] + 1e-4 * size, layer
        assert found["probing_stderr"] < 0.3 * size  # or the line above would say nothing
        assert found["method"] == method


def test_small_layers_are_gone_through_direction_by_direction(true_loss, space, dense):
    workload = true_loss("embedding")
    found = told(HessianTrace().profile(workload, space))["word"]
    assert found["trace"] == pytest.approx(float(dense(workload).block("word").trace()), rel=1e-5)
    assert (found["products"], found["probing_stderr"]) == (24, 0)


def test_score_is_the_average_trace_times_half_the_squared_error(true_loss, space):
    workload = true_loss("twice")
    problem = HessianTrace(pieces=2).profile(workload, space)
    traces = told(problem)
    wanted = []
    for place, target in enumerate(plan(workload, space).targets):
        average = traces[target.name]["trace"] / target.unit.weight.numel()
        assert problem.stats["average_trace"][place] == pytest.approx(average, rel=1e-12)
        energy = [0.0] * len(target.menu)
        for choice, delta in target.changes():
            energy[choice] = float(delta.double().square().sum())
        wanted += [average * e / 2 for e in energy]
    np.testing.assert_allclose(problem.scores["hessian_trace"], wanted, rtol=1e-12)
    assert (problem.stderr["hessian_trace"][problem.scores["hessian_trace"] != 0] > 0).all()
    assert problem.score_specs["hessian_trace"]["target"] == "ce"


def test_stderr_holds_the_spread_over_data(true_loss, space, dense_each):
    """With all directions taken, what is left is the spread between pieces: here whole batches."""
    from allocator.tasks.measurement import ratio

    workload = true_loss("embedding")
    each = dense_each(workload, list(workload.calibration))
    columns = torch.tensor([float(d.block("word").trace()) * d.positions for d in each])
    wanted = ratio(columns, torch.tensor([d.positions for d in each]))
    problem = HessianTrace().profile(workload, space)
    scale = problem.stderr["hessian_trace"][0] / problem.scores["hessian_trace"][0]
    assert scale == pytest.approx(wanted.stderr / wanted.value, rel=1e-4)


def test_tolerance_and_probes_bound_the_work(true_loss, space):
    workload = true_loss("twice")
    rough = told(HessianTrace(method="hutchinson", tolerance=10).profile(workload, space))
    full = told(HessianTrace(method="hutchinson", tolerance=0, probes=20).profile(workload, space))
    assert {found["products"] for found in rough.values()} == {16}
    assert {found["products"] for found in full.values()} == {20}
    first = HessianTrace(method="hutchinson", tolerance=0, probes=20).profile(workload, space)
    assert told(first) == full
    assert told(HessianTrace(method="hutchinson", tolerance=0, probes=20, seed=1).profile(workload, space)) != full


@pytest.mark.parametrize("options", [{"probes": 5}, {"tolerance": -1}, {"method": "xtrace"}])
def test_options_that_cannot_be_meant_are_refused(true_loss, space, options):
    with pytest.raises(UsageError, match=str(next(iter(options.values())))):
        HessianTrace(**options).profile(true_loss("cnn"), space)


def symmetric(size, rank, pieces=3):
    generator = torch.Generator().manual_seed(size + rank)
    found = []
    for _ in range(pieces):
        a = torch.randn(size, rank, generator=generator, dtype=torch.float64)
        found.append(a @ torch.diag(torch.randn(rank, generator=generator, dtype=torch.float64)) @ a.T)
    return torch.stack(found)


def run(parts, budget, tolerance=0.0, seed=0):
    taken = []

    def apply(vectors):
        taken.append(len(vectors))
        return torch.einsum("bij,kj->bki", parts, vectors)

    made = hutchpp(apply, parts.shape[1], budget, tolerance, torch.Generator().manual_seed(seed))
    assert made.products == sum(taken) <= max(budget, 3 * BLOCK)
    return made


def test_hutchpp_is_exact_when_the_probes_exceed_the_rank():
    parts = symmetric(90, 4)  # three pieces: rank 12
    exact = parts.diagonal(dim1=1, dim2=2).sum(1)
    made = run(parts, 3 * BLOCK + 2 * BLOCK)
    assert torch.allclose(made.parts, exact, rtol=1e-9, atol=1e-9)
    assert made.error < 1e-9
    assert run(parts, 1000, tolerance=1e-9).products == 5 * BLOCK  # then it stops
    assert (run(parts, 3 * BLOCK).parts - exact).abs().max() > 1e-3  # 8 directions do not hold 12


def test_hutchpp_takes_all_directions_when_they_run_out():
    for size in (10, 3 * BLOCK, 30):
        parts = symmetric(size, size)
        made = run(parts, 1000)
        assert torch.allclose(made.parts, parts.diagonal(dim1=1, dim2=2).sum(1), rtol=1e-9, atol=1e-9)
        assert made.error == 0


def test_hutchpp_has_the_trace_as_its_mean_and_the_error_it_says():
    parts = symmetric(60, 60)
    exact = float(parts.diagonal(dim1=1, dim2=2).sum())
    runs = [run(parts, 40, seed=seed) for seed in range(150)]
    values = np.array([float(made.parts.sum()) for made in runs])
    assert abs(values.mean() - exact) < 4 * values.std(ddof=1) / np.sqrt(len(values))
    assert 0.7 < np.sqrt(np.mean([made.error**2 for made in runs])) / values.std(ddof=1) < 1.4
