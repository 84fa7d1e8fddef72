"""Components kept by their slopes, from the rule to the stored layer."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import allocator
from allocator.actions import parse
from allocator.errors import UsageError
from allocator.methods.components import MARGIN, picked, with_picked
from allocator.methods.running import method_named, profiled
from allocator.profiling import profile
from allocator.space import Rule, Space
from profilers.component_slopes import ComponentSlopes


def test_by_hand():
    slope, sigma = np.array([-3.0, 1, -1, 2]), np.array([4.0, 2, 1, 1])  # σ² of 22: 16, 4, 1, 1
    assert picked(slope, sigma, 3, 1.0) == [1, 2, 3]  # the largest lowers the loss most by going: 16/22 ≤ .98
    assert picked(slope, sigma, 3, 0.5) == [0, 1, 3]  # beyond ¼: the next best
    assert picked(slope, sigma, 2, 0.5) == [0, 3]  # −1 + 1 takes 5/22 ≤ .98/4; with the 16 it would be beyond
    assert picked(slope, sigma, 2, 0.1) is None  # even the two smallest are 2/22 > .01
    assert picked(slope, sigma, 4, 1.0) is None


@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(0.1, 1))
def test_never_worse_than_the_largest_and_best_where_the_limit_is_wide(seed, rank, gamma):
    rng = np.random.default_rng(seed)
    slope, sigma = rng.normal(size=7), np.sort(rng.exponential(size=7))[::-1]
    kept = picked(slope, sigma, rank, gamma)
    square = sigma**2 / (sigma**2).sum()
    limit = MARGIN * gamma**2
    if kept is None:
        assert square[rank:].sum() > limit
        return
    out = [i for i in range(7) if i not in kept]
    assert len(kept) == rank
    assert square[out].sum() <= limit
    assert slope[out].sum() <= slope[rank:].sum() + 1e-12
    sets = [list(s) for s in itertools.combinations(range(7), 7 - rank)]
    least = min(sets, key=lambda s: slope[s].sum())
    if square[least].sum() <= limit:
        assert sorted(out) == sorted(least)


def test_each_rank_is_offered_with_both_kinds_of_components(workload):
    space = Space((Rule(modules="head", choices="pin"), *method_named("lossless_low_rank").space(Space.simple()).rules))
    wide = with_picked(workload, space, 0.9, None, lambda *_: None)
    problem = profile(workload, wide, ComponentSlopes())
    narrow = profile(workload, space, ComponentSlopes(listed=True))
    told = narrow.notes.meta["profilers"]["component_slopes"]
    both = 0
    for group in problem.groups:
        choices = {choice.name: choice for choice in group.choices}
        slope, sigma = (np.array(told[kind][group.name]) for kind in ("slopes", "sigma"))
        weight = workload.model.get_submodule(group.name).weight.detach()
        assert sigma == pytest.approx(torch.linalg.svdvals(weight.double()).numpy(), rel=1e-5)
        for name, choice in choices.items():
            if not name.endswith("_picked"):
                continue
            both += 1
            plain = choices[name.removesuffix("_picked")]
            assert choice.cost == plain.cost
            assert choice.label == plain.label + "_picked"
            left_out = [i for i in range(len(slope)) if i not in choice.action["components"]]
            assert choice.score["component_slopes"] == pytest.approx(slope[left_out].sum(), rel=1e-5, abs=1e-8)
            assert choice.score["component_slopes"] <= plain.score["component_slopes"] + 1e-8
    assert both > 10
    assert [choice.name for choice in problem.groups[-1].choices] == ["keep"]  # pinned


def test_what_is_applied_has_these_components(workload):
    layer = copy.deepcopy(workload.model.stem)
    action = {"kind": "low_rank", "rank": 2, "components": [1, 3], "left": {"kind": "keep"}, "right": {"kind": "keep"}}
    applied = allocator.apply_(workload.model, {"stem": {"action": action, "modules": ["stem"]}})
    u, s, v = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
    kept = [1, 3]
    assert parse(action).components == (1, 3)
    x = torch.randn(5, 6)
    wanted = x.double() @ ((u[:, kept] * s[kept]) @ v[kept]).T + layer.bias.double()
    assert torch.allclose(applied.stem(x).double(), wanted, atol=1e-5)


def test_the_option(workload, space):
    with pytest.raises(UsageError, match="give slope or largest"):
        profiled(method_named("lossless_low_rank[components=size]"), workload, space, 1, None, lambda *_: None)
    problem = profiled(method_named("compact_low_rank[components=largest]"), workload, space, 1, None, lambda *_: None)
    assert not any(choice.name.endswith("_picked") for group in problem.groups for choice in group.choices)
