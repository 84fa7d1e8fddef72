"""Measured divergences: those that kl would give, in the place where the problem has the choice."""

import dataclasses

import numpy as np
import pytest
import torch

from allocator.errors import ActionError, UsageError
from allocator.problem import Problem
from allocator.profiling import profile
from allocator.refining.measuring import measured
from allocator.refining.selecting import Selection
from allocator.splitting import split
from profilers.kl import Kl


def silent(stage, done, total):
    pass


def measure(workload, problem, folder, rows=None, samples=30):
    mask = np.ones(problem.choice_count, bool)
    if rows is not None:
        mask[:] = False
        mask[rows] = True
    return measured(split(workload), problem, Selection(mask, samples, 1.0), {}, folder, None, silent)


def test_scores_are_those_of_kl_on_the_same_samples(workload, profiled, space, tmp_path):
    found, predictor = measure(workload, profiled, tmp_path, samples=21)
    wanted = profile(split(workload), space, Kl(samples=21, interactions=True))
    assert np.array_equal(found.scores["kl"], wanted.scores["kl"])
    assert np.array_equal(found.stderr["kl"], wanted.stderr["kl"])
    assert found.loss.terms == {"kl": 1.0}
    assert np.array_equal(found.scores["ggn"], profiled.scores["ggn"])
    assert found.allowed.all()
    assert found.notes.meta["refine"] == {"samples": 21, "choices": profiled.choice_count}
    choice = [1] * profiled.group_count
    assert found.evaluate(choice).loss == pytest.approx(wanted.evaluate(choice).loss)
    single = np.array([len(group.choices) - 1 for group in found.groups])  # keep, and one other
    for group, choices in enumerate(found.sizes.tolist()):
        for place in range(choices):
            one = single.copy()
            one[group] = place
            row = found.indptr[group] + place
            assert predictor.predict(one) == pytest.approx(found.scores["kl"][row], rel=1e-4, abs=1e-9)


def test_choices_that_were_not_measured_are_forbidden_and_take_no_memory(workload, profiled, tmp_path):
    rows = [place for start in profiled.indptr[:-1] for place in (start + 1, start + 3)]
    found, predictor = measure(workload, profiled, tmp_path, rows)
    assert np.flatnonzero(found.free).tolist() == rows
    assert len(predictor.deltas) == len(rows)
    every, _ = measure(workload, profiled, tmp_path / "all")
    assert np.array_equal(found.scores["kl"][rows], every.scores["kl"][rows])
    others = np.setdiff1d(np.arange(found.choice_count), rows)
    assert not found.scores["kl"][others].any()
    assert not found.stderr["kl"][others].any()
    (basis,) = (one for one in found.interactions if one.score == "kl")
    assert not basis.vectors[others].any()
    with pytest.raises(UsageError, match=r"choice 'int2' of group 'stem\.0' has no logit deltas"):
        predictor.predict([0] * found.group_count)


def test_what_was_forbidden_or_pinned_stays_so(workload, profiled, tmp_path):
    allowed = np.ones(profiled.choice_count, bool)
    allowed[2] = False
    stated = profiled.replace(allowed=allowed, pins={1: int(profiled.indptr[1])})
    found, _ = measure(workload, stated, tmp_path, np.flatnonzero(stated.free))
    assert np.array_equal(found.free, stated.free)
    assert found.pins == stated.pins


def foreign():
    """The problem of another tool: own names and resource, one module of two that share a weight, a layer left out."""

    def quantize(bits, **more):
        return {"kind": "quantize", "bits": bits, **more}

    factor = {"kind": "quantize", "bits": 8}
    groups = {
        "first": ("stem.0", {"a": quantize(3), "b": quantize(3, scale_dtype="float32"), "c": {"kind": "keep"}}),
        "shared": ("body.2", {"low": quantize(2), "a": quantize(4)}),
        # a low rank that saves nothing: an ordinary menu leaves it out
        "last": ("head", {"r": {"kind": "low_rank", "rank": 4, "left": factor, "right": factor}, "a": quantize(4)}),
    }
    return Problem.from_rows(
        {
            "format": "allocation-problem",
            "version": 1,
            "resources": {"joule": {"unit": "1"}},
            "budgets": [{"resource": "joule", "max": 9}],
            "groups": [
                {
                    "name": name,
                    "modules": [module],
                    "choices": [
                        {"name": choice, "action": action, "cost": {"joule": place + 1}, "score": {"guess": -place}}
                        for place, (choice, action) in enumerate(own.items())
                    ],
                }
                for name, (module, own) in groups.items()
            ],
        }
    )


def test_a_problem_of_another_tool_is_measured_under_its_own_names(workload, space, tmp_path):
    found, predictor = measure(workload, foreign(), tmp_path)
    assert [group.name for group in found.groups] == ["first", "shared", "last"]
    assert found.allowed.all()
    assert list(found.costs) == ["joule"]
    assert found.loss.terms == {"kl": 1.0}
    wanted = profile(split(workload), space, Kl(samples=30))
    score = {(g.name, c.name): wanted.scores["kl"][c.row] for g in wanted.groups for c in g.choices}
    kl = {(g.name, c.name): found.scores["kl"][c.row] for g in found.groups for c in g.choices}
    assert kl["first", "a"] == score["stem.0", "int3"]
    assert kl["first", "b"] != kl["first", "a"]  # int3 as well, with other scales
    assert kl["first", "b"] == pytest.approx(kl["first", "a"], rel=0.1)
    assert kl["first", "c"] == 0
    assert kl["shared", "low"] == score["body.0", "int2"]
    assert kl["last", "r"] > 0
    assert predictor.predict([2, 0, 1]) > 0


def test_what_cannot_be_measured_is_refused(workload, profiled, tmp_path):
    with pytest.raises(UsageError, match=r"choice 'int2' of group 'stem\.0' has no action"):
        measure(workload, profiled.replace(action_code=None, action_table=()), tmp_path)
    rows = foreign()
    two = dataclasses.replace(rows.modules, table=("stem.0", "body.2", "head")) if rows.modules else None
    assert two is not None
    both = rows.replace(modules=dataclasses.replace(two, indptr=np.array([0, 1, 2, 4]), code=np.array([0, 1, 2, 2])))
    measure(workload, both, tmp_path / "same")  # one module named twice is one weight
    other = dataclasses.replace(two, table=(*two.table, "body.1"), indptr=np.array([0, 1, 2, 4]), code=np.arange(4))
    with pytest.raises(UsageError, match=r"group 'last' is 2 stored weights of the network \(head, body.1\)"):
        measure(workload, rows.replace(modules=other), tmp_path)
    lost = dataclasses.replace(two, table=("stem.0", "body.2", "tail"))
    with pytest.raises(ActionError, match="group 'last': the model has no module 'tail'"):
        measure(workload, rows.replace(modules=lost), tmp_path)


def test_a_folder_takes_the_deltas_of_other_choices_beside_the_first(workload, profiled, tmp_path):
    some, _ = measure(workload, profiled, tmp_path, profiled.indptr[:-1])
    every, _ = measure(workload, profiled, tmp_path)
    again, _ = measure(workload, profiled, tmp_path, profiled.indptr[:-1])
    assert every.allowed.all()
    assert np.array_equal(some.scores["kl"], again.scores["kl"])
    with torch.no_grad():
        workload.model.head.weight.mul_(1.5)
    other, _ = measure(workload, profiled, tmp_path)
    assert not np.array_equal(other.scores["kl"], every.scores["kl"])


def test_an_earlier_kl_is_replaced_with_its_interactions(workload, space, tmp_path):
    stated = profile(workload, space, Kl(interactions=True))
    assert len(stated.interactions) == 1
    found, _ = measure(workload, stated, tmp_path)
    assert len(found.interactions) == 1
    assert not np.array_equal(found.scores["kl"], stated.scores["kl"])
