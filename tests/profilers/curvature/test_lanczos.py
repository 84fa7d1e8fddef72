import numpy as np
import pytest
import torch

from allocator.errors import UsageError
from allocator.evaluation import evaluate
from profilers._lanczos import largest
from profilers._plan import plan
from profilers.lanczos import Lanczos


def spectrum(values, size, seed=0):
    """A symmetric matrix with these eigenvalues and otherwise small ones."""
    generator = torch.Generator().manual_seed(seed)
    frame = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    diagonal = torch.cat([torch.tensor(values).double(), torch.linspace(-0.1, 0.1, size - len(values)).double()])
    return frame @ torch.diag(diagonal) @ frame.T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairs_are_the_largest_in_size_with_their_signs(dtype):
    matrix = spectrum([5.0, -4.0, 3.0, -2.0, 1.0], 60)
    start = torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=dtype)
    found = largest(lambda step, q: matrix.to(dtype) @ q, start, 4, 60, 1e-5)
    truth, frame = torch.linalg.eigh(matrix)
    order = truth.abs().argsort(descending=True)[:4]
    assert torch.allclose(found.values, truth[order], atol=1e-5)
    assert found.steps < 60
    overlaps = (found.vectors.double() @ frame[:, order]).abs()
    assert torch.allclose(overlaps, torch.eye(4, dtype=torch.float64), atol=1e-3)
    assert torch.allclose(found.vectors @ found.vectors.T, torch.eye(4, dtype=dtype), atol=1e-5)
    assert (found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True)) > 0).all()


def test_an_invariant_space_ends_the_search():
    matrix = torch.diag(torch.tensor([3.0, -2.0, 0, 0, 0, 0, 0, 0], dtype=torch.float64))
    found = largest(lambda step, q: matrix @ q, torch.ones(8, dtype=torch.float64), 5, 8, 0.0)
    assert found.steps == 3  # 3, −2 and 0
    assert torch.allclose(found.values, torch.tensor([3.0, -2.0, 0.0], dtype=torch.float64))


def test_pairs_of_a_network_are_those_of_its_dense_hessian(true_loss, space, dense):
    workload = true_loss("lm")
    exact = dense(workload)
    truth = torch.linalg.eigvalsh(exact.matrix / exact.positions)
    wanted = truth[truth.abs().argsort(descending=True)[:5]]
    problem = Lanczos(count=5, steps=60, pieces=2).profile(workload, space)
    (basis,) = problem.interactions
    np.testing.assert_allclose(basis.eigenvalues, wanted, rtol=1e-4)
    assert (wanted < 0).any()
    assert (wanted > 0).any()
    notes = problem.notes.meta["profilers"]["lanczos"]
    assert (np.array(notes["residuals"]) <= 1.1e-3 * wanted.abs().numpy()).all()
    assert notes["negative_kept"] == pytest.approx(float(wanted.clamp(max=0).sum()), rel=1e-4)
    assert problem.score_specs["lanczos"]["target"] == "ce"


@pytest.mark.parametrize("name", ["embedding", "twice"])
def test_all_pairs_give_the_whole_quadratic_of_every_allocation(true_loss, space, dense, name):
    """Unary scores and interactions together are ½ ΔᵀHΔ of all layers changed at once."""
    workload = true_loss(name)
    exact = dense(workload)
    size = len(exact.matrix)
    problem = Lanczos(count=size, steps=size, tolerance=0, pieces=2).profile(workload, space)
    targets = plan(workload, space).targets
    draws = np.random.default_rng(0)
    for _ in range(12):
        choice = [int(draws.integers(len(target.menu))) for target in targets]
        moved = torch.zeros(size, dtype=torch.float64)
        for target, place in zip(targets, choice, strict=True):
            moved[exact.places[target.name]] = (
                (target.approximation(place) - target.unit.weight.detach()).double().flatten()
            )
        wanted = float(moved @ exact.matrix @ moved) / 2 / exact.positions
        scale = float(moved.abs() @ exact.matrix.abs() @ moved.abs()) / exact.positions
        assert abs(evaluate(problem, np.array(choice)).loss - wanted) < 1e-4 * scale + 1e-12


def test_ggn_is_the_curvature_of_the_divergence(true_loss, space, exact_curvature):
    workload = true_loss("embedding")
    problem = Lanczos(matrix="ggn", count=54, steps=54, tolerance=0, pieces=2).profile(workload, space)
    scores = iter(problem.scores["lanczos"])
    for target in plan(workload, space).targets:
        changes = dict(target.changes())
        for place in range(len(target.menu)):
            score = next(scores)
            if place in changes:
                assert score == pytest.approx(exact_curvature(workload, target.unit.weight, changes[place]), rel=1e-3)
    assert problem.score_specs["lanczos"]["target"] == "kl"
    assert (problem.interactions[0].eigenvalues > -1e-4).all()


def test_mean_curvature_of_what_is_left(true_loss, space, dense):
    workload = true_loss("embedding")
    block = dense(workload).block("word")
    plain = Lanczos(count=3, pieces=2).profile(workload, space)
    whole = Lanczos(count=3, pieces=2, probes=24).profile(workload, space)
    (target, *_) = plan(workload, space).targets
    changes = dict(target.changes())
    basis = plain.interactions[0]
    energy = 0.0  # Σ λ ‖U_l‖², from the dense pairs
    exact = dense(workload)
    values, frame = torch.linalg.eigh(exact.matrix / exact.positions)
    for i in values.abs().argsort(descending=True)[:3]:
        energy += float(values[i] * frame[exact.places["word"], i].square().sum())
    rest = (float(block.trace()) - energy) / 24
    assert rest > 0
    for place, delta in changes.items():
        own = float((basis.eigenvalues * basis.vectors[place] ** 2).sum()) / 2
        assert plain.scores["lanczos"][place] == pytest.approx(own, rel=1e-9)
        gap = whole.scores["lanczos"][place] - plain.scores["lanczos"][place]
        assert gap == pytest.approx(rest * float(delta.double().square().sum()) / 2, rel=1e-3)
        assert whole.stderr["lanczos"][place] > plain.stderr["lanczos"][place] > 0


def test_negative_mean_curvature_is_cut_off_and_told(true_loss, space):
    problem = Lanczos(count=1, steps=40, pieces=2, probes=6).profile(true_loss("lm"), space)
    clipped = problem.notes.meta["profilers"]["lanczos"]["clipped"]
    assert clipped
    assert all(value < 0 for value in clipped.values())


@pytest.mark.parametrize("options", [{"count": 0}, {"steps": 7}, {"tolerance": -1}, {"matrix": "fisher"}])
def test_options_that_cannot_be_meant_are_refused(true_loss, space, options):
    with pytest.raises(UsageError, match=str(next(iter(options.values())))):
        Lanczos(**options).profile(true_loss("embedding"), space)
