"""The run from end to end on tiny cases, and the clocks it rests on."""

import time

import numpy as np
import pytest

import allocator
from allocator.errors import UsageError
from benchmarks.solvers import run
from benchmarks.solvers.clock import CLOCK, Clock, Clocked, Peak
from benchmarks.solvers.instances import find
from benchmarks.solvers.plan import Entrant, entrants, order, why_not
from benchmarks.solvers.records import load
from solvers.greedy import Greedy
from solvers.scipy_milp import ScipyMilp

CASES = "SS-k10-n100-R1000,hard-float-60"
KNOWN = ["--cases", CASES, "--solvers", "lagrangian,greedy@numpy,nonsense", "--rounds", "1", "--time-limit", "5"]


def test_two_cases_through_two_solvers(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "IMPORTS", 1)
    monkeypatch.setattr(run, "REPEAT_S", 0.1)
    assert run.main([*KNOWN, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "nonsense is left out: there is no solver 'nonsense'" in said.err
    records = load(tmp_path / "results.jsonl")
    measured = {(r.case, r.solver): r for r in records if r.case != "imports"}
    assert set(measured) == {(c, s) for c in CASES.split(",") for s in ("lagrangian", "greedy@numpy")}
    for (case, solver), r in measured.items():
        problem = find(case).build()
        assert (r.outcome, r.groups, r.choices) == ("ran", problem.group_count, problem.choice_count)
        assert r.objective == allocator.solve(problem, solver.partition("@")[0]).objective
        assert set(r.times) == {"call", "whole", "check", "overhead"}
        assert r.times["call"].best is not None
        assert 0 < r.seconds("call", "best") <= r.seconds("whole")
        assert r.input_bytes == 8 * (2 * problem.choice_count + problem.group_count + 1)
        assert r.extra_bytes is not None
        assert solver == "lagrangian" or r.engine == "numpy"
    imports = [r for r in records if r.case == "imports"]
    assert [r.solver for r in imports] == ["lagrangian", "greedy"]
    assert all(0 < r.seconds("imports") < 60 for r in imports)
    assert {"goals.md", "cases.txt", "results.json", "profile.png"} <= {p.name for p in tmp_path.iterdir()}
    assert "SS-k10-n100-R1000" in said.out

    before = (tmp_path / "results.jsonl").read_bytes()
    assert run.main([*KNOWN, "--out", str(tmp_path)]) == 2
    assert "--resume goes on with it" in capsys.readouterr().err
    assert run.main([*KNOWN, "--out", str(tmp_path), "--resume"]) == 0
    assert (tmp_path / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize("options", [["--cases", "nothing"], ["--solvers", "nonsense"]])
def test_what_cannot_be_meant(options, tmp_path, capsys):
    assert run.main([*options, "--out", str(tmp_path / "new")]) == 2
    assert "error:" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_cases_are_listed(capsys):
    assert run.main(["--list", "--quick", "--solvers", "greedy"]) == 0
    assert "resnet50@3" in capsys.readouterr().out


def test_entrants_are_read():
    found, missing = entrants("greedy, ortools_mip[engine=highs],greedy@numpy,exactly,greedy@fortran")
    assert [e.text for e in found] == ["greedy", "ortools_mip[engine=highs]", "greedy@numpy"]
    assert [line.partition(" is left out")[0] for line in missing] == ["exactly", "greedy@fortran"]
    assert [(e.backend, e.mip, e.environment["ALLOCATOR_ENGINE"]) for e in found] == [
        ("greedy", False, ""), ("ortools_mip", True, ""), ("greedy", False, "numpy"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="left out"):
        entrants("exactly")


def test_what_is_not_tried():
    million, small = find("slices1m"), find("slices1k")
    assert "memory" in why_not(million, Entrant("scipy_milp"))
    assert why_not(million, Entrant("lagrangian")) is None
    assert why_not(small, Entrant("scipy_milp")) is None
    assert [c.name for c, _ in order([million, small], [Entrant("frontier")])] == ["slices1m"]


def test_a_problem_that_a_backend_does_not_take_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "IMPORTS", 1)
    options = ["--cases", "resnet50-2", "--solvers", "greedy", "--rounds", "1", "--out", str(tmp_path)]
    assert run.main(options) == 0
    (record,) = (r for r in load(tmp_path / "results.jsonl") if r.case == "resnet50-2")
    assert (record.outcome, record.note) == ("declined", "greedy does not take several_budgets")


def test_the_clock_travels_into_the_worker():
    problem = find("resnet50").build()
    solution = allocator.solve(problem, Clocked(inner=ScipyMilp()).solver, threads=1)
    clocks = solution.run["statistics"][CLOCK]
    assert 0 < clocks["library"]["cpu"] < clocks["call"]["cpu"]
    assert clocks["library"]["wall"] < clocks["call"]["wall"] < solution.run["wall_s"]


def test_an_answer_is_the_same_under_the_clock():
    problem = find("resnet50-noise").build()
    plain, clocked = (allocator.solve(problem, s) for s in (Greedy(), Clocked(inner=Greedy(), memory=True).solver))
    assert plain.objective == clocked.objective
    assert set(clocked.run["statistics"][CLOCK]) == {"call", "extra_bytes"}


def test_clocks_add_up():
    clock = Clock()
    for _ in range(2):
        with clock.running():
            time.sleep(0.01)
    assert clock.wall >= 0.02
    assert clock.cpu < clock.wall


def test_peak_sees_memory_that_was_given_back():
    peak = Peak()
    block = np.ones(4_000_000)
    del block
    extra = peak.extra()
    assert extra is None or 30e6 < extra < 40e6
