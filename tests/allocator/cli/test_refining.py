"""`allocator refine` from the command line, on digits."""

from __future__ import annotations

import json

import pytest

from allocator.cli import models
from allocator.demos import digits
from allocator.errors import AllocatorError
from allocator.refining import refinement


@pytest.fixture(scope="module")
def trained():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "EPOCHS", 5)
        return digits.workload()


@pytest.fixture
def quick(monkeypatch, trained):
    """Commands on digits, trained once for all of them."""
    monkeypatch.setattr(models, "load_workload", lambda name: trained)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_from_a_network_to_a_solution_that_applies(run, quick, tmp_path):
    out, problem = tmp_path / "solution.json", tmp_path / "problem.json"
    code, shown, err = run("refine", "digits", "--budget", "weight_bytes=13%", "--out", out, "--problem-out", problem)
    assert code == 0
    assert "logit sum" in shown
    assert "less than the best uniform allocation" in shown
    assert "solution.json: measured with about" in err
    assert files(tmp_path) == ["problem.json", "solution.json"]
    solution = json.loads(out.read_text())
    assert solution["status"] in ("feasible", "optimal")
    assert solution["solver"]["name"] == "refine"
    assert json.loads(problem.read_text())["loss"]["terms"] == {"kl": 1}
    assert run("apply", "digits", out, "--out", tmp_path / "small")[0] == 0
    code, shown, _ = run("evaluate", "digits", "--solution", out, "--json")
    assert code == 0
    code, shown, _ = run("explain", problem, out)
    assert code == 0
    again = tmp_path / "again.json"
    assert run("refine", "digits", "--problem", problem, "--out", again)[0] == 0  # its budget stands in the file
    assert json.loads(again.read_text())["totals"]["weight_bytes"] <= solution["totals"]["weight_bytes"] * 1.05


def test_of_a_problem_file_as_one_document(run, quick, tmp_path):
    path, out = tmp_path / "problem.json", tmp_path / "solution.json"
    words = ("--profiler", "weight_error", "--bits", "2,4,8")
    assert run("profile", "digits", "--out", path, *words)[0] == 0
    words = ("--budget", "weight_bytes=13%", "--passes", "2")
    code, shown, _ = run("refine", "digits", "--problem", path, "--out", out, "--json", *words)
    assert code == 0
    found = json.loads(shown)
    values = [one["validation_kl"] for one in found["candidates"]]
    assert values == sorted(values)
    assert found["choices"] == json.loads(out.read_text())["choices"]
    assert set(found["choices"].values()) <= {"int2", "int4", "int8", "keep"}
    assert found["gain_over_uniform"]["value"] >= 0
    direct = tmp_path / "direct.json"
    code, shown, _ = run(
        "refine", "digits", "--profiler", "weight_error", "--bits", "2,4,8", "--out", direct, "--json", *words
    )
    assert json.loads(shown) == found


def test_a_killed_run_goes_on(run, quick, tmp_path, monkeypatch):
    out, words = tmp_path / "solution.json", ("--bits", "2,4,8", "--budget", "weight_bytes=13%", "--json")
    code, whole, _ = run("refine", "digits", "--out", tmp_path / "other.json", *words)
    assert code == 0
    validated = refinement._validated

    def stopped(parted, problem, found, known, folder, tick):
        if "kl" in problem.scores:
            raise AllocatorError("stopped")
        return validated(parted, problem, found, known, folder, tick)

    with monkeypatch.context() as patch:
        patch.setattr(refinement, "_validated", stopped)
        assert run("refine", "digits", "--out", out, *words)[0] == 1
    parts = tmp_path / "solution.json.parts"
    left = {path: path.stat().st_mtime_ns for path in (parts / "parts").iterdir()}
    assert left
    assert not out.exists()
    with monkeypatch.context() as patch:
        patch.setattr(refinement, "_validated", stopped)
        assert run("refine", "digits", "--out", out, "--resume", *words)[0] == 1
    assert {path: path.stat().st_mtime_ns for path in (parts / "parts").iterdir()} == left
    code, shown, _ = run("refine", "digits", "--out", out, "--resume", *words)
    assert code == 0
    assert json.loads(shown) == json.loads(whole)
    assert not parts.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--budget", "25%", "--problem", "p.json", "--bits", "2"), "--problem stands beside"),
        (("--budget", "25%", "--problem", "p.json", "--kinds", "joint"), "--problem stands beside"),
        (("--budget", "25%", "--problem", "p.json", "--fast"), "--problem stands beside"),
        (("--problem", "no-such.json", "--budget", "25%"), "no-such.json: there is no such file"),
        (("--bits", "2,4"), "there is no budget"),
        (("--bits", "2,4", "--budget", "weight_bytes=25%", "--passes", "0"), "passes=0.0: give a number above 0"),
        (("--bits", "2,4", "--budget", "weight_bytes=1%"), "no allocation within the budgets was found"),
        (("--bits", "2,4", "--budget", "nothing=1"), "nothing"),
        (("--budget", "weight_bytes=25%", "--profiler", "nonsense"), "nonsense"),
        (("--budget", "weight_bytes=25%", "--problem-out", "nowhere/at/all.json"), "there is no folder"),
    ],
)
def test_arguments_that_cannot_be_meant(run, quick, tmp_path, words, told):
    code, shown, err = run("refine", "digits", "--out", tmp_path / "solution.json", *words)
    assert code in (1, 2, 3)
    assert told in err
    assert err.count("error:") <= 1
    assert shown == ""


def test_the_result_needs_a_file(run, quick):
    code, _, err = run("refine", "digits", "--out", "-", "--budget", "weight_bytes=25%")
    assert code == 2
    assert "--out -: give a file" in err
