"""Levels of channel spaces by hand, and the ranking of channels against sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from allocator.actions import Kept
from allocator.applier import LayerStatistics
from allocator.applier.layers import units
from allocator.grouping.channels import ChannelSpace
from allocator.grouping.ranking import importance, most_important
from allocator.grouping.shares import Levels, Share, levels, wanted

A = ChannelSpace(8, ("stem", "down"), ("up", "out"))
B = ChannelSpace(16, ("up",), ("down",))
HALF, MOST = Share(0.5), Share(0.75, 4)


def first(space: ChannelSpace, count: int) -> tuple[int, ...]:
    return tuple(range(count))


@pytest.mark.parametrize(
    ("share", "of", "count"),
    [(HALF, 8, 4), (HALF, 5, 2), (HALF, 7, 4), (Share(0.01), 9, 1), (MOST, 16, 12), (MOST, 8, 8), (MOST, 3, 3)],
)
def test_shares_round_to_multiples(share: Share, of: int, count: int) -> None:
    assert share.channels(of) == count


def test_a_share_is_a_level_where_all_readers_have_it() -> None:
    every = dict.fromkeys(("stem", "up", "down", "out"), (HALF, MOST))
    found = levels([A, B], every, first)
    half_a, half_b, most_b = Kept(8, (0, 1, 2, 3)), Kept(16, tuple(range(8))), Kept(16, tuple(range(12)))
    assert found["up"] == Levels({HALF: half_b, MOST: most_b}, {HALF: half_a})  # 0.75 of 8 in fours is all of them
    assert found["down"] == Levels({HALF: half_a}, {HALF: half_b, MOST: most_b})
    assert found["stem"] == Levels(rows={HALF: half_a})
    assert found["out"] == Levels(columns={HALF: half_a})
    assert levels([A, B], every | {"out": ()}, first).keys() == {"up", "down"}


def test_a_writer_without_the_shares_keeps_its_rows() -> None:
    found = levels([A], {"up": (HALF,), "out": (HALF,), "down": (HALF,), "stem": (MOST,)}, first)
    assert found.keys() == {"up", "out", "down"}
    assert levels([A], {"up": (HALF,), "out": (MOST,), "down": (HALF,)}, first) == {}


def test_a_layer_that_reads_what_it_writes_has_one_level() -> None:
    loop = ChannelSpace(4, ("into", "same"), ("same", "out"))
    found = levels([loop], dict.fromkeys(("into", "same", "out"), (HALF,)), first)
    assert [found[name].same for name in ("into", "same", "out")] == [False, True, False]


def test_rules_without_shares_give_none() -> None:
    values = {"kind": "keep"}
    assert wanted("pin") == []
    assert wanted([values, {"kind": "slim", "rows": {"of": 2, "kept": [0]}, "values": values}]) == []
    assert wanted([{"kind": "slim", "keep": 0.75, "multiple": 4, "values": values}]) == [MOST]


def test_importance_is_the_energy_that_the_readers_miss() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"wide": nn.Conv2d(4, 5, 2), "flat": nn.Linear(12, 3), "plain": nn.Linear(4, 2)})
    found = {unit.name: unit for unit in units(model)}
    inputs = {name: torch.randn(40, size, dtype=torch.float64) for name, size in (("wide", 16), ("flat", 12))}
    statistics = {
        name: LayerStatistics(input_moment=(x.T @ x / len(x)).unsqueeze(0).float()) for name, x in inputs.items()
    }
    space = ChannelSpace(4, ("somewhere",), ("wide", "flat", "plain"))
    wanted = np.zeros(4)
    for channel in range(4):
        for name, x in inputs.items():
            weight = found[name].weight.detach().double().reshape(found[name].layer.rows, 4, -1)
            each = weight.shape[2]
            for row in weight[:, channel]:
                wanted[channel] += float(((x[:, channel * each : (channel + 1) * each] @ row) ** 2).mean())
        wanted[channel] += float((found["plain"].weight.detach()[:, channel] ** 2).sum())
    np.testing.assert_allclose(importance(space, found, statistics).numpy(), wanted, rtol=1e-5)


def test_of_equal_channels_the_first_stay() -> None:
    assert most_important(torch.tensor([1.0, 3.0, 1.0, 2.0, 1.0]), 3) == (0, 1, 3)
