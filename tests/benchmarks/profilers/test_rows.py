"""Every row on a tiny network: figures that can be known, and predictors that are right, wrong or absent."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats

from allocator.errors import AllocatorError, UsageError
from allocator.problem import Problem
from benchmarks.profilers import cost, draws, predictors, truth, untouched
from benchmarks.profilers.allocated import allocated
from benchmarks.profilers.predictors import MAKERS, Predictor
from benchmarks.profilers.prefix import prefix
from benchmarks.profilers.rows import ROWS
from benchmarks.profilers.single import agreement, single
from benchmarks.profilers.truth import spearman
from benchmarks.profilers.whole import judged, whole


def by_hand(weight, bits):
    most = 2 ** (bits - 1) - 1
    scale = (weight.abs().amax(1, keepdim=True) / most).half().float()
    return (weight / scale).round().clamp(-most, most) * scale


def kl_by_hand(subject, model):
    inputs = torch.cat([x for x, _ in subject.held_out])
    p, q = (torch.log_softmax(net(inputs).detach().double(), 1) for net in (subject.workload.model, model))
    return float((p.exp() * (p - q)).sum(1).mean())


def test_held_out_is_part_of_the_evaluation_data(subject):
    assert [len(x) for x, _ in subject.held_out] == [40, 40]
    assert subject.held_out[0] is subject.workload.evaluation[0]


def test_truth_is_that_of_weights_rounded_by_hand(subject, bench):
    found, labels = bench.single_kl(), subject.labels
    assert len(found) == 21
    assert labels[:7] == [f"int{bits}" for bits in range(2, 9)]
    for row, name in ((0, "0"), (7, "2.0"), (16, "3")):
        other = copy.deepcopy(subject.workload.model)
        weight = other.get_submodule(name).weight
        weight.data.copy_(by_hand(weight.data, int(labels[row][3:])))
        assert found[row] == pytest.approx(kl_by_hand(subject, other), rel=1e-6)


def test_whole_networks_are_changed_in_all_layers(subject, bench):
    other = copy.deepcopy(subject.workload.model)
    choices = draws.allocations(subject, 10)
    for name, place in zip(("0", "2.0", "3"), choices[3].tolist(), strict=True):
        weight = other.get_submodule(name).weight
        weight.data.copy_(by_hand(weight.data, place + 2))
    assert bench.whole_kl()[3] == pytest.approx(kl_by_hand(subject, other), rel=1e-6)


def test_random_allocations_keep_to_their_ranges(subject):
    choices = draws.allocations(subject)
    assert choices.shape == (160, 3)
    for low, high in draws.RANGES:
        bits = choices[draws.of_range(low, high)] + 2
        assert (bits.min(), bits.max()) == (low, high)
    np.testing.assert_array_equal(choices, draws.allocations(subject))


def test_spearman_is_scipys():
    draw = np.random.default_rng(0)
    a, b = draw.integers(0, 9, 50), draw.integers(0, 9, 50)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_single_agreement_by_hand():
    labels = ["x", "x", "x", "y", "y", "y"]
    found = agreement([1, 2, 3, 10, 11, 12], [1, 2, 3, 12, 11, 10], labels)
    assert found["within"] == pytest.approx(0.0)
    assert found["all"] == pytest.approx(stats.spearmanr([1, 2, 3, 4, 5, 6], [1, 2, 3, 6, 5, 4]).statistic)


def test_whole_judges_perfect_and_reversed_predictions():
    measured = np.arange(1, 41) / 100.0
    assert judged(measured, measured, 10) == pytest.approx(
        {"pooled": 1, "2-8": 1, "2-4": 1, "3-6": 1, "5-8": 1, "scale": 1}
    )
    found = judged(1 - measured, measured, 10)
    assert found["pooled"] == found["3-6"] == pytest.approx(-1)
    assert judged(2 * measured, measured, 10)["scale"] == pytest.approx(2)
    assert "scale" not in judged(measured, measured + 1, 10)


def test_ggn_ranks_the_tiny_network(bench):
    assert single(bench)["all"] > 0.9
    found = whole("ggn", bench)
    assert found["pooled"] > 0.8
    assert 0.3 < found["scale"] < 3


def known(subject, allocation):
    return Predictor(
        unary=np.zeros(21), predict=lambda choices: np.zeros(len(choices)), allocate=lambda budget: allocation
    )


def test_uniform_removes_nothing_of_its_own_excess(bench, monkeypatch):
    monkeypatch.setitem(MAKERS, "known", lambda subject: known(subject, subject.uniform("int3")))
    found = allocated("known", bench)
    assert found["share"] == 0
    assert found["bytes"] == found["budget_bytes"]
    assert found["uniform_loss"] > found["float_loss"]


def test_eight_bits_remove_the_excess_and_break_the_budget_visibly(bench, monkeypatch):
    monkeypatch.setitem(MAKERS, "known", lambda subject: known(subject, subject.uniform("int8")))
    found = allocated("known", bench)
    assert found["share"] == pytest.approx(1, abs=0.1)
    assert found["bytes"] > found["budget_bytes"]


def test_ggn_allocates_within_the_budget(bench):
    found = allocated("ggn", bench)
    assert found["bytes"] <= found["budget_bytes"]
    assert math.isfinite(found["share"])


def test_interactions_are_part_of_prediction_and_allocation():
    def group(name):
        costs = ((1, 2.0), (3, 1.0))
        choices = [{"name": f"c{c}", "cost": {"weight_bytes": c}, "score": {"s": s}} for c, s in costs]
        return {"name": name, "choices": choices}

    rows = {
        "format": "allocation-problem",
        "version": 1,
        "groups": [group("a"), group("b")],
        "interactions": [
            {"score": "s", "pairs": [{"a": ["a", "c1"], "b": ["b", "c3"], "value": 5.0}]},
        ],
        "loss": {"terms": {"s": 1}},
    }
    predictor = predictors.of_problem(Problem.from_rows(rows))
    np.testing.assert_allclose(predictor.predict(np.array([[0, 0], [0, 1], [1, 0], [1, 1]])), [4, 8, 3, 2])
    assert predictor.interactions == 1
    assert predictor.allocate(4).tolist() == [1, 0]  # without the pair, [0, 1] is as good


def test_no_allocation_is_an_error(bench):
    with pytest.raises(AllocatorError, match="found no allocation"):
        bench.predictor("ggn").allocate(1)


def test_absent_predictors_are_named(bench, monkeypatch):
    monkeypatch.delitem(MAKERS, "refined")
    for row in ("whole refined", "allocated refined", "refine cost"):
        with pytest.raises(UsageError, match="no predictor is called 'refined'"):
            ROWS[row](bench)


def test_a_new_predictor_fills_its_rows(bench, monkeypatch):
    monkeypatch.setitem(MAKERS, "refined", predictors.ggn)
    assert ROWS["whole refined"](bench) == ROWS["whole ggn"](bench)
    assert ROWS["allocated refined"](bench)["share"] == ROWS["allocated ggn"](bench)["share"]
    assert ROWS["refine cost"](bench)["refined"] > 0


def test_costs_are_ratios_to_a_pass(subject, bench):
    def twice():
        for _ in range(40):
            cost.forward_backward(subject)

    found = cost.in_fb(subject, {"forty": twice})
    assert 10 < found["forty"] < 160
    assert all(value > 0 for value in cost.cost(bench).values())


def test_prefix_is_compared_bit_by_bit(bench, monkeypatch):
    assert prefix(bench)["exact"] == 1
    whole_runs = truth.kls
    monkeypatch.setattr("benchmarks.profilers.prefix.kls", lambda *a: [1e-16 + v for v in whole_runs(*a)])
    assert prefix(bench)["exact"] == 0


def test_profilers_leave_the_network_alone(bench):
    found = untouched.untouched(bench)
    assert found["share"] == 1
    assert found["profilers"] >= 4
    assert found["crashed"] == 0


def test_a_profiler_that_spoils_the_network_or_crashes_is_counted(bench, monkeypatch):
    def spoiling(workload, space, name):
        if name == "ggn":
            workload.model[0].bias.data.add_(1)
        if name == "kl":
            raise RuntimeError("out of luck")

    monkeypatch.setattr(untouched, "profile", spoiling)
    found = untouched.untouched(bench)
    assert found["share"] == pytest.approx(1 - 1 / found["profilers"])
    assert (found["crashed"], found["refused"]) == (1, 0)


@pytest.mark.parametrize("spoil", ["weight", "mode", "hook", "gradient", "frozen", "torch", "numpy", "attribute"])
def test_everything_that_may_be_left_behind_is_seen(subject, spoil):
    model = untouched.awkward(subject.workload.model)
    first = next(model.parameters())
    states = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002 - the global state is what is watched
    before = list(untouched.state(model))
    assert list(untouched.state(model)) == before
    try:
        {
            "weight": lambda: first.data.view(-1)[0:1].add_(1e-7),
            "mode": lambda: model.train(),
            "hook": lambda: model[0].register_forward_hook(lambda *_: None),
            "gradient": lambda: setattr(model[3].bias, "grad", None),
            "frozen": lambda: first.requires_grad_(True),
            "torch": lambda: torch.rand(1),
            "numpy": lambda: np.random.random(),  # noqa: NPY002 - as above
            "attribute": lambda: setattr(model[0], "forward", model[0].forward),
        }[spoil]()
        assert list(untouched.state(model)) != before
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002 - as above
