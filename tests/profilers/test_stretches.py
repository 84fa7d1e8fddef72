"""Choices in blocks: each change is made once for all data, and the result is that of one block."""

import math
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from allocator.profiling import profile
from allocator.progress import silent
from allocator.tasks.guard import untouched
from profilers import _stretches
from profilers._plan import Target, plan
from profilers._sketch import Sketch
from profilers._stretches import Stretch, _cut, blocks
from profilers.ggn import Ggn


def target(size, choices):
    layer = SimpleNamespace(weights=size, macs=size * 10)
    return SimpleNamespace(unit=SimpleNamespace(weight=torch.zeros(size)), menu=[None] * choices, layer=layer)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=8), st.integers(4, 500))
def test_every_choice_is_in_one_block_and_blocks_fit(shapes, room):
    targets = [target(*shape) for shape in shapes]
    found = _cut(targets, room)
    seen = [(one.place, choice) for block in found for one in block for choice in range(one.start, one.stop)]
    assert seen == [(place, choice) for place, (_, count) in enumerate(shapes) for choice in range(count)]
    for block in found:
        size = sum(4 * shapes[one.place][0] * (one.stop - one.start) for one in block)
        assert size <= room or sum(one.stop - one.start for one in block) == 1
        assert len({one.place for one in block}) == len(block)
    # No block could have taken the first choice of the next.
    for block, after in pairwise(found):
        size = sum(4 * shapes[one.place][0] * (one.stop - one.start) for one in block)
        assert size + 4 * shapes[after[0].place][0] > room


def test_blocks_are_taken_where_changes_take_longer_to_make_than_the_network_to_run():
    laid_out = SimpleNamespace(targets=(target(1000, 8), target(500, 8)))
    whole = [(Stretch(0, 0, 8), Stretch(1, 0, 8))]
    assert blocks(laid_out, [4, 4], 2, memory=48_000) == whole  # they fit
    assert len(blocks(laid_out, [4, 4], 2, memory=24_000)) > 1
    assert blocks(laid_out, [8], 2, memory=24_000) == whole  # one batch: nothing is made twice
    assert blocks(laid_out, [10_000, 10_000], 2, memory=24_000) == whole  # the network takes long


@pytest.mark.parametrize("name", ["cnn", "lm", "time_first", "twice", "embedding"])
@pytest.mark.parametrize("diagonal", [False, True])
def test_blocks_give_what_one_block_gives(workload_of, space, monkeypatch, name, diagonal):
    whole = profile(workload_of(name), space, Ggn(diagonal=diagonal))
    monkeypatch.setattr(_stretches, "MADE", math.inf)
    cut = []
    monkeypatch.setattr(_stretches, "_cut", lambda *call: cut.append(_cut(*call)) or cut[-1])
    small = profile(workload_of(name), space, Ggn(diagonal=diagonal, cache_bytes=600))
    assert len(cut[0]) > 2
    assert any(one.start for block in cut[0] for one in block)  # a menu was cut
    for score, values in whole.scores.items():
        np.testing.assert_allclose(small.scores[score], values, rtol=1e-4)
        np.testing.assert_allclose(small.stderr[score], whole.stderr[score], rtol=1e-4)
    assert len(small.interactions) == len(whole.interactions)
    generator = np.random.default_rng(0)
    for _ in range(5):
        choice = generator.integers(whole.sizes)
        assert small.evaluate(choice).loss == pytest.approx(whole.evaluate(choice).loss, rel=1e-3)


def test_each_change_is_made_once(workload_of, space, monkeypatch):
    monkeypatch.setattr(_stretches, "MADE", math.inf)
    made = Counter()
    approximation = Target.approximation

    def counting(self, place):
        made[self.name, self.menu[place].name] += 1
        return approximation(self, place)

    monkeypatch.setattr(Target, "approximation", counting)
    workload = workload_of("lm")
    with untouched(workload.model):
        laid_out = plan(workload, space)
        Sketch(name="ggn", passes=2, seed=0, diagonal=False, cache_bytes=4096).run(laid_out, silent)
    assert set(made.values()) == {1}
    assert len(made) == sum(len(target.menu) for target in laid_out.targets)


def test_a_stopped_run_goes_on_with_the_next_block(workload_of, space, tmp_path, monkeypatch):
    monkeypatch.setattr(_stretches, "MADE", math.inf)
    statistic = Ggn(cache_bytes=600)
    whole = profile(workload_of("lm"), space, statistic)
    done = []

    def stop_early(stage, count, total):
        if stage == "ggn":
            done.append((count, total))
            if 2 * count > total:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profile(workload_of("lm"), space, statistic, progress=stop_early, resume=tmp_path)
    kept = done[-1][0]
    again = []
    resumed = profile(workload_of("lm"), space, statistic, resume=tmp_path, progress=lambda *call: again.append(call))
    assert next(call for call in again if call[0] == "ggn") == ("ggn", kept, done[-1][1])
    assert np.array_equal(resumed.scores["ggn"], whole.scores["ggn"])
