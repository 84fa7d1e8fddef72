"""`allocator methods`, `run` and `compare-methods` as a user meets them."""

import json

import pytest

MODEL = """
import torch
from torch import nn

from allocator import Workload


def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 4))
    g = torch.Generator().manual_seed(1)
    data = [(torch.randn(n, 16, generator=g), torch.randint(4, (n,), generator=g)) for n in (12, 12, 40)]
    return Workload(net, data[:2], data[2:], "classification", "tiny")
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    (tmp_path / "tiny_methods_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "tiny_methods_model:make"


def test_methods_are_listed(run):
    code, out, _ = run("methods", "--json")
    found = {one["name"]: one for one in json.loads(out)["methods"]}
    assert code == 0
    assert found["llc"]["fidelity"] == "allocation rule only"
    assert found["llc"]["statistics"] == ["remainder[of=first_order, samples=64]"]
    assert found["house"]["options"] == {"passes": 10.0}
    code, out, _ = run("methods")
    assert code == 0
    assert "hawq_v2 leaves out" in out


def test_run_writes_a_folder_and_measures(run, model, tmp_path):
    code, out, err = run("run", model, "--method", "relative-error", "--budget", "weight_bytes=40%", "--out", "small")
    assert code == 0, err
    assert "less uniform" in out
    assert sorted(p.name for p in (tmp_path / "small").iterdir()) == ["checkpoint", "problem.json", "solution.json"]
    assert not (tmp_path / "small.parts").exists()
    code, out, _ = run("evaluate", model, "--checkpoint", "small/checkpoint", "--json")
    again = json.loads(out)
    code, out, _ = run("run", model, "--method", "relative_error", "--budget", "weight_bytes=40%", "--json")
    assert json.loads(out)["measured"]["kl"]["compressed"]["value"] == pytest.approx(again["kl"]["value"], rel=1e-6)


def test_a_method_takes_kinds(run, model, tmp_path):
    words = ("--method", "relative-error", "--budget", "weight_bytes=60%", "--kinds", "bits,formats", "--fast")
    code, _, err = run("run", model, *words, "--out", "small")
    assert code == 0, err
    problem = json.loads((tmp_path / "small" / "problem.json").read_text())
    kinds = {choice["action"]["kind"] for group in problem["groups"] for choice in group["choices"]}
    assert kinds == {"quantize", "corrected", "number_format", "keep"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--method", "hawq_v2", "--budget", "weight_bytes=1%"], 3, "no allocation within the budget (infeasible"),
        (["--method", "house"], 2, "method house needs a budget"),
        (["--method", "hauwk", "--budget", "weight_bytes=40%"], 2, "there is no method 'hauwk'"),
        (
            ["--method", "house", "--budget", "weight_bytes=40%", "--resume"],
            2,
            "--resume goes on from what lies beside",
        ),
        (["--budget", "weight_bytes=40%", "--kinds", "bit"], 2, "there is no kind of compression 'bit'"),
        (["--budget", "weight_bytes=40%", "--fast"], 2, "--multiple and --fast are about the menus of --kinds"),
        (["--method", "modegpt", "--budget", "weight_bytes=40%"], 2, "block_influence found no block"),
    ],
)
def test_run_says_what_is_wrong(run, model, words, code, said):
    found, _, err = run("run", model, *words)
    assert found == code
    assert said in err


def test_compare_methods_writes_a_table_and_a_drawing(run, model, tmp_path):
    words = [
        "compare-methods",
        model,
        "--methods",
        "relative_error,modegpt,modelopt_kl",
        "--budget",
        "weight_bytes=40%",
    ]
    code, out, err = run(*words, "--out", "all.json", "--plot", "all.png")
    assert code == 0, err
    assert "modegpt: block_influence found no block" in out
    assert "least KL" in out
    written = json.loads((tmp_path / "all.json").read_text())
    assert written["rows"][0]["method"] == "uniform"
    assert (tmp_path / "all.png").exists()
    assert not (tmp_path / "all.json.parts").exists()
    code, out, _ = run(*words, "--json")
    again = json.loads(out)
    took = ("passes", "seconds")
    for one, other in zip(written["rows"], again["rows"], strict=True):
        assert {k: v for k, v in one.items() if k not in took} == {k: v for k, v in other.items() if k not in took}
    assert run(*words[:-2])[0] == 2  # no budget
    assert run(*words, "--resume")[0] == 2


def test_what_takes_long_is_said_before_it_begins_and_can_be_left_out(run, model, monkeypatch):
    words = ["compare-methods", model, "--methods", "relative_error,modelopt_kl", "--budget", "weight_bytes=40%"]
    code, out, err = run(*words, "--most-passes", "1")
    assert code == 0, err
    assert (
        "modelopt_kl: left out: it would take about 2 passes, and at most 1 were asked for" in out
    )  # 12 choices, a fifth each
    assert "will take about" not in err
    monkeypatch.setattr("allocator.methods.forecasting.LONG", 2)
    code, out, err = run(*words)
    assert code == 0
    assert "modelopt_kl will take about 2 passes over the calibration data, 0.0 h of CPU time here" in err
    assert "relative_error will take" not in err
    assert "left out" not in out
