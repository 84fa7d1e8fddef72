"""`allocator compare`: the table, the file it goes on with, exit codes, the profile."""

import json
import math

import pytest

from allocator.cli.performance import factors
from allocator.comparison import compare
from allocator.names import Names, encode
from allocator.problem import Problem


@pytest.fixture
def run(run):
    return lambda *words: run("compare", *words)


@pytest.fixture
def example_file(golden):
    return golden / "example.json"


def test_table_has_times_memory_and_refusals(run, example_file):
    code, out, _ = run(
        example_file, "--solvers", "brute_force,greedy", "--time-limit", "20", "--memory-limit", "2GiB", "--strict"
    )
    assert code == 0
    head = next(line for line in out.splitlines() if "solver" in line)
    assert all(word in head for word in ("verdict", "bound", "regret", "wall s", "CPU s", "peak MiB"))
    assert "refused greedy, example at" in out


def test_resume_runs_only_what_is_missing(run, example_file, tmp_path):
    out = tmp_path / "rows.json"
    words = (example_file, "--in-process", "--out", out, "--json")
    first = json.loads(run(*words, "--solvers", "brute_force")[1])["rows"]
    code, _, err = run(*words, "--solvers", "brute_force")
    assert (code, "--resume goes on" in err) == (2, True)
    second = json.loads(run(*words, "--solvers", "uniform,brute_force", "--resume")[1])["rows"]
    assert [r["solver"] for r in second] == ["uniform", "brute_force"]
    assert second[1] == first[0]
    run(*words, "--solvers", "random", "--resume")
    document = json.loads(out.read_text())
    assert document["format"] == "allocation-comparison"
    assert [r["solver"] for r in document["rows"]] == ["brute_force", "uniform", "random"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory-limit", "4GiB", "--in-process"], "needs each run in its own process"),
        (["--memory-limit", "lots"], "write bytes, 500MB or 4GiB"),
        (["--seeds", "a"], "whole numbers"),
        (["--resume"], "--out"),
        (["--plot", "x.png", "--plot-by", "beauty"], "time and regret"),
        (["--solvers", "exakt"], "did you mean 'exact'?"),
    ],
)
def test_messages(run, example_file, words, message):
    code, out, err = run(example_file, *words)
    assert code == 2
    assert message in err
    assert out == ""


def test_strict_fails_on_a_wrong_answer(run, example_file, monkeypatch):
    from allocator.solution import Answer
    from solvers.uniform import Uniform

    monkeypatch.setattr(Uniform, "solve", lambda *_: Answer(claim="infeasible"))
    words = (example_file, "--in-process", "--solvers", "uniform,brute_force")
    assert run(*words)[0] == 0
    code, out, _ = run(*words, "--strict")
    assert code == 1
    assert "claims infeasible, but brute_force has a feasible allocation" in out


@pytest.mark.parametrize("by", ["time", "regret"])
def test_profile_is_drawn(run, example_file, tmp_path, by):
    path = tmp_path / "p.png"
    words = ("--in-process", "--solvers", "brute_force,random", "--plot", path, "--plot-by", by, "--seeds", "0,1")
    assert run(example_file, *words)[0] == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_factors_are_ratios_to_the_best():
    problem = Problem.from_arrays(
        [[3.0 + g, 1.0] for g in range(9)], [[0, 1 + g] for g in range(9)], budgets={"cost": 20}
    )
    problem = problem.replace(group_names=Names(9), choice_names=encode([f"{g}{k}" for g in range(9) for k in "ab"]))
    rows = compare({"p": problem}, "brute_force,prefix_cut,uniform")
    by_regret, by_time = factors(rows, "regret"), factors(rows, "time")
    best = rows[0].objective
    assert rows[1].objective > best
    assert by_regret["brute_force"] == [1.0]
    assert by_regret["prefix_cut"] == [pytest.approx(rows[1].objective / best)]
    assert by_regret["uniform"] == [math.inf]
    assert by_time["brute_force"] == [1.0]
