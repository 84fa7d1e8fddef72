"""refine() from end to end: what it returns is what validation data like best, within everything that was asked."""

import copy
import json

import numpy as np
import pytest
import torch

import allocator
from allocator.applier.apply import apply_
from allocator.applying import applied, layer_statistics
from allocator.errors import UsageError
from allocator.formats.solutions import solution_to_json
from allocator.profiling import profile
from allocator.refining.candidates import uniform
from allocator.refining.refinement import refine
from allocator.space import Space
from allocator.splitting import halves, split
from allocator.statement import Basis, Budget, Cardinality, SameChoice
from allocator.tasks.measurement import measure
from allocator.workload import Workload
from profilers._groups import model_sha256

SPACE = Space.simple(bits=(2, 3, 4, 8), ranks=(0.5,))  # as `profiled`


def between(problem, low="int3", high="int4"):
    """The budget halfway between two uniform allocations."""
    bytes_ = [_bytes(problem, label) for label in (low, high)]
    return {"weight_bytes": sum(bytes_) // 2}


def _bytes(problem, label):
    return problem.evaluate(
        [[choice.label for choice in group.choices].index(label) for group in problem.groups]
    ).totals["weight_bytes"]


@pytest.fixture
def budget(profiled):
    return between(profiled)


def validation(workload, chosen):
    """KL on the part that validates, of an allocation as it is applied; both in words of the float network."""
    parted = split(workload)
    swapped = Workload(workload.model, parted.calibration, parted.evaluation, workload.task)
    return measure(swapped, apply_(copy.deepcopy(workload.model), chosen), workload.model)["kl"]


def uniforms(workload, problem, budgets):
    """Validation losses of all feasible uniform allocations, applied one by one."""
    stated = allocator.budgets.apply_budgets(problem, budgets)
    found = []
    for one in uniform(stated):
        taken = {
            group.name: {"action": group.choices[place].action, "modules": list(group.modules)}
            for group, place in zip(stated.groups, one.choice.tolist(), strict=True)
        }
        found.append(validation(workload, taken).value)
    return found


def same(one, other):
    assert json.dumps(one.to_json()) == json.dumps(other.to_json())
    mine, theirs = solution_to_json(one.solution), solution_to_json(other.solution)
    assert {k: v for k, v in mine.items() if k != "run"} == {k: v for k, v in theirs.items() if k != "run"}


@pytest.mark.parametrize("name", ["tied", "attention", "lm", "embedding"])
def test_the_winner_is_what_validates_best_and_never_worse_than_uniform(workload_of, space, name):
    rows = (5, 4, 6, 5, 5, 4, 6, 5, 6, 5, 4, 5) if name == "embedding" else (24, 16)
    workload = workload_of(name, rows=rows)
    problem = profile(workload, space, "ggn")
    before = model_sha256(workload.model)
    modules = [name for name, _ in workload.model.named_modules()]
    state = torch.get_rng_state()
    budget = between(problem)
    found = refine(workload, problem, budgets=budget)
    assert model_sha256(workload.model) == before
    assert [name for name, _ in workload.model.named_modules()] == modules
    assert torch.equal(torch.get_rng_state(), state)
    values = [loss.value for loss in found.losses]
    assert values == sorted(values)
    assert found.solution.choices == dict(
        zip(found.problem.group_names, _names(found.problem, found.candidates[0]), strict=True)
    )
    wanted = validation(workload, found.solution)
    assert values[0] == pytest.approx(wanted.value, rel=1e-4, abs=1e-9)
    assert found.losses[0].stderr == pytest.approx(wanted.stderr, rel=1e-4, abs=1e-9)
    plain = uniforms(workload, problem, budget)
    assert plain
    assert values[0] <= min(plain) + 1e-9
    assert found.gain.value == pytest.approx(min(plain) - values[0], rel=1e-3, abs=1e-8)
    assert found.solution.totals["weight_bytes"] <= found.problem.budgets[0].max
    assert found.solution.status in ("feasible", "optimal")  # few allocations: the core looks at all of them
    assert found.solution.loss == pytest.approx(found.problem.evaluate(found.candidates[0].choice).loss)
    assert len({one.choice.tobytes() for one in found.candidates}) == len(found.candidates)
    for one, predicted in zip(found.candidates, found.predicted, strict=True):
        assert predicted == found.predictor.predict(one.choice)


def _names(problem, candidate):
    return [group.choices[k].name for group, k in zip(problem.groups, candidate.choice.tolist(), strict=True)]


def test_where_scores_lie_the_measurements_win(workload, profiled, budget):
    """A profile that calls the fewest bits the best: its own solution is the worst candidate."""
    honest = refine(workload, profiled, budgets=budget)
    lying = profiled.with_scores({"lie": np.array(profiled.cost("weight_bytes"), float)}).with_loss("lie")
    found = refine(workload, lying.replace(interactions=()), budgets=budget)
    assert found.candidates[-1].name.split("; ")[-1] == "profile"
    assert found.losses[0].value == pytest.approx(honest.losses[0].value, rel=0.5)
    assert found.losses[0].value <= min(uniforms(workload, profiled, budget)) + 1e-9


def test_uniform_wins_where_no_mix_is_better(workload, profiled):
    """Only uniform allocations are feasible but for one mix, which the profile is made to like and loses by far."""
    labels = profiled.label_codes
    low = [row for row in range(profiled.choice_count) if labels.table[labels.code[row]] == "int2"]
    high = [row for row in range(profiled.choice_count) if labels.table[labels.code[row]] == "int8"]
    allowed = np.zeros(profiled.choice_count, bool)
    allowed[[*low, *high]] = True
    liked = np.zeros(profiled.choice_count)
    liked[[high[0], *high[2:], low[1]]] = -1.0
    stated = profiled.with_scores({"liked": liked}).with_loss("liked").replace(allowed=allowed, interactions=())
    found = refine(workload, stated, budgets={"weight_bytes": "100%"})
    assert found.candidates[0].name.startswith("uniform int8")
    assert "no mix did better than the best uniform allocation" in found.reason
    assert found.gain.value == 0
    assert set(found.solution.choices.values()) == {"int8"}


def test_every_uniform_allocation_is_looked_at_before_one_is_taken(workload, profiled):
    """The scores call two bits the best label; what is returned is no worse than four."""
    upside = profiled.with_scores({"down": -profiled.scores["ggn"]}).with_loss("down").replace(interactions=())
    found = refine(workload, upside, budgets=between(profiled, "int4", "int8"), passes=1e-9)
    plain = uniforms(workload, profiled, between(profiled, "int4", "int8"))
    assert len(plain) >= 3
    assert found.losses[0].value <= min(plain) + 1e-9
    assert any("uniform int4" in one.name for one in found.candidates)


def test_couplings_pins_and_several_budgets_hold(workload, profiled):
    int8 = profiled.row("head", "int8")
    first = [profiled.row(group.name, "int2") for group in profiled.groups]
    stated = profiled.replace(
        couplings=(SameChoice((1, 2)), Cardinality("at_most", tuple(first), 2)),
        pins={3: int8},
        budgets=(Budget("weight_bytes", max=600), Budget("macs", max=10**6), Budget("bops", max=10**8)),
    )
    whole = stated.evaluate([1, 1, 1, 3]).totals
    limits = {"weight_bytes": int(whole["weight_bytes"]), "macs": int(whole["macs"]), "bops": int(1.1 * whole["bops"])}
    found = refine(workload, stated, budgets=limits)
    chosen = found.solution.choices
    assert chosen["head"] == "int8"
    one, other = (stated.groups[g].name for g in (1, 2))
    assert chosen[one] == chosen[other]
    assert sum(name == "int2" for name in chosen.values()) <= 2
    assert all(found.solution.totals[name] <= most for name, most in limits.items())
    for candidate in found.candidates:
        assert found.problem.evaluate(candidate.choice).feasible


def test_without_a_feasible_uniform_allocation(workload, profiled, budget):
    ends = [row for group in profiled.groups for row in (group.choices[0].row, group.choices[-1].row)]
    only = np.zeros(profiled.choice_count, bool)
    only[ends] = True
    only[ends[:2]] = False
    only[profiled.row(profiled.groups[0].name, "int4")] = True
    only[profiled.row(profiled.groups[0].name, "int3")] = True
    found = refine(workload, profiled.replace(allowed=only), budgets=budget)
    assert found.gain is None
    assert "no uniform allocation is within the budgets" in found.reason
    assert found.to_json()["gain_over_uniform"] is None


def test_with_few_passes_some_choices_are_left_out(workload, profiled, budget):
    few, many = (refine(workload, profiled, budgets=budget, passes=passes) for passes in (0.5, 1e9))
    assert few.problem.free.sum() < many.problem.free.sum() == profiled.choice_count
    assert few.passes < many.passes
    assert few.samples == 30 == many.samples
    assert few.losses[0].value <= min(uniforms(workload, profiled, budget)) + 1e-9
    assert refine(workload, profiled, budgets=budget, passes=float("inf")).problem.free.all()


def bent(problem):
    """The problem with one direction of strong negative curvature, along which every layer's two bits cancel."""
    vectors = np.array(
        [[1.0 if choice.label == "int2" else 0.0] for group in problem.groups for choice in group.choices]
    )
    return problem.replace(interactions=(*problem.interactions, Basis("ggn", np.array([-9.0]), vectors)))


def test_negative_curvature_is_left_out_unless_asked_for(workload, profiled, budget):
    def of(name, found):
        return next(one.choice for one in found.candidates if name in one.names)

    plain, without, with_ = (
        refine(workload, problem, budgets=budget, signed=signed)
        for problem, signed in ((profiled, False), (bent(profiled), False), (bent(profiled), True))
    )
    assert np.array_equal(of("profile", without), of("profile", plain))
    assert not np.array_equal(of("profile", with_), of("profile", plain))
    labels = [group.choices[k].label for group, k in zip(profiled.groups, of("profile", with_), strict=True)]
    assert labels.count("int2") >= 2
    for found in (without, with_):
        (profile_, measured) = found.beliefs
        assert [one.negative > 0 for one in profile_.curvature] == [False, True]
        assert profile_.curvature[1].ratio < 1
        assert [one.negative for one in measured.curvature] == [0]
    assert with_.solution.solver["options"]["signed"] is True
    assert with_.beliefs[0].in_model > 1 > without.beliefs[0].in_model  # a gain that only the model knows
    assert with_.beliefs[0].cross_fit < 0


def test_what_interactions_are_worth_by_the_model_and_on_validation_data(workload, profiled, budget):
    found = refine(workload, profiled, budgets=budget)
    stated = allocator.budgets.apply_budgets(profiled, budget)
    place = {name: at for at, one in enumerate(found.candidates) for name in one.names}
    assert [one.origin for one in found.beliefs] == ["profile", "measured"]
    for belief, problem in zip(found.beliefs, (stated, found.problem), strict=True):
        alone, joint = (place[f"{belief.origin}{kind}"] for kind in (", additive", ""))
        values = [problem.evaluate(found.candidates[at].choice).loss for at in (alone, joint)]
        assert belief.in_model == pytest.approx(1 - values[1] / values[0])
        assert belief.in_model >= 0
        losses = [found.losses[at].value for at in (alone, joint)]
        assert belief.cross_fit == pytest.approx(1 - losses[1] / losses[0])
    assert found.beliefs[0].seen == 10  # the profile was made of all calibration data
    assert found.beliefs[1].seen == 0
    document = json.loads(json.dumps(found.to_json()))["interactions"]
    assert document[0]["bases"][0]["rows"] == 2 * 40
    assert document[1]["origin"] == "measured"
    blind = profile(split(workload), SPACE, "ggn")
    assert refine(workload, blind, budgets=budget).beliefs[0].seen == 0
    alone = refine(workload, profiled.replace(interactions=()), budgets=budget)
    assert [one.origin for one in alone.beliefs] == ["measured"]


def test_low_rank_choices_are_refined_too(workload):
    problem = profile(workload, Space.simple(bits=(8,), ranks=(0.25, 0.5, 0.75)), "ggn")
    found = refine(workload, problem, budgets={"weight_bytes": _bytes(problem, "int8") - 20})
    assert any(name.startswith("rank") for name in found.solution.choices.values())
    assert found.losses[0].value == pytest.approx(validation(workload, found.solution).value, rel=1e-4)


def test_equal_seeds_give_equal_bytes(workload_of, profiled, budget, tmp_path):
    one, other = (refine(workload_of(), profiled, budgets=budget, seed=3) for _ in range(2))
    same(one, other)
    for found, path in ((one, tmp_path / "one.json"), (other, tmp_path / "other.json")):
        allocator.save_problem(found.problem, path)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "other.json").read_bytes()
    solver = solution_to_json(one.solution)["solver"]
    assert solver["name"] == "refine"
    assert solver["options"] == {"passes": 10.0, "signed": False, "candidate": one.candidates[0].name}
    assert solver["limits"]["seed"] == 3


class StoppedError(Exception):
    pass


@pytest.mark.parametrize(("stage", "after"), [("kl", 3), ("refine: solving", 2), ("measured", 2)])
def test_a_stopped_run_goes_on_with_the_same_bytes(workload_of, profiled, tmp_path, stage, after, budget):
    whole = refine(workload_of(), profiled, budgets=budget)
    seen = []

    def stop(name, done, total):
        seen.append(name)
        if name == stage and done >= after:
            raise StoppedError

    workload = workload_of()
    before = model_sha256(workload.model)
    with pytest.raises(StoppedError):
        refine(workload, profiled, budgets=budget, resume=tmp_path, progress=stop)
    assert model_sha256(workload.model) == before
    left = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npz") if "deltas" not in p.parent.name}
    assert left
    same(refine(workload, profiled, budgets=budget, resume=tmp_path), whole)
    assert {p: p.stat().st_mtime_ns for p in left} == left
    other = between(profiled, "int2", "int3")
    same(refine(workload, profiled, budgets=other, resume=tmp_path), refine(workload, profiled, budgets=other))


def test_evaluation_data_are_not_read(workload, profiled, budget):
    class Forbidden:
        def __iter__(self):
            raise AssertionError("evaluation data were read")

    blind = Workload(workload.model, workload.calibration, Forbidden(), workload.task, workload.name)
    same(refine(blind, profiled, budgets=budget), refine(workload, profiled, budgets=budget))


@pytest.mark.parametrize(
    ("change", "options", "told"),
    [
        ({}, {"budgets": None}, "there is no budget"),
        ({}, {"passes": 0}, "passes=0: give a number above 0"),
        ({}, {"passes": float("nan")}, "passes=nan"),
        ({}, {"budgets": {"weight_bytes": 1}}, "no allocation within the budgets was found"),
        ({"minimize": {"macs": 1.0}}, {}, "minimises macs, and refining minimises the divergence alone"),
        ({"minimize": {"loss": 1.0, "macs": 1e-9}}, {}, "minimises loss, macs"),
        ({"budgets": (Budget(loss=True, max=1.0),)}, {}, "a budget limits the loss"),
        ({"action_code": None, "action_table": ()}, {}, "has no action"),
    ],
)
def test_what_cannot_be_meant_is_refused(workload, profiled, change, options, told, budget):
    with pytest.raises(UsageError, match=told):
        refine(workload, profiled.replace(**change), **{"budgets": budget, **options})


def test_too_little_data_is_refused(workload_of, profiled, budget):
    with pytest.raises(UsageError, match="too few samples to search on some"):
        refine(workload_of(rows=(3,)), profiled, budgets=budget)


def test_the_function_is_one_of_the_package():
    assert allocator.refine is refine


FITTED = {"kind": "quantize", "bits": 2, "method": "gptq"}
WITH_FITTED = Space.of_menu((FITTED, {"kind": "quantize", "bits": 3}, {"kind": "quantize", "bits": 8}))


def test_fitted_choices_are_measured_on_what_they_are_not_fitted_to(workload_of):
    workload = workload_of(rows=(40, 24))
    problem = profile(workload, WITH_FITTED, "kl")
    found = refine(workload, problem, budgets={"weight_bytes": _bytes(problem, "int8") - 20}, passes=1000)
    searched = Workload(workload.model, split(workload).calibration, workload.evaluation, workload.task, workload.name)
    fitting, scoring = halves(searched)
    assert found.samples == len(scoring.digests()) == 24
    again = profile(scoring, WITH_FITTED, "kl", statistics=layer_statistics(fitting, problem))
    assert found.problem.scores["kl"] == pytest.approx(again.scores["kl"], rel=1e-6)
    whole = profile(searched, WITH_FITTED, "kl", statistics=layer_statistics(searched, problem))
    assert found.problem.scores["kl"] != pytest.approx(whole.scores["kl"], rel=1e-3)


def test_with_many_samples_what_is_measured_is_what_is_applied(workload_of):
    workload = workload_of(rows=(400, 400))
    problem = profile(workload, WITH_FITTED, "ggn")
    found = refine(workload, problem, budgets={"weight_bytes": _bytes(problem, "int8") - 60}, passes=1000)
    assert found.samples == 600
    assert any("gptq" in name for name in found.solution.choices.values())
    judged = Workload(workload.model, workload.calibration, split(workload).evaluation, workload.task)
    got = measure(judged, applied(workload, found.solution), workload.model)["kl"]
    assert found.losses[0].value == pytest.approx(got.value, rel=1e-4)
