import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from allocator.errors import UsageError
from allocator.tasks.batches import count, take
from allocator.tasks.causal_lm import CausalLm
from allocator.tasks.measurement import ratio
from allocator.workload import Workload
from profilers._plan import plan
from profilers.hessian import Hessian

NETS = ["cnn", "lm", "lm_padded", "twice", "embedding"]


def quadratics(workload, space, dense):
    """½ ΔᵀHΔ of every choice, and ½ |Δ|ᵀ|H||Δ|, on which rounding depends."""
    values, scales = [], []
    for target in plan(workload, space).targets:
        block, row = dense.block(target.name), [(0.0, 1e-30)] * len(target.menu)
        for place, delta in target.changes():
            d = delta.double().flatten()
            row[place] = float(d @ block @ d) / 2, float(d.abs() @ block.abs() @ d.abs()) / 2
        values += [value for value, _ in row]
        scales += [scale for _, scale in row]
    return np.array(values), np.array(scales)


@pytest.mark.parametrize("name", NETS)
def test_equals_the_dense_hessian(true_loss, space, dense, name):
    workload = true_loss(name)
    problem = Hessian().profile(workload, space)
    values, scales = quadratics(workload, space, dense(workload))
    assert np.abs(problem.scores["hessian"] - values).max() > 0  # float32 against float64, not the same code
    assert (np.abs(problem.scores["hessian"] - values) < 2e-5 * scales).all()
    assert (np.abs(values) > 1e-3 * scales).mean() > 0.3  # or the line above would say nothing


@pytest.mark.parametrize("name", ["cnn", "lm_padded", "embedding"])
def test_stderr_is_that_over_samples_when_pieces_are_samples(true_loss, space, dense_each, name):
    workload = true_loss(name)
    problem = Hessian(pieces=100).profile(workload, space)
    batches = list(workload.calibration)
    singles = batches if name == "embedding" else [take(b, i, i + 1) for b in batches for i in range(count(b))]
    each = dense_each(workload, singles)
    counts = torch.tensor([found.positions for found in each])
    rows = np.array([quadratics(workload, space, found)[0] * found.positions for found in each])
    wanted = np.array([ratio(torch.from_numpy(column), counts).stderr for column in rows.T])
    np.testing.assert_allclose(problem.stderr["hessian"], wanted, rtol=2e-3, atol=1e-9)
    assert (wanted > 0).sum() > 3


def test_pieces_change_the_stderr_only(true_loss, space):
    workload = true_loss("lm")
    few, many = (Hessian(pieces=pieces).profile(workload, space) for pieces in (2, 16))
    np.testing.assert_allclose(few.scores["hessian"], many.scores["hessian"], rtol=1e-3, atol=1e-6)
    assert not np.allclose(few.stderr["hessian"], many.stderr["hessian"], rtol=1e-3)


def test_samples_are_the_first_ones(true_loss, space):
    workload = true_loss("cnn")
    first = Workload(workload.model, list(workload.calibration)[:1], workload.evaluation, workload.task)
    some = Hessian(samples=4).profile(workload, space)
    assert np.array_equal(some.scores["hessian"], Hessian().profile(first, space).scores["hessian"])


def test_declaration(true_loss, space):
    spec = Hessian().profile(true_loss("cnn"), space).score_specs["hessian"]
    assert (spec["unit"], spec["target"], spec["per"]) == ("nat", "ce", "sample")


class Functional(nn.Module):
    """Reads a weight past its module, which hooks could not follow."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(nn.functional.linear(torch.tanh(self.a(x)), self.a.weight))


class Frozen(Functional):
    def forward(self, x):
        with torch.no_grad():
            x = torch.relu(self.a(x))
        return self.head(x)


class Detached(Functional):
    def forward(self, x):
        return self.head(self.a(x)).detach()


class Unused(Functional):
    def forward(self, x):
        return self.head(x) + 0 * self.a(x).detach().sum()


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class OnlyOnce(Functional):
    def forward(self, x):
        return self.head(Once.apply(self.a(x)))


def on(net):
    torch.manual_seed(0)
    data = [(torch.randn(6, 4), torch.arange(6) % 3)]
    other = [(torch.randn(2, 4), torch.zeros(2, dtype=torch.long))]
    return Workload(net(), data, other)


def test_weights_read_past_their_module_are_followed(space, dense):
    workload = on(Functional)
    values, scales = quadratics(workload, space, dense(workload))
    assert (np.abs(Hessian().profile(workload, space).scores["hessian"] - values) < 2e-5 * scales).all()


def test_a_layer_without_effect_has_no_curvature(space):
    problem = Hessian().profile(on(Unused), space)
    assert not problem.scores["hessian"][: problem.sizes[0]].any()
    assert problem.scores["hessian"][problem.sizes[0] :].any()


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Frozen, "no gradient reaches layer a"),
        (Detached, "no gradient reaches layer a"),
        (OnlyOnce, "cannot be differentiated twice"),
    ],
)
def test_networks_that_cannot_be_followed_are_refused(net, said, space):
    workload = on(net)
    with pytest.raises(UsageError, match=said):
        Hessian().profile(workload, space)
    assert all(parameter.requires_grad for parameter in workload.model.parameters())


class Deaf(CausalLm):
    def loss(self, logits, batch):
        return super().loss(logits.detach(), batch)


def test_a_loss_without_a_graph_is_refused(workload_of, space):
    made = workload_of("lm")
    with pytest.raises(UsageError, match="loss of task causal_lm lets no gradient through"):
        Hessian().profile(Workload(made.model, made.calibration, made.evaluation, Deaf()), space)


@pytest.mark.parametrize("options", [{"pieces": 1}, {"samples": 1}])
def test_one_piece_is_refused(true_loss, space, options):
    with pytest.raises(UsageError, match=next(iter(options)) + "=1"):
        Hessian(**options).profile(true_loss("cnn"), space)


def test_one_sample_is_refused(true_loss, space):
    made = true_loss("embedding")
    single = Workload(made.model, list(made.calibration)[:1], made.evaluation, made.task)
    with pytest.raises(UsageError, match="several batches where a whole batch is one sample"):
        Hessian().profile(single, space)
