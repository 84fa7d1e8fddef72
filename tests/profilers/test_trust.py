"""The check on every run: how far the logits move against what the linear model says."""

import pytest
import torch
from torch import nn

from allocator.profiling import profile
from allocator.space import Space
from allocator.workload import Workload
from profilers.ggn import Ggn


class Deep(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(12, 12) for _ in range(3)])
        self.head, self.activation = nn.Linear(12, 4), activation

    def forward(self, x):
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.head(x)


def workload(activation):
    torch.manual_seed(0)
    rows = [(torch.randn(40, 12), torch.randint(4, (40,))) for _ in range(2)]
    return Workload(Deep(activation), rows[:1], rows[1:])


def notes(activation, bits):
    problem = profile(workload(activation), Space.simple(bits=bits, ranks=(0.25,)), Ggn(sketches=2))
    return problem, problem.notes.meta["profilers"]["ggn"]


def test_a_network_that_is_linear_in_each_layer_is_trusted():
    problem, found = notes(nn.Identity(), (2, 4, 8))
    assert set(found["linearisation_error"]) == {"quantize 2", "quantize 4", "quantize 8", "low_rank"}
    assert max(found["linearisation_error"].values()) < 1e-4
    assert found["untrusted"] == {}
    assert (problem.remainder["ggn"] <= 1e-3 * problem.scores["ggn"]).all()


def test_large_changes_of_a_curved_network_are_flagged_and_small_ones_are_not():
    problem, found = notes(lambda x: torch.sin(3 * x), (2, 4, 8))
    error = found["linearisation_error"]
    assert error["quantize 2"] > 0.25 > error["quantize 8"]
    assert any("int2" in names for names in found["untrusted"].values())
    assert not any("int8" in names for names in found["untrusted"].values())
    gaps = iter(problem.remainder["ggn"].tolist())
    for group in problem.groups:
        for choice in group.choices:
            flagged = choice.name in found["untrusted"].get(group.name, [])
            assert flagged == (next(gaps) > choice.score["ggn"] * (2 * 0.25 + 0.25**2))


@pytest.mark.parametrize("name", ["lm", "embedding", "time_first", "cnn"])
def test_the_check_runs_on_every_kind_of_task(workload_of, space, name):
    found = profile(workload_of(name), space, "ggn").notes.meta["profilers"]["ggn"]
    assert all(error >= 0 for error in found["linearisation_error"].values())
    assert found["linearisation_error"]["quantize 4"] > 0


def test_the_check_is_resumed_after_a_kill(workload_of, space, tmp_path):
    stage, calls = "ggn, its check", []
    whole = profile(workload_of("lm"), space, "ggn", progress=lambda *call: calls.append(call))
    families = [call for call in calls if call[0] == stage][-1][2]
    assert families > 2

    def stop_early(name, done, total):
        if (name, done) == (stage, families - 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profile(workload_of("lm"), space, "ggn", progress=stop_early, resume=tmp_path)
    calls.clear()
    again = profile(workload_of("lm"), space, "ggn", resume=tmp_path, progress=lambda *call: calls.append(call))
    assert [call[1] for call in calls if call[0] == stage] == [families - 1, families]
    assert again.notes.meta == whole.notes.meta
    assert (again.remainder["ggn"] == whole.remainder["ggn"]).all()
