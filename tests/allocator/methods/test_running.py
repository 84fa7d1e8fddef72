"""Every method from the network to the measured result."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

import allocator
from allocator import registry
from allocator.errors import UsageError
from allocator.formats.problems import load_problem
from allocator.methods.certifying import certify
from allocator.methods.menus import FRACTIONS, menu_of
from allocator.methods.metering import one_pass
from allocator.methods.method import Method, Spec
from allocator.methods.running import method_named, run
from allocator.methods.whole_network import MeasuredKl
from allocator.profiling import profile
from allocator.space import Space
from allocator.splitting import split
from allocator.tasks.guard import untouched
from allocator.tasks.measurement import measure
from allocator.workload import Workload
from profilers._fast_path import opened
from profilers._groups import model_sha256

SMALL = {
    "cet": "cet[count=2,probes=6]",
    "clado": "clado[samples=8]",
    "evopress": "evopress[generations=2,offspring=16]",
    "exl2": "exl2[powers=2]",
    "hawq_v3": "hawq_v3[bits=2+8]",
    "house": "house[passes=4]",
}


@pytest.mark.parametrize("name", sorted(registry.entries("methods")))
def test_a_method_runs_within_its_budget(name, workload, space, tmp_path):
    before = model_sha256(workload.model)
    found = run(
        workload, method_named(SMALL.get(name, name)), budgets="weight_bytes=45%", space=space, out=tmp_path / "out"
    )
    assert model_sha256(workload.model) == before
    used, _ = found.used["weight_bytes"]
    limit = 0.45 * _dearest(workload, space)
    if name == "compact_low_rank" and found.judged is None:
        assert found.chosen.solution.status == "infeasible"  # nothing that small is predicted to cost nothing
        return
    assert used <= limit
    assert found.checkpoint_bytes == used  # bytes are those on disk
    loaded = allocator.load_compressed(copy.deepcopy(workload.model), tmp_path / "out" / "checkpoint")
    again = measure(workload, loaded, workload.model)
    assert again["kl"].value == pytest.approx(found.judged.value("kl").value, rel=1e-6, abs=1e-9)
    assert again["accuracy"].value == pytest.approx(found.judged.value("accuracy").value)
    written = load_problem(tmp_path / "out" / "problem.json")
    assert written.evaluate(found.chosen.solution.allocation.choice).feasible
    assert found.chosen.predicted is not None
    assert np.isfinite(found.chosen.predicted)
    assert found.passes > 0
    assert found.against_uniform("kl").low <= found.against_uniform("kl").high
    if name == "house":
        assert "validation samples" in found.chosen.said
    kinds = {action["kind"] for action in found.chosen.solution.actions.values()}
    assert (
        kinds
        <= {"any": {"quantize", "low_rank", "keep"}, "bits": {"quantize", "keep"}, "ranks": {"low_rank", "keep"}}[
            found.method.kinds
        ]
    )


def _dearest(workload, space):
    plain = profile(workload, space, "weight_error")
    return float(plain.evaluate(np.array([_keep(g) for g in plain.groups])).totals["weight_bytes"])


def _keep(group):
    return [choice.name for choice in group.choices].index("keep")


def test_every_entry_point_states_what_it_is():
    for name in registry.entries("methods"):
        method = method_named(name)
        assert isinstance(method, Method)
        assert dataclasses.is_dataclass(method)
        assert method.name == name
        assert method.fidelity in ("own", "paper", "allocation rule only", "derived")
        assert method.paper
        assert method.leaves_out or method.fidelity == "own"
        for one in method.statistics():
            registry.make("profilers", one.name, one.options)
        if method.solver.name != "auto":  # refine solves several problems, each as suits it
            registry.make("solvers", method.solver.name, method.solver.options)


def test_the_fitness_is_the_divergence_of_the_applied_network(workload, space):
    problem = profile(workload, space, "weight_error").with_budget("weight_bytes", max=900)
    swapped = Workload(workload.model, workload.evaluation, workload.calibration, workload.task)
    rng = np.random.default_rng(0)
    for _ in range(3):
        choice = np.array([rng.integers(size) for size in problem.sizes], np.int32)
        with untouched(workload.model), opened(workload):
            fitness = MeasuredKl(workload, problem)
            whole, part = fitness(choice, None), fitness(choice, 0.25)
        solution = _solution(problem, choice)
        applied = allocator.apply_(copy.deepcopy(workload.model), solution)
        assert whole == pytest.approx(measure(swapped, applied, workload.model)["kl"].value, rel=1e-6, abs=1e-12)
        first = [tuple(t[:6] for t in batch) for batch in list(workload.calibration)[:1]]
        seen = measure(swapped, applied, workload.model, batches=first)["kl"].value
        assert part == pytest.approx(seen, rel=1e-6, abs=1e-12)


def _solution(problem, choice):
    rows = problem.indptr[:-1] + choice
    return {
        g.name: {"action": dict(next(c.action for c in g.choices if c.row == r)), "modules": list(g.modules)}
        for g, r in zip(problem.groups, rows, strict=True)
    }


def test_lossless_is_certified_by_data_that_the_profile_has_not_seen(workload, space):
    found = run(workload, "llc", budgets="weight_bytes=60%", space=space)
    certified = found.chosen.certified
    parted = split(workload)
    digests = set(found.chosen.problem.notes.provenance["calibration"]["sample_digests"])
    assert digests == set(parted.digests("calibration"))
    applied = allocator.apply_(copy.deepcopy(workload.model), found.chosen.solution)
    rises = [measure(parted, model)["loss"].value for model in (applied, workload.model)]
    assert certified.measured == pytest.approx(rises[0] - rises[1], rel=1e-4, abs=1e-9)
    assert certified.samples == 6
    assert certified.remainder == pytest.approx(abs(certified.measured + certified.gain))
    assert certified.lossless == (certified.gain > certified.remainder + certified.stderr)
    assert found.to_json()["certified"]["lossless"] is certified.lossless
    everything = profile(workload, space, "weight_error")
    with pytest.raises(UsageError, match="the profile has seen samples"):
        certify(parted, everything, found.chosen.solution, 0.0)


def test_a_planted_gain_is_certified_and_one_without_remainder_is_not(workload, space, monkeypatch):
    """Labels that a rounded network would give: rounding it in this way lowers the loss."""
    parted = split(workload)
    problem = profile(parted, space, "weight_error").with_budget("weight_bytes", max=10**6)
    solution = allocator.solve(problem, solver="uniform")
    coarse = _solution(problem, np.array([[c.name for c in g.choices].index("int3") for g in problem.groups]))
    applied = allocator.apply_(copy.deepcopy(workload.model), coarse)
    with torch.no_grad():
        batches = [(x, applied(x).argmax(-1)) for x, _ in parted.evaluation]
    planted = Workload(workload.model, parted.calibration, batches, workload.task)
    change = measure(planted, applied)["loss"].value - measure(planted)["loss"].value
    assert change < 0
    choice = [[c.name for c in g.choices].index("int3") for g in problem.groups]
    taken = dataclasses.replace(solution, allocation=type(solution.allocation)(problem, np.array(choice, np.int32)))
    right = certify(planted, problem, taken, change)
    assert right.remainder == pytest.approx(0, abs=1e-9)
    assert right.lossless == (-change > right.stderr)
    bold = certify(planted, problem, taken, 3 * change)  # promised three times as much as came: gap of twice the fall
    assert bold.gain - bold.remainder == pytest.approx(-change, rel=1e-6)
    timid = certify(planted, problem, taken, -change)  # it was to rise
    assert not timid.lossless


def test_menus_keep_to_what_a_method_can_take():
    space = Space.simple(bits=(2, 4), ranks=(0.5,), keep=False)
    (bits,) = menu_of(space, "bits").rules
    assert [c["kind"] for c in bits.choices] == ["quantize", "quantize"]
    (ranks,) = menu_of(space, "ranks").rules
    assert [c.get("fraction") for c in ranks.choices] == [*FRACTIONS, None]
    assert ranks.choices[-1]["kind"] == "keep"
    assert menu_of(space, "any") == space
    with pytest.raises(UsageError, match="has no bit-width"):
        menu_of(Space.simple(bits=(), ranks=(0.5,)), "bits")


def test_what_cannot_be_run_is_named(workload, space):
    with pytest.raises(UsageError, match="there is no method 'hause'; did you mean 'house'"):
        run(workload, "hause", budgets="weight_bytes=45%", space=space)
    with pytest.raises(UsageError, match="method house needs a budget"):
        run(workload, "house", space=space)
    with pytest.raises(UsageError, match="no option 'speed'"):
        run(workload, "house[speed=3]", budgets="weight_bytes=45%", space=space)
    assert run(workload, "house", budgets="weight_bytes=1%", space=space).chosen.solution.status == "infeasible"
    none = run(workload, "hawq_v2", budgets="weight_bytes=1%", space=space)
    assert none.chosen.solution.status == "infeasible"
    assert none.judged is None
    assert none.to_json()["choices"] is None


def test_a_third_party_recipe_takes_the_same_road(workload, space):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(Method):
        name = "mine"
        paper = "nobody 2026"
        fidelity = "paper"
        profilers = (Spec("weight_error"),)
        terms = {"weight_error_relative": 1.0}  # noqa: RUF012 - a recipe's own constant

    found = run(workload, Mine(), budgets="weight_bytes=45%", space=space)
    wanted = allocator.solve(
        profile(workload, space, "weight_error").with_loss("weight_error_relative"), budgets="weight_bytes=45%"
    )
    assert len(wanted.choices) == 6
    assert dict(found.chosen.solution.choices) == dict(wanted.choices)


def test_a_pass_takes_time(workload):
    assert one_pass(workload) > 0
    assert all(p.requires_grad for p in workload.model.parameters())
