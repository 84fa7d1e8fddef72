import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from allocator.errors import UsageError
from allocator.space import Rule, Space
from allocator.tasks.batches import take
from allocator.workload import Workload
from profilers._cotangent import half_hessian
from profilers._parts import batch_seed
from profilers._plan import plan
from profilers.kfac import Kfac

FINE = Space.simple(bits=(2, 4), ranks=())


class Conv(nn.Module):
    """Strides, paddings of every kind, dilation and groups; nothing in place, so that outputs can be watched."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 2), padding_mode="reflect")
        self.b = nn.Conv2d(4, 6, 3, padding="same", dilation=(2, 1), groups=2, bias=False)
        self.line = nn.Conv1d(6, 4, 3, stride=2, padding=1, groups=2)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = torch.tanh(self.b(torch.tanh(self.a(x))))
        return self.head(torch.tanh(self.line(x.flatten(2))).mean(2))


class Tokens(nn.Module):
    """An embedding, a layer over tokens that is called twice, and a weight that two modules share."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.again = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        x = self.mix(torch.tanh(self.mix(self.embed(x))))
        return self.head(torch.tanh(self.again(x)).mean(1))


def workload_of_net(net):
    torch.manual_seed(2)
    made = net()
    rows = (5, 4)
    if net is Conv:
        data = [(torch.randn(n, 2, 6, 5), torch.randint(5, (n,))) for n in (*rows, 3)]
    else:
        data = [(torch.randint(7, (n, 3)), torch.randint(7, (n,))) for n in (*rows, 3)]
    return Workload(made.eval(), data[:2], data[2:])


def watched(workload, batch, seed, sketches):
    """(module, its weight's Jacobian at one call [rows, O, *weight], gradients at the output [sketches, rows, O])."""
    calls = []
    handles = [
        module.register_forward_hook(lambda module, args, output: calls.append((module, args[0], output)))
        for module in workload.model.modules()
        if hasattr(module, "weight")
    ]
    logits = workload.task.logits(workload.model, batch)
    for handle in handles:
        handle.remove()
    generator = torch.Generator().manual_seed(seed)
    cotangents = [half_hessian(logits, None, generator) for _ in range(sketches)]
    outputs = [output for _, _, output in calls]
    arriving = [torch.autograd.grad(logits, outputs, v, retain_graph=True) for v in cotangents]
    for place, (module, inputs, output) in enumerate(calls):

        def run(weight, module=module, inputs=inputs):
            return functional_call(module, {"weight": weight}, (inputs,))

        axis = 1 if isinstance(module, (nn.Conv1d, nn.Conv2d)) else output.dim() - 1
        jacobian = jacrev(run)(module.weight.detach()).detach().double()
        jacobian = jacobian.movedim(axis, output.dim() - 1).flatten(0, output.dim() - 2)
        gradients = torch.stack([g[place].movedim(axis, -1).flatten(0, -2) for g in arriving]).double()
        yield module, jacobian, gradients


def kronecker(workload, batches, seeds, sketches):
    """{weight: ½ A ⊗ G/(rows · positions) as one matrix over the flat weight}, from Jacobians of single layers."""
    inputs, outputs, rows = {}, {}, {}
    for batch, seed in zip(batches, seeds, strict=True):
        for module, jacobian, gradients in watched(workload, batch, seed, sketches):
            embedding = isinstance(module, nn.Embedding)
            groups = getattr(module, "groups", 1)
            width = jacobian.shape[1] // groups
            for g in range(groups):
                o = g * width  # any output of the group sees the inputs of the group
                a = jacobian[:, 0, :, 0] if embedding else jacobian[:, o, o].flatten(1)
                e = gradients[..., g * width : (g + 1) * width]
                key = module, g
                inputs[key] = inputs.get(key, 0) + a.T @ a
                outputs[key] = outputs.get(key, 0) + torch.einsum("sro,srp->op", e, e) / sketches
                rows[key] = rows.get(key, 0) + len(a)
    positions = sum(len(batch[1]) for batch in batches)
    found = {}
    for (module, g), a in inputs.items():
        e, size = outputs[module, g], module.weight.numel()
        pair = torch.kron(a, e) if isinstance(module, nn.Embedding) else torch.kron(e, a)
        block = slice(g * len(pair), (g + 1) * len(pair))
        whole = found.setdefault(module.weight, torch.zeros(size, size, dtype=torch.float64))
        whole[block, block] += pair / (2 * rows[module, g] * positions)
    return found


def pieces_of(workload, options):
    assert options.pieces >= 9
    batches = [take(b, i, i + 1) for b in workload.calibration for i in range(len(b[1]))]
    return batches, [batch_seed(options.seed, key) for key in range(len(batches))]


@pytest.mark.parametrize("net", [Conv, Tokens])
@pytest.mark.parametrize("sketches", [1, 3])
def test_equals_the_kronecker_product(net, sketches):
    workload, options = workload_of_net(net), Kfac(sketches=sketches, pieces=20, seed=4)
    problem = options.profile(workload, FINE)
    dense = kronecker(workload, *pieces_of(workload, options), sketches)
    scores = iter(problem.scores["kfac"])
    for target in plan(workload, FINE).targets:
        changes = dict(target.changes())
        for place in range(len(target.menu)):
            score = next(scores)
            delta = changes.get(place, torch.zeros_like(target.unit.weight)).double().flatten()
            assert score == pytest.approx(float(delta @ dense[target.unit.weight] @ delta), rel=1e-4)
            assert (score > 0) == (place in changes)


@pytest.mark.parametrize("net", [Conv, Tokens])
def test_stderr_is_that_of_leaving_one_piece_out(net):
    workload, options = workload_of_net(net), Kfac(sketches=4, pieces=20)
    problem = options.profile(workload, FINE)
    batches, seeds = pieces_of(workload, options)
    left_out = [
        kronecker(workload, batches[:i] + batches[i + 1 :], seeds[:i] + seeds[i + 1 :], 4) for i in range(len(batches))
    ]
    errors, ratios = iter(problem.stderr["kfac"]), []
    for target in plan(workload, FINE).targets:
        changes = dict(target.changes())
        for place in range(len(target.menu)):
            error = next(errors)
            if place in changes:
                delta = changes[place].double().flatten()
                values = np.array([float(delta @ each[target.unit.weight] @ delta) for each in left_out])
                ratios.append(error / (math.sqrt(len(values) - 1) * values.std()))
    assert 0.8 < min(ratios) <= max(ratios) < 1.2


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(torch.tanh(self.a(x)))


def test_is_the_exact_curvature_when_all_samples_are_the_same(exact_curvature):
    """Then inputs and gradients are unrelated indeed, and only the signs are random."""
    torch.manual_seed(0)
    row = torch.randn(1, 3)
    data = [(row.expand(6, 3).clone(), torch.zeros(6, dtype=torch.long))]
    workload = Workload(Flat(), data, [(torch.randn(2, 3), torch.zeros(2, dtype=torch.long))])
    runs = [Kfac(sketches=20, seed=seed).profile(workload, FINE) for seed in range(8)]
    values = np.array([run.scores["kfac"] for run in runs])
    place = 0
    for target in plan(workload, FINE).targets:
        changes = dict(target.changes())
        for choice in range(len(target.menu)):
            column, place = values[:, place], place + 1
            if choice in changes:
                exact = exact_curvature(workload, target.unit.weight, changes[choice])
                error = column.std(ddof=1) / math.sqrt(len(column))
                assert abs(column.mean() - exact) < 4 * error
                assert error < 0.1 * exact


def test_memory_decides_only_how_many_layers_go_together():
    workload = workload_of_net(Conv)
    whole = Kfac().profile(workload, FINE)
    alone = Kfac(cache_bytes=9 * 4 * 700).profile(workload, FINE)
    np.testing.assert_allclose(alone.scores["kfac"], whole.scores["kfac"], rtol=1e-6)
    np.testing.assert_allclose(alone.stderr["kfac"], whole.stderr["kfac"], rtol=1e-5)


def test_networks_with_traps_are_followed(workload_of, space):
    for name in ("cnn", "lm_positions", "lm_padded", "time_first", "embedding"):
        problem = Kfac().profile(workload_of(name), space)
        for score, error, choice in zip(
            problem.scores["kfac"],
            problem.stderr["kfac"],
            [choice.name for group in problem.groups for choice in group.choices],
            strict=True,
        ):
            assert (score == error == 0) if choice == "keep" else (score > 0 and error > 0)
    assert problem.score_specs["kfac"]["target"] == "kl"


def test_layers_that_are_no_outer_product_or_too_large_are_refused(workload_of, space):
    with pytest.raises(UsageError, match=r"layer head has a forward of its own \(Standardised\)"):
        Kfac().profile(workload_of("twice"), space)
    rules = (Rule(modules="head", choices="skip"), *space.rules)
    assert Kfac().profile(workload_of("twice"), Space(rules)).scores["kfac"].any()
    with pytest.raises(UsageError, match=r"factors of layer stem.0 take \d+ bytes in \d pieces"):
        Kfac(cache_bytes=1000).profile(workload_of("cnn"), space)
    with pytest.raises(UsageError, match="sketches=0"):
        Kfac(sketches=0).profile(workload_of("cnn"), space)
