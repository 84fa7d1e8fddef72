"""The tables and the plot say what a small made-up file of results says."""

import json

import pytest

from benchmarks.solvers import report
from benchmarks.solvers.judge import best_mip, judge
from benchmarks.solvers.profile import factors
from benchmarks.solvers.records import Record, Seconds, Times, append, load, version_of, wrong
from benchmarks.solvers.tables import duration, markdown, plain, times


def made(case, solver, first=None, *, seed=1, objective=1.0, status="optimal", claim=None, **more):
    """A record whose call and whole solve took `first` seconds."""
    quantity = {"call", "whole"} | ({"library"} if solver.startswith(("scipy", "ortools")) else set())
    spent = {} if first is None else {q: Times(first=Seconds(first, 2 * first)) for q in quantity}
    more.setdefault("outcome", "ran")
    more.setdefault("time_limit", 60.0)
    return Record(
        case=case, seed=seed, solver=solver, version="1", status=status, claim=claim, objective=objective,
        times=spent, machine="here", **more,
    )  # fmt: skip


RECORDS = [
    made("resnet50", "exact", 40e-6),
    made("resnet50", "scipy_milp", 4e-3),
    made("resnet50", "ortools_cpsat", 1e-3, objective=1.001, status="feasible", claim="optimal"),
    made("llama8b", "exact", 1e-3),
    made("llama8b", "scipy_milp", 0.05, status="feasible", claim="optimal"),
    made("mixtral", "exact", 4e-4),
    made("mixtral", "scipy_milp", 60.0, objective=1.1, status="feasible", limit="time", gap=0.1),
    made("slices1m", "exact", 0.1, input_bytes=100, extra_bytes=60),
    made("slices1m", "scipy_milp", status=None, objective=None, outcome="not run", note="memory: too large"),
    *(made("hard-float", "exact", 0.1 * s, seed=s) for s in (1, 2, 3)),
    made("hard-float", "exact", 0.2, seed=4, status="feasible", gap=1e-5),
]


def verdict(case, goal):
    found = [v for v in judge(RECORDS) if v.case.startswith(case) and v.goal.startswith(goal)]
    return next(v for v in found if v.met is not None)


def test_a_goal_that_is_met():
    row = verdict("resnet50", "engine")
    assert (row.measured, row.peer, row.met, row.distance) == ("40.0 µs", "100× scipy_milp", True, "met")


def test_a_wrong_claim_is_no_peer():
    assert wrong(RECORDS) == {("resnet50", 1, "ortools_cpsat")}
    assert best_mip(RECORDS, "resnet50", 1, "first").name == "scipy_milp"


def test_the_distance_is_stated():
    row = verdict("llama8b", "engine")
    assert (row.met, row.distance) == (False, "10× the goal; 0.5 of the ratio")


def test_peers_that_were_not_right_in_time_give_a_lower_bound():
    row = verdict("mixtral", "engine")
    assert (row.peer, row.met) == (">150000× none right in 60 s", True)
    liar = [made("x", "scipy_milp", 1.0, objective=2.0), made("x", "exact", 1.0)]
    assert best_mip(liar, "x", 1, "first").seconds is None
    assert best_mip(liar, "x", 1, "first").name == "none right in 60 s (scipy_milp wrong)"
    assert best_mip(liar, "y", 1, "first") is None


def test_memory_and_what_was_not_run():
    row = verdict("slices1m", "extra memory")
    assert (row.measured, row.met, row.distance) == ("0.6× input", False, "1.20× the goal")
    assert verdict("slices1m", "engine").peer == "not run: memory"


def test_seeds_are_judged_by_the_worst():
    row = verdict("hard-float", "engine")
    assert row.case == "hard-float, 4 seeds"
    assert row.measured == "median 200 ms, worst 300 ms"
    assert row.distance == "1 of 4 not proved, gap 1e-05; 1.20× the goal"


def test_another_subject():
    row = next(v for v in judge(RECORDS, subject="scipy_milp") if v.case == "resnet50" and v.met is not None)
    assert row.measured == "4.00 ms"


def test_factors_count_what_was_solved():
    found = factors([*RECORDS, made("imports", "exact", 1.0)])
    assert len(found["exact"]) == 4 + 3
    assert found["scipy_milp"][:2] == pytest.approx([100.0, 50.0])
    assert found["scipy_milp"][2:] == [float("inf")] * 5
    assert set(found["ortools_cpsat"]) == {float("inf")}


def test_files_are_written(tmp_path, capsys):
    for record in RECORDS:
        append(tmp_path / "results.jsonl", record)
    assert report.main(["--out", str(tmp_path)]) == 0
    for name in report.FILES:
        assert (tmp_path / name).stat().st_size > 100, name
    cases = (tmp_path / "cases.md").read_text()
    assert "| resnet50 | 40.0 µs | 4.00 ms | WRONG, 1.00 ms |" in cases
    assert "| llama8b | 1.00 ms | 50.0 ms, claimed |  |" in cases
    assert "| mixtral | 400 µs | stopped at 60.0 s, gap 0.1 |  |" in cases
    assert "Wrong answers: ortools_cpsat on resnet50@1." in cases
    assert "hard-float@4" in cases
    together = json.loads((tmp_path / "results.json").read_text())
    assert together["wrong"] == [["resnet50", 1, "ortools_cpsat"]]
    assert len(together["records"]) == len(RECORDS)
    goals = (tmp_path / "goals.txt").read_text()
    assert "Goals without a measurement here: resnet50-noise" in goals
    assert goals.splitlines()[0] in capsys.readouterr().out
    assert (tmp_path / "profile.png").read_bytes()[1:4] == b"PNG"


def test_without_results_it_says_so(tmp_path, capsys):
    assert report.main(["--out", str(tmp_path)]) == 2
    assert "there is no" in capsys.readouterr().err


def test_records_survive_a_line_that_was_cut_short(tmp_path):
    path = tmp_path / "results.jsonl"
    assert load(path) == []
    append(path, RECORDS[0])
    path.write_bytes(path.read_bytes() + path.read_bytes()[:40])
    append(path, RECORDS[1])
    append(path, made("resnet50", "exact", 1.0))
    assert [(r.solver, r.seconds("call")) for r in load(path)] == [("scipy_milp", 4e-3), ("exact", 1.0)]


def test_figures_fall_back_on_earlier_calls():
    spent = Times(first=Seconds(3.0, 4.0), second=Seconds(None, 2.0))
    assert [spent.figure(w).wall for w in ("first", "second", "best")] == [4.0, 2.0, 2.0]
    assert Times().figure() is None
    assert made("a", "b").seconds("call") is None
    record = made("a", "b", 1.0)
    record.times["call"].second = Seconds(None, 2.0)
    assert (record.seconds("call"), record.seconds("call", "second")) == (1.0, 2.0)


def test_versions_name_what_the_figures_depend_on():
    assert version_of("scipy_milp").startswith("scipy 1.")
    assert version_of("ortools_mip") == version_of("ortools_cpsat")
    assert "+" in version_of("lagrangian")
    assert version_of("lagrangian") == version_of("greedy")


def test_words_of_a_table():
    assert [duration(s) for s in (None, 0.0, 12.0, 0.25, 4e-5, -2e-3)] == [
        "-",
        "0 µs",
        "12.0 s",
        "250 ms",
        "40.0 µs",
        "-2.00 ms",
    ]
    assert [times(x) for x in (1.264, 4.0, 34.2)] == ["1.26×", "4.0×", "34×"]
    assert markdown(("a", "b"), [("x|y", "z")]) == "| a | b |\n| --- | --- |\n| x/y | z |\n"
    assert plain(("a", "bb"), [("xxx", "z")]) == "a    bb\n---  --\nxxx  z\n"
