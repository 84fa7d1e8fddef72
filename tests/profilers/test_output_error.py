import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from allocator.errors import UsageError
from allocator.tasks.batches import count, take
from allocator.tasks.measurement import ratio
from allocator.workload import Workload
from profilers import _energy
from profilers._plan import plan
from profilers.output_error import OutputError


def dense(workload, target, other):
    """(squared error, elements, positions, squared output) per sample by hooks, one sample at a time, in float64."""
    whole = workload.task.name == "embedding"
    samples = [b if whole else take(b, i, i + 1) for b in workload.calibration for i in range(1 if whole else count(b))]
    rows = []
    for sample in samples:
        row = np.zeros(4)

        def after(module, args, output, row=row):
            if torch.is_tensor(output) and not row[3] < 0:
                twin = copy.deepcopy(module).double()
                twin._forward_hooks.clear()
                if getattr(twin, "bias", None) is not None:
                    twin.bias.data.zero_()
                x = args[0].double() if args[0].is_floating_point() else args[0]
                plain = twin(x)
                changed = functional_call(twin, {"weight": other.double()}, (x,))
                features = target.layer.columns if isinstance(module, nn.Embedding) else target.layer.rows
                row += [
                    float((changed - plain).square().sum()),
                    plain.numel(),
                    plain.numel() / features,
                    float(plain.square().sum()),
                ]

        handles = [module.register_forward_hook(after) for module in target.modules]
        with torch.no_grad():
            workload.task.logits(workload.model, sample)
        for handle in handles:
            handle.remove()
        rows.append(row)
    return torch.tensor(np.array(rows))


@pytest.mark.parametrize("moments", [False, True, None], ids=["by_outputs", "by_moments", "as_it_pays"])
def test_scores_are_the_dense_ones(workload, space, moments, monkeypatch):
    if moments is not None:
        monkeypatch.setattr(_energy, "moments_pay", lambda target, samples: moments)
    problem = OutputError().profile(workload, space)
    k = 0
    for target in plan(workload, space).targets:
        for place in range(len(target.menu)):
            error, elements, positions, whole = dense(workload, target, target.approximation(place)).T
            for suffix, mass in (("", elements), ("_sum", positions), ("_relative", whole)):
                wanted, name = ratio(error, mass), f"output_error{suffix}"
                assert problem.scores[name][k] == pytest.approx(wanted.value, rel=1e-4, abs=1e-15)
                assert problem.stderr[name][k] == pytest.approx(wanted.stderr, rel=1e-3, abs=1e-15)
            k += 1
    assert all(spec["target"] == "proxy" for spec in problem.score_specs.values())


def test_chunks_change_nothing(workload_of, space):
    whole = OutputError().profile(workload_of("cnn"), space)
    cut = OutputError(cache_bytes=0).profile(workload_of("cnn"), space)
    for name in whole.scores:
        assert np.array_equal(whole.scores[name], cut.scores[name])
        assert np.array_equal(whole.stderr[name], cut.stderr[name])


class Cut(nn.Module):
    """Nothing that gradients could follow."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        with torch.inference_mode():
            return self.head(torch.relu(self.a(x))).detach()


class Keywords(Cut):
    def forward(self, x):
        return self.head(self.a(input=x))


class Uneven(Cut):
    """Rows that are samples for the first two, and not for more."""

    def forward(self, x):
        return self.head(self.a(torch.cat([x, x[:1]]) if len(x) > 2 else x)[: len(x)])


def small(net, rows=6):
    torch.manual_seed(0)
    data = [(torch.randn(rows, 4), torch.zeros(rows, dtype=torch.long))]
    return Workload(net, data, [(torch.randn(2, 4), torch.zeros(2, dtype=torch.long))])


def test_networks_without_gradients_are_measured(space):
    problem = OutputError().profile(small(Cut()), space)
    assert problem.scores["output_error"].max() > 0


def test_a_layer_that_gives_nothing_but_zero_has_no_relative_error(space):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    nn.init.zeros_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    problem = OutputError().profile(small(net), space)
    assert not problem.scores["output_error_relative"].any()


def test_what_cannot_be_followed_is_refused(space):
    with pytest.raises(UsageError, match="layer a is called with keywords only"):
        OutputError().profile(small(Keywords()), space)
    with pytest.raises(UsageError, match="layer a works on 7 rows for 6 samples"):
        OutputError().profile(small(Uneven()), space)
    with pytest.raises(UsageError, match="output_error needs at least 2"):
        OutputError().profile(small(nn.Sequential(nn.Linear(4, 3)), rows=1), space)
