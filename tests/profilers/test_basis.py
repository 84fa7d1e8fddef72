"""The interactions of a sketch against the dense Gauss–Newton matrix, and how far they are trusted."""

import itertools

import numpy as np
import pytest
import torch

from allocator.profiling import profile
from allocator.progress import silent
from allocator.tasks.guard import untouched
from profilers._basis import basis, reliability
from profilers._plan import plan
from profilers._sketch import Sketch, Sketched
from profilers.ggn import Ggn


def sketched(workload, space, passes):
    with untouched(workload.model):
        laid_out = plan(workload, space)
        sketch = Sketch(name="ggn", passes=passes, seed=0, diagonal=False, cache_bytes=1 << 30)
        return sketch.run(laid_out, silent)


def test_interactions_converge_to_the_gauss_newton_products(workload_of, space, directional):
    workload = workload_of("cnn")
    found = sketched(workload, space, 600)
    made, trust = basis(found, "ggn")
    changes = [(t, p, d) for t, target in enumerate(found.plan.targets) for p, d in target.changes()]
    moved = [
        list(directional(workload, found.plan.targets[t].unit.weight, delta)) for t, _, delta in changes
    ]  # (z, JΔ, mask) of every batch
    total = float(found.positions.sum())
    wanted, got = [], []
    for (i, (t, a, _)), (j, (s, b, _)) in itertools.combinations(enumerate(changes), 2):
        if t == s:
            continue
        exact = 0.0
        for (z, first, _), (_, second, _) in zip(moved[i], moved[j], strict=True):
            p = torch.softmax(z.double(), -1)
            exact += float(((p * first * second).sum(-1) - (p * first).sum(-1) * (p * second).sum(-1)).sum())
        wanted.append(exact / total)
        got.append(float((made.eigenvalues * made.vectors[t][a] * made.vectors[s][b]).sum()) / trust)
    wanted, got = np.array(wanted), np.array(got)
    assert np.abs(got - wanted).max() < 0.25 * np.abs(wanted).max()
    assert np.corrcoef(wanted, got)[0, 1] > 0.99
    assert 0.9 < trust <= 1


def test_whole_network_loss_is_half_the_squared_sum_of_projections(workload_of, space):
    """Unary scores and basis together are ½ mean (Σ u)², when nothing is drawn and ρ is put aside."""
    found = sketched(workload_of("lm"), space, 30)
    made, trust = basis(found, "ggn")
    scale = 2 * 30 * float(found.positions.sum())
    for places in itertools.product(*found.places):
        columns = [found.places[t].index(p) for t, p in enumerate(places)]
        whole = sum(u[:, :, c] for u, c in zip(found.projections, columns, strict=True)).square().sum() / scale
        alone = sum(u[:, :, c].square().sum() for u, c in zip(found.projections, columns, strict=True)) / scale
        v = torch.stack([made.vectors[t][p] for t, p in enumerate(places)])
        pair = 0.5 * (made.eigenvalues * (v.sum(0).square() - v.square().sum(0))).sum() / trust
        assert float(alone + pair) == pytest.approx(float(whole), rel=1e-9)


def noise(samples, choices, groups, shared, seed=0):
    """Projections with that much in common between groups."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(1, samples, choices, generator=generator, dtype=torch.float64)
    own = [torch.randn(1, samples, choices, generator=generator, dtype=torch.float64) for _ in range(groups)]
    projections = [shared * common + (1 - shared) * u for u in own]
    return Sketched(None, [list(range(choices))] * groups, [[1.0] * choices] * groups, projections, [], [],
                    torch.ones(samples, dtype=torch.float64))  # fmt: skip


def test_interactions_of_independent_noise_are_not_trusted():
    assert reliability(noise(40, 3, 30, 0.0)) < 0.1
    assert reliability(noise(400, 3, 30, 0.5)) > 0.9
    middle = reliability(noise(40, 3, 30, 0.3))
    assert 0.2 < middle < 0.9
    assert reliability(noise(3, 3, 30, 0.9)) == 0.0  # too few samples to say


def test_reliability_is_the_share_that_predicts_best():
    """Against many fresh samples the off-diagonal products are best predicted when scaled by ρ."""
    seen, fresh = noise(60, 2, 25, 0.3, seed=1), noise(40_000, 2, 25, 0.3, seed=2)

    def off(found):
        u = torch.cat([p[0] for p in found.projections], 1)
        q = u.T @ u / len(u)
        group = torch.arange(len(q)) // 2
        return q[group[:, None] != group[None, :]]

    mine, true = off(seen), off(fresh)
    best = float((mine * true).sum() / mine.square().sum())
    assert reliability(seen) == pytest.approx(best, abs=0.12)


def test_problem_carries_the_basis_and_the_loss_counts_it(workload_of, space):
    workload = workload_of("cnn")
    problem = profile(workload, space, Ggn(sketches=40))
    plain = profile(workload_of("cnn"), space, Ggn(sketches=40, interactions=False))
    assert "basis" in problem.features
    assert "basis" not in plain.features
    assert np.array_equal(problem.scores["ggn"], plain.scores["ggn"])
    lowest = np.zeros(problem.group_count, np.int64)
    assert problem.evaluate(lowest).loss != pytest.approx(plain.evaluate(lowest).loss, rel=1e-3)
    keep = np.diff(problem.indptr) - 1
    assert problem.evaluate(keep).loss == 0
    assert 0 < problem.notes.meta["profilers"]["ggn"]["interaction_reliability"] <= 1
