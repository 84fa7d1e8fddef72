"""`allocator fidelity` and `allocator study` from the command line, on digits."""

from __future__ import annotations

import json

import pytest

from allocator.cli import models
from allocator.demos import digits


@pytest.fixture(scope="module")
def trained():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "EPOCHS", 5)
        return digits.workload()


@pytest.fixture
def quick(monkeypatch, trained):
    """Commands on digits, trained once for all of them."""
    monkeypatch.setattr(models, "load_workload", lambda name: trained)


def test_fidelity_of_digits(run, quick, tmp_path):
    report, drawing = tmp_path / "fidelity.json", tmp_path / "fidelity.png"
    words = ("fidelity", "digits", "--profiler", "kl,weight_error", "--allocations", "48", "--samples", "100")
    code, out, err = run(*words, "--out", report, "--plot", drawing)
    assert code == 0
    assert "digits: 42 single choices, 48 random, 7 uniform and 24 optimal allocations" in out
    assert "kl " in out
    assert "trust" in out
    assert "warning: the standard error of a measured loss is" in err
    assert drawing.read_bytes().startswith(b"\x89PNG")
    shown = json.loads(report.read_text())
    assert (shown["format"], shown["samples"], len(shown["singles"])) == ("allocation-fidelity", 100, 42)
    assert {w["kind"] for w in shown["wholes"]} == {"all", "low", "middle", "high", "uniform", "optimal"}
    kl, total = shown["predictors"]["kl"], shown["predictors"]["weight_error_sum"]
    assert kl["singles"]["spearman"] > 0.95
    assert total["words"] == "do not trust"
    assert kl["within"] > total["within"]
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".parts")] == []


def test_fidelity_of_a_problem_file(run, quick, tmp_path):
    path = tmp_path / "problem.json"
    assert run("profile", "digits", "--out", path, "--profiler", "weight_error", "--bits", "2,4")[0] == 0
    code, out, _ = run(
        "fidelity", "digits", "--problem", path, "--allocations", "0", "--singles", "5", "--samples", "50"
    )
    assert code == 0
    assert "5 single choices, 0 random, 3 uniform" in out
    assert "cannot tell" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--problem", "p.json", "--bits", "2"), "--problem stands beside"),
        (("--singles", "some"), "--singles some: say all, or how many"),
        (("--resume",), "--resume needs --out"),
        (("--out", "nowhere/at/all.json"), "there is no folder"),
        (("--problem", "no-such.json"), "no-such.json: there is no such file"),
        (("--profiler", "nothing"), "nothing"),
        (("--allocations", "-3"), "allocations -3: give 0 or more"),
    ],
)
def test_arguments_that_cannot_be_meant(run, quick, words, told):
    code, _, err = run("fidelity", "digits", *words)
    assert code == 2
    assert told in err


def test_study_of_digits(run, quick, tmp_path):
    pytest.importorskip("tensorly")
    report, drawing = tmp_path / "study.json", tmp_path / "study.png"
    words = ("study", "digits", "--formats", "svd,tucker", "--fewer", "0.5,0.9", "--samples", "200")
    code, out, err = run(*words, "--out", report, "--plot", drawing)
    assert (code, err) == (0, "")
    assert "digits: 14 approximations of 4 layers" in out
    assert "relative weights" in out
    assert "measured KL" in out
    assert drawing.read_bytes().startswith(b"\x89PNG")
    assert len(json.loads(report.read_text())["rows"]) == 14


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--formats", "hosvd"), "there is no tensor format 'hosvd'"),
        (("--fewer", "half"), "--fewer half: write numbers"),
        (("--fewer", "1.5"), "a level of 1.5"),
    ],
)
def test_arguments_of_the_study_that_cannot_be_meant(run, quick, words, told):
    pytest.importorskip("tensorly")
    code, _, err = run("study", "digits", *words)
    assert code == 2
    assert told in err
