"""Logit deltas that the divergences leave behind: kept, reused, never mixed; and the interactions made of them."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from allocator.errors import UsageError
from allocator.logit_sum import LogitSum
from allocator.profiling import profile
from allocator.space import Space
from allocator.tasks.positions import divergence
from allocator.workload import Workload
from profilers._deltas import Form, deltas, positions
from profilers._plan import plan
from profilers.kl import Kl

SPACE = Space.simple(bits=(2, 3), ranks=(0.5,))


class Branches(nn.Module):
    """Logits are a sum over layers, so that deltas of layers add exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Linear(6, 5) for _ in range(3)])

    def forward(self, x):
        return sum(branch(torch.tanh((i + 1) * x)) for i, branch in enumerate(self.branches))


@pytest.fixture
def branches():
    torch.manual_seed(0)
    rows = [(torch.randn(n, 6), torch.zeros(n, dtype=torch.long)) for n in (7, 9, 4)]
    return Workload(Branches(), rows[:2], rows[2:])


def with_weights(workload, space, choice):
    """The network under an allocation."""
    other = copy.deepcopy(workload.model)
    targets = plan(workload, space).targets
    copies = plan(Workload(other, workload.calibration, [], workload.task), space).targets
    for target, twin, place in zip(targets, copies, choice, strict=True):
        twin.unit.weight.data.copy_(target.approximation(place))
    return other


def true_divergence(workload, other):
    total = mass = 0.0
    for batch in workload.calibration:
        with torch.no_grad():
            base, changed = workload.task.logits(workload.model, batch), workload.task.logits(other, batch)
        values, mask = divergence(base, changed), workload.task.mask(batch)
        keep = torch.ones(values.shape, dtype=torch.bool) if mask is None else mask
        total, mass = total + float(values[keep].sum()), mass + int(keep.sum())
    return total / mass


def test_where_logits_are_a_sum_over_layers_every_allocation_is_predicted_exactly(branches, tmp_path):
    problem = profile(branches, SPACE, Kl(deltas=str(tmp_path)))
    model = LogitSum.load(tmp_path, problem)
    every = list(itertools.product(*(range(n) for n in problem.sizes.tolist())))[::5]
    true = [true_divergence(branches, with_weights(branches, SPACE, choice)) for choice in every]
    np.testing.assert_allclose(model.predict_many(every), true, rtol=1e-4, atol=1e-8)
    assert max(true) > 0.02


def test_a_single_choice_is_predicted_as_it_was_measured(workload, space, tmp_path):
    problem = profile(workload, space, Kl(deltas=str(tmp_path)))
    model = LogitSum.load(tmp_path, problem)
    keep = [next(k for k, c in enumerate(g.choices) if c.name == "keep") for g in problem.groups]
    for g, group in enumerate(problem.groups):
        for k, choice in enumerate(group.choices):
            one = np.array(keep)
            one[g] = k
            found = model.predicted(one)
            assert found.value == pytest.approx(choice.score["kl"], rel=1e-4, abs=1e-9)
            assert found.stderr == pytest.approx(problem.stderr["kl"][choice.row], rel=1e-3, abs=1e-9)


def test_a_tail_comes_closer_as_more_is_kept(workload_of, space, tmp_path):
    errors = []
    for i, (top, sketches) in enumerate([(1, 1), (3, 8), (9, 8), (11, 8)]):
        problem = profile(
            workload_of("lm_padded"), space, Kl(deltas=str(tmp_path / str(i)), top=top, sketches=sketches)
        )
        model = LogitSum.load(tmp_path / str(i), problem)
        assert model.deltas.dtype == (np.float32 if top == 11 else np.float16)
        keep = [next(k for k, c in enumerate(g.choices) if c.name == "keep") for g in problem.groups]
        off = []
        for row in np.flatnonzero(problem.scores["kl"] > 0).tolist():
            one = np.array(keep)
            g = problem.group_of[row]
            one[g] = row - problem.indptr[g]
            off.append(abs(model.predict(one) / problem.scores["kl"][row] - 1))
        errors.append(np.mean(off))
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[2] < 0.01
    assert errors[3] < 1e-5


def test_folding_is_linear_and_its_sketches_unbiased():
    generator = torch.Generator().manual_seed(0)
    z, a, b = (torch.randn(3000, 40, generator=generator) for _ in range(3))
    z = z[:1].expand(3000, 40)
    form = Form(classes=40, top=6, sketches=4, seed=1)
    signs = form.signs()
    parts = [deltas(form, z, z + change, None, signs).double() for change in (a, b, a + b)]
    torch.testing.assert_close(parts[0] + parts[1], parts[2], rtol=0, atol=2e-2)  # half precision
    found = positions(form, z, None)
    p = torch.softmax(z[0].double(), -1)
    order = p.argsort(descending=True)[6:]
    share = p[order] / p[order].sum()
    np.testing.assert_allclose(found.tail[0], p[order].sum())
    spread = (share * (a[:, order] - (a[:, order] * share).sum(1, keepdim=True)) ** 2).sum(1)
    off = parts[0][:, 7:].square().sum(1) - spread
    error = float(off.std()) / 3000**0.5
    assert abs(float(off.mean())) < 4 * error < 0.1 * float(spread.mean())


def test_one_run_of_batches_or_several_keep_the_same(branches, tmp_path):
    found = []
    for cache in (1 << 30, 1):
        folder = tmp_path / str(cache)
        problem = profile(branches, SPACE, Kl(deltas=str(folder), cache_bytes=cache, interactions=True))
        model = LogitSum.load(folder, problem)
        found.append((model.deltas, model.positions.top, model.positions.counts))
    for one, several in zip(*found, strict=True):
        assert np.array_equal(one, several)
    assert len(list((tmp_path / "1").iterdir())) == 2 * (1 + 3) + 1


class StoppedError(Exception):
    pass


def test_a_stopped_run_leaves_no_whole_store_and_goes_on_to_the_same_bytes(branches, tmp_path):
    whole, stopped, parts = tmp_path / "whole", tmp_path / "stopped", tmp_path / "parts"
    profile(branches, SPACE, Kl(deltas=str(whole)))

    def stop(stage, done, total):
        if stage == "kl" and done == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        profile(branches, SPACE, Kl(deltas=str(stopped)), progress=stop, resume=parts)
    problem = profile(branches, SPACE, Kl())
    with pytest.raises(UsageError, match="not finished"):
        LogitSum.load(stopped, problem)
    profile(branches, SPACE, Kl(deltas=str(stopped)), resume=parts)
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == {p.name: p.read_bytes() for p in stopped.iterdir()}


def test_deltas_of_another_measurement_are_never_touched(branches, tmp_path):
    profile(branches, SPACE, Kl(deltas=str(tmp_path)))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    other = copy.deepcopy(branches.model)
    other.branches[0].bias.data += 1
    for workload, space, statistic, words in [
        (Workload(other, branches.calibration, branches.evaluation), SPACE, Kl(deltas=str(tmp_path)), "another model"),
        (branches, Space.simple(bits=(2,), ranks=()), Kl(deltas=str(tmp_path)), "other groups or choices"),
        (branches, SPACE, Kl(deltas=str(tmp_path), samples=5), "other calibration samples"),
        (branches, SPACE, Kl(deltas=str(tmp_path), top=3), "classes|top|sketches"),
    ]:
        with pytest.raises(UsageError, match=words) as caught:
            profile(workload, space, statistic)
        assert "name another folder" in str(caught.value)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_options_that_keep_nothing_are_refused(branches):
    with pytest.raises(UsageError, match="sketches=0"):
        profile(branches, SPACE, Kl(sketches=0))


@pytest.mark.parametrize("name", ["cnn", "lm_padded"])
def test_interactions_are_the_second_order_of_the_sum(workload_of, space, name):
    workload = workload_of(name)
    problem = profile(workload, space, (Kl(interactions=True),))
    (basis,) = problem.interactions
    assert basis.score == "kl"
    assert len(basis.eigenvalues) <= problem.choice_count
    targets = plan(workload, space).targets
    wide, mass = [[] for _ in range(problem.choice_count)], 0
    for batch in workload.calibration:
        mask = workload.task.mask(batch)
        with torch.no_grad():
            base = workload.task.logits(workload.model, batch)
        keep = torch.ones(base.shape[:-1], dtype=torch.bool) if mask is None else mask
        p = torch.softmax(base[keep].double(), -1)
        mass += len(p)
        row = 0
        for t, target in enumerate(targets):
            kept = [next(k for k, c in enumerate(g.choices) if c.name == "keep") for g in problem.groups]
            for k in range(len(target.menu)):
                kept[t] = k
                with torch.no_grad():
                    other = workload.task.logits(with_weights(workload, space, kept), batch)
                delta = (other - base)[keep].double()
                wide[row].append((p.sqrt() * (delta - (p * delta).sum(-1, keepdim=True))).flatten())
                row += 1
    true = torch.stack([torch.cat(parts) for parts in wide])
    products = (true @ true.T / mass).numpy()
    found = (basis.vectors * basis.eigenvalues) @ basis.vectors.T
    size = np.sqrt(np.diag(products))
    assert (np.abs(found - products) <= 1e-3 * np.outer(size, size) + 1e-14).all()  # of each two, however small
    unary = problem.scores["kl"]
    assert np.array_equal(unary, profile(workload_of(name), space, Kl()).scores["kl"])


def test_deltas_of_a_network_whose_attention_is_opened_are_of_that_network(tmp_path):
    class Attends(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.head = torch.nn.MultiheadAttention(8, 2, batch_first=True), torch.nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.mix(x, x, x, need_weights=False)[0].mean(1))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        data = [[(torch.randn(n, 3, 8), torch.zeros(n, dtype=torch.long))] for n in (4, 2)]
        workload = Workload(Attends().eval(), *data)
    problem = profile(workload, Space.simple(bits=(2, 4), ranks=()), Kl(deltas=str(tmp_path)))
    loaded = LogitSum.load(tmp_path, problem)
    keep = [len(group.choices) - 1 for group in problem.groups]
    keep[0] = 0
    assert loaded.predict(keep) == pytest.approx(problem.scores["kl"][0], rel=1e-4)
