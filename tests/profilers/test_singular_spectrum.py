import numpy as np
import pytest
import torch
from torch import nn

from allocator.errors import UsageError
from allocator.profiling import profile
from allocator.space import Rule, Space
from allocator.workload import Workload
from profilers._plan import plan
from profilers.singular_spectrum import SingularSpectrum


def stats(workload, space, **options):
    problem = profile(workload, space, ["weight_error", SingularSpectrum(**options)])
    return [{name: float(column[g]) for name, column in problem.stats.items()} for g in range(len(problem.group_names))]


def expected(squares):
    share = squares[squares > 0] / squares.sum()
    return {
        "effective_rank": np.exp(-(share * np.log(share)).sum()),
        "stable_rank": squares.sum() / squares.max(),
        "norm": squares.sum(),
    }


def compare(found, squares):
    for name, value in expected(squares).items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_plain_stats_come_from_the_svd(workload, space):
    for target, found in zip(plan(workload, space).targets, stats(workload, space), strict=True):
        blocks = target.unit.weight.detach().double().reshape(target.layer.groups, -1, target.layer.columns)
        compare(found, torch.linalg.svdvals(blocks).square().flatten().numpy())
        top = min(target.layer.rows, target.layer.columns)
        assert 1 <= found["effective_rank"] <= max(top, target.layer.groups) + 1e-9


def test_whitened_stats_come_from_the_svd_of_the_outputs(workload, space):
    """The singular values of all outputs X Wᵀ, without bias, are those of S Wᵀ times √positions."""
    targets = plan(workload, space).targets
    for target, found in zip(targets, stats(workload, space, whitened=True), strict=True):
        outputs = []

        def after(module, args, output, target=target, outputs=outputs):
            embedding = isinstance(module, nn.Embedding)
            if embedding != (target.layer.kind == "embedding"):
                return  # a lookup in a weight that is also a head's
            plain = nn.functional.embedding(args[0], module.weight) if embedding else output.detach()
            if not embedding:
                x = torch.zeros_like(args[0])
                if type(module).__name__ == "Standardised":
                    plain = nn.functional.linear(args[0], module.weight)  # the stored matrix, not what it becomes
                elif module.bias is not None:
                    plain = plain - type(module).forward(module, x)
            plain = plain.transpose(0, 1).flatten(1).T if plain.dim() == 4 else plain.reshape(-1, plain.shape[-1])
            outputs.append(plain.double())

        handles = [module.register_forward_hook(after) for module in target.modules]
        with torch.no_grad():
            for batch in workload.calibration:
                workload.task.logits(workload.model, batch)
        for handle in handles:
            handle.remove()
        rows = torch.cat(outputs).unflatten(1, (target.layer.groups, -1)).transpose(0, 1)
        compare(found, (torch.linalg.svdvals(rows).square() / rows.shape[1]).flatten().numpy())


def test_norm_is_the_score_of_losing_the_layer(workload_of, space):
    workload = workload_of("cnn")
    problem = profile(workload, space, ["weight_error", "output_error", SingularSpectrum()])
    white = stats(workload_of("cnn"), space, whitened=True)
    for norm, target, group, own in zip(
        problem.stats["norm"], plan(workload, space).targets, problem.groups, white, strict=True
    ):
        for choice in group.choices:
            if choice.score["weight_error_relative"]:
                ratio = choice.score["weight_error_sum"] / choice.score["weight_error_relative"]
                assert norm == pytest.approx(ratio, rel=1e-5)
                outputs = choice.score["output_error_sum"] / choice.score["output_error_relative"]
                assert own["norm"] == pytest.approx(outputs, rel=1e-5), target.name


def test_rank_cost_is_what_one_rank_more_stores(workload_of):
    space = Space((Rule(choices=({"kind": "low_rank", "fraction": 0.5}, {"kind": "keep", "dtype": "float32"})),))
    half = {"kind": "keep", "dtype": "float16"}
    wide = Space((Rule(choices=({"kind": "low_rank", "rank": 1, "left": half, "right": half},), modules="shared"),
                  Rule(choices=({"kind": "keep", "dtype": "float32"},))))  # fmt: skip
    found = stats(workload_of("twice"), space)
    assert [own["rank_cost"] for own in found] == [6 + 6 + 2, 5 + 6 + 2]  # a byte each, and a float16 scale per rank
    assert [own["rank_cost"] for own in stats(workload_of("twice"), wide)] == [2 * (6 + 6), 5 + 6 + 2]
    macs = stats(workload_of("lm"), space, resource="macs")
    assert macs[1]["rank_cost"] == 6 * (24 + 8)


def test_chunks_change_nothing(workload_of, space):
    whole = stats(workload_of("lm"), space, whitened=True)
    assert stats(workload_of("lm"), space, whitened=True, cache_bytes=0) == whole


def test_a_weight_of_zeros_has_ranks_zero(workload_of, space):
    workload = workload_of("twice")
    workload.model.shared.weight.data.zero_()
    assert [stats(workload, space)[0][name] for name in ("effective_rank", "stable_rank", "norm")] == [0, 0, 0]


class Idle(nn.Module):
    """The head shares the embedding's weight, and is not called."""

    def __init__(self):
        super().__init__()
        self.embed, self.head, self.out = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False), nn.Linear(4, 3)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.out(self.embed(x).mean(1))


def test_bad_options_and_layers_without_inputs_are_refused(workload_of, space):
    with pytest.raises(UsageError, match=r"resource='bytes'.*weight_bytes, macs, bops"):
        stats(workload_of("twice"), space, resource="bytes")
    torch.manual_seed(0)
    data = [(torch.randint(9, (n, 4)), torch.zeros(n, dtype=torch.long)) for n in (4, 3)]
    with pytest.raises(UsageError, match="layer embed gets no input"):
        stats(Workload(Idle(), data[:1], data[1:]), space, whitened=True)
    with pytest.raises(UsageError, match="none of them gives a score"):
        SingularSpectrum().profile(workload_of("twice"), space)
