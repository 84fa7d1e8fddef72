import math

import numpy as np
import pytest
import torch
from torch import nn

from allocator.errors import UsageError
from allocator.progress import silent
from allocator.space import Space
from allocator.tasks.guard import untouched
from allocator.workload import Workload
from profilers._backward import Backward, Changes
from profilers._capture import captured
from profilers._plan import plan
from profilers._sketch import Sketch
from profilers._verify import rows_are_samples
from profilers.ggn import Ggn
from profilers.ggn_diag import GgnDiag


def repeated(workload, space, seeds, diagonal=False):
    """Scores of many one-pass sketches [seeds, …choices], all on one plan."""
    with untouched(workload.model):
        laid_out = plan(workload, space)
        runs = []
        for seed in range(seeds):
            found = sketch(seed, diagonal).run(laid_out, silent)
            squares = found.diagonal if diagonal else [u.square().mean(0) for u in found.projections]
            runs.append([v for row in found.score(squares).value for v in row])
        changes = [(t, p, d) for t in laid_out.targets for p, d in t.changes()]
        places = [(t, p) for t in laid_out.targets for p in range(len(t.menu))]
    return np.array(runs), changes, places


def sketch(seed, diagonal=False, passes=1):
    return Sketch(name="ggn", passes=passes, seed=seed, diagonal=diagonal, cache_bytes=1 << 30)


def test_sketch_has_the_exact_curvature_as_its_mean(workload, space, exact_curvature):
    runs, changes, places = repeated(workload, space, 80)
    for target, place, delta in changes:
        column = runs[:, places.index((target, place))]
        error = column.std(ddof=1) / math.sqrt(len(column))
        exact = exact_curvature(workload, target.unit.weight, delta)
        assert exact > 0
        assert abs(column.mean() - exact) < 4 * error, (target.name, target.menu[place].name)
        assert error < 0.5 * exact  # or the line above would say nothing


def test_projections_are_directional_derivatives(workload, space, directional):
    torch.manual_seed(0)
    with untouched(workload.model):
        laid_out = plan(workload, space)
        workload.model.requires_grad_(False)
        together = rows_are_samples(laid_out)
        batches = list(workload.calibration)
        shapes = [workload.task.logits(workload.model, batch).shape for batch in batches]
        for place, batch in enumerate(batches):
            for diagonal in ("none", "all"):  # two ways through the layers
                passes = []
                with captured(laid_out.targets, lambda *a, p=passes: p[-1].arrive(*a)) as capture, torch.enable_grad():
                    logits = workload.task.logits(workload.model, batch)
                v = torch.randn(shapes[place])
                if not together:
                    v[1:] = 0  # then only the total over rows is known, and the first sample's is the total
                passes.append(
                    Backward(Changes(1 << 30), capture.calls, torch.ones(len(v) if together else 1), diagonal)
                )
                capture.backward(logits, v)
                passes[-1].finish()
                for target in laid_out.targets:
                    found = passes[-1].projection(target)
                    for column, (_, delta) in enumerate(target.changes()):
                        dz = list(directional(workload, target.unit.weight, delta))[place][1]
                        wanted = (v * dz).double().flatten(1).sum(1)
                        wanted = wanted if together else wanted.sum(0, keepdim=True)
                        scale = (v.flatten(1).norm(dim=1) * dz.flatten(1).norm(dim=1)).max()
                        assert (found[:, column] - wanted).abs().max() < 1e-5 * scale


def test_diagonal_is_the_exact_one_in_the_mean(workload_of, space, exact_curvature):
    workload = workload_of("twice")
    runs, changes, places = repeated(workload, space, 60, diagonal=True)
    for target, place, delta in changes:
        if target.name != "shared" or target.menu[place].name != "int4":
            continue
        one_by_one = 0.0
        for i in range(delta.numel()):
            unit = torch.zeros(delta.numel())
            unit[i] = delta.flatten()[i]
            one_by_one += exact_curvature(workload, target.unit.weight, unit.view_as(delta))
        column = runs[:, places.index((target, place))]
        assert abs(column.mean() - one_by_one) < 4 * column.std(ddof=1) / math.sqrt(len(column))
        break
    else:
        pytest.fail("the layer that is called twice was not measured")


def test_diagonal_alone_gives_the_same_numbers(workload_of, space):
    both = Ggn(diagonal=True).profile(workload_of("cnn"), space)
    alone = GgnDiag().profile(workload_of("cnn"), space)
    assert np.array_equal(both.scores["ggn_diag"], alone.scores["ggn_diag"])
    with untouched((workload := workload_of("cnn")).model):
        laid_out = plan(workload, space)
        with_it, without = (sketch(0, diagonal).run(laid_out, silent) for diagonal in (True, False))
    for one, other in zip(with_it.projections, without.projections, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6 * float(one.abs().max()))


def test_scores_stderr_and_declaration(workload_of, space):
    problem = Ggn(sketches=3).profile(workload_of("lm"), space)
    assert problem.score_specs["ggn"] == {
        "unit": "nat", "target": "kl", "per": "token", "profiler": "Ggn(sketches=3, seed=0, interactions=True, "
        "diagonal=False, cache_bytes=1073741824)",
    }  # fmt: skip
    names = [choice.name for group in problem.groups for choice in group.choices]
    for name, score, error in zip(names, problem.scores["ggn"], problem.stderr["ggn"], strict=True):
        assert (score == error == 0) if name == "keep" else (score > 0 and error > 0)


def test_stderr_covers_the_spread_over_data(workload_of, space):
    """Halves of the data differ by about what their standard errors say."""
    generator = torch.Generator().manual_seed(3)
    net = workload_of("twice").model
    draws, errors = [], []
    for _ in range(12):
        data = [(torch.randn(24, 6, generator=generator), torch.zeros(24, dtype=torch.long))]
        other = [(torch.randn(2, 6, generator=generator), torch.zeros(2, dtype=torch.long))]
        problem = Ggn(seed=int(data[0][0].sum() * 1e4) % 1000).profile(Workload(net, data, other), space)
        draws.append(problem.scores["ggn"])
        errors.append(problem.stderr["ggn"])
    spread, said = np.std(draws, axis=0, ddof=1), np.mean(errors, axis=0)
    changed = said > 0
    assert 0.5 < np.median(spread[changed] / said[changed]) < 2


def test_seed_decides(workload_of, space):
    first = Ggn(seed=1).profile(workload_of("cnn"), space).scores["ggn"]
    assert np.array_equal(first, Ggn(seed=1, cache_bytes=0).profile(workload_of("cnn"), space).scores["ggn"])
    assert not np.array_equal(first, Ggn(seed=2).profile(workload_of("cnn"), space).scores["ggn"])


def test_follows_measured_kl_where_changes_are_small(workload_of):
    fine = Space.simple(bits=(7, 8), ranks=())
    workload = workload_of("lm")
    from profilers.kl import Kl

    kl, ggn = Kl().profile(workload, fine).scores["kl"], Ggn(sketches=400).profile(workload, fine).scores["ggn"]
    changed = ggn > 0
    assert 0.6 < np.median(ggn[changed] / kl[changed]) < 1.6


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(nn.functional.linear(torch.relu(self.a(x)), self.a.weight))


class Frozen(Functional):
    def forward(self, x):
        with torch.no_grad():
            x = torch.relu(self.a(x))
        return self.head(x)


class Detached(Functional):
    def forward(self, x):
        return self.head(self.a(x)).detach()


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Functional, "layer a takes part"),
        (Frozen, "layer a runs under torch.no_grad"),
        (Detached, "no gradient reaches"),
    ],
)
def test_networks_that_gradients_cannot_follow_are_refused(net, said, space):
    torch.manual_seed(0)
    data = [(torch.randn(6, 4), torch.zeros(6, dtype=torch.long))]
    other = [(torch.randn(2, 4), torch.zeros(2, dtype=torch.long))]
    with pytest.raises(UsageError, match=said):
        Ggn().profile(Workload(net(), data, other), space)


def test_one_sample_or_no_pass_is_refused(workload_of, space):
    workload = workload_of("embedding")
    single = Workload(workload.model, list(workload.calibration)[:1], workload.evaluation, workload.task)
    with pytest.raises(UsageError, match="several batches where a whole batch is one sample"):
        Ggn().profile(single, space)
    with pytest.raises(UsageError, match="sketches=0"):
        Ggn(sketches=0).profile(workload, space)
