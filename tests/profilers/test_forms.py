"""Decompositions and fits are made once, layer by layer, and outlive a kill."""

import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch

from allocator.applier.approximate import Approximator
from allocator.profiling import profile
from allocator.progress import silent
from allocator.space import Rule, Space
from allocator.tasks.guard import untouched
from profilers._forms import STAGE, make_forms
from profilers._plan import plan
from profilers._statistics import with_statistics
from profilers.fisher import Fisher
from profilers.ggn import Ggn
from profilers.weight_error import WeightError

GPTQ = {"kind": "quantize", "bits": 3, "method": "gptq"}
PRUNED = {
    "kind": "prune", "pattern": "unstructured", "density": 0.5, "weighting": "input", "compensate": True,
    "values": {"kind": "quantize", "bits": 4},
}  # fmt: skip
MENU = (
    {"kind": "keep"},
    {"kind": "quantize", "bits": 3},
    GPTQ,
    PRUNED,
    {"kind": "corrected", "action": GPTQ},
    {"kind": "low_rank", "rank": 2},
)
SLOW = 4


@pytest.fixture
def fitted_space():
    return Space((Rule(modules="embed", choices="skip"), Rule(choices=MENU)))


class StoppedError(Exception):
    pass


def laid_out(workload, space):
    return with_statistics(plan(workload, space), None, silent)


def test_a_target_gives_the_same_weights_with_its_forms_and_without(workload_of, fitted_space):
    workload = workload_of("lm")
    with untouched(workload.model):
        bare, made = laid_out(workload, fitted_space), laid_out(workload, fitted_space)
        make_forms(made, silent)
        for one, other in zip(bare.targets, made.targets, strict=True):
            assert len(one.missing()) == len(other.forms) == SLOW
            assert other.missing() == []
            for place in range(len(MENU)):
                assert torch.equal(one.approximation(place), other.approximation(place))
                shifts = one.shift(place), other.shift(place)
                assert shifts == (None, None) or torch.equal(*shifts)


@pytest.mark.parametrize("statistic", [Ggn(sketches=1), Fisher(), WeightError()], ids=["ggn", "fisher", "weight_error"])
def test_what_was_fitted_before_a_kill_is_not_fitted_again(workload_of, fitted_space, tmp_path, monkeypatch, statistic):
    whole = profile(workload_of("lm"), fitted_space, statistic)
    fitted = []
    pack = Approximator.pack

    def counting(self, action):
        fitted.append(action)
        return pack(self, action)

    monkeypatch.setattr(Approximator, "pack", counting)

    def stop_early(stage, done, total):
        if stage == STAGE and done == total - 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        profile(workload_of("lm"), fitted_space, statistic, progress=stop_early, resume=tmp_path)
    before = len(fitted)
    assert before >= SLOW
    stages = []
    resumed = profile(
        workload_of("lm"), fitted_space, statistic, resume=tmp_path, progress=lambda *call: stages.append(call)
    )
    assert len(fitted) == before + SLOW  # those of the one layer that was left
    assert [call[1:] for call in stages if call[0] == STAGE] == [
        (before // SLOW, before // SLOW + 1), (before // SLOW + 1, before // SLOW + 1)
    ]  # fmt: skip
    for name, scores in whole.scores.items():
        assert np.array_equal(resumed.scores[name], scores)


def test_a_menu_without_slow_choices_has_no_such_stage(workload_of):
    stages = []
    profile(
        workload_of("lm"), Space.simple(bits=(2, 4), ranks=()), Ggn(), progress=lambda *call: stages.append(call[0])
    )
    assert STAGE not in stages
    assert "ggn" in stages


def test_workers_get_what_the_others_fitted(fitted_space, monkeypatch):
    folder = str(Path(__file__).parent / "elsewhere")
    monkeypatch.syspath_prepend(folder)
    import toy_shards

    try:
        space = Space(
            (Rule(choices=({"kind": "keep"}, {"kind": "low_rank", "rank": 1}, {"kind": "quantize", "bits": 3})),)
        )
        alone = profile(toy_shards.workload(), space, Ggn(sketches=1))
        stages = []
        spread = profile(
            toy_shards.workload(), space, Ggn(sketches=1), jobs=2, progress=lambda *call: stages.append(call[0])
        )
    finally:
        joblib.externals.loky.get_reusable_executor().shutdown(kill_workers=True)
        sys.modules.pop("toy_shards", None)
    assert stages.index(STAGE) < stages.index("ggn")
    assert np.array_equal(alone.scores["ggn"], spread.scores["ggn"])
