"""`allocator recover` from the command line, on digits."""

from __future__ import annotations

import json

import pytest

from allocator.cli import models
from allocator.demos import digits
from allocator.recovery.adam import Adam


@pytest.fixture(scope="module")
def trained():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "EPOCHS", 5)
        return digits.workload()


@pytest.fixture
def checkpoint(run, monkeypatch, trained, tmp_path):
    """The folder of digits at 2 bits."""
    monkeypatch.setattr(models, "load_workload", lambda name: trained)
    solution = tmp_path / "solution.json"
    layers = ["features.0.0", "features.1.0", "features.3.0", "features.4.0", "hidden", "classes"]
    actions = {name: {"kind": "quantize", "bits": 2} for name in layers}
    head = {"format": "allocation-solution", "version": 1}
    solution.write_text(json.dumps({**head, "actions": actions, "modules": {name: [name] for name in layers}}))
    assert run("apply", "digits", solution, "--out", tmp_path / "small")[0] == 0
    return tmp_path / "small"


def test_a_checkpoint_is_recovered(run, checkpoint, tmp_path):
    out = tmp_path / "better"
    code, shown, err = run("recover", "digits", checkpoint, "--out", out, "--steps", "40")
    assert (code, err) == (0, "")
    assert "as it was given" in shown
    assert "statistics of its norms anew" in shown
    assert "numbers trained on 231 samples" in shown
    assert "measured on 25 held back" in shown
    assert f"{(out / 'model.safetensors').stat().st_size} bytes, " in shown
    assert "of them its description" in shown
    assert not (tmp_path / "better.parts").exists()
    kl = []
    for folder in (checkpoint, out):
        code, shown, _ = run("evaluate", "digits", "--checkpoint", folder, "--json")
        assert code == 0
        kl.append(json.loads(shown)["kl"]["value"])
    assert kl[1] < 0.5 * kl[0]
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (checkpoint, out)]
    assert 0 <= sizes[1] - sizes[0] < 200  # what the header says of it


def test_one_document_and_the_statistics_alone(run, checkpoint, tmp_path):
    words = ("recover", "digits", checkpoint, "--out", tmp_path / "better", "--steps", "0", "--seed", "3", "--json")
    code, shown, err = run(*words)
    assert (code, err) == (0, "")
    found = json.loads(shown)
    assert found["kept"] == "norms"
    assert found["kl"]["after"] == found["kl"]["norms"]
    assert found["kl"]["after"]["value"] < found["kl"]["before"]["value"]
    assert (found["seed"], found["steps"], found["path"]) == (3, 0, str(tmp_path / "better"))
    assert found["bytes"] == (tmp_path / "better" / "model.safetensors").stat().st_size


def test_a_killed_run_goes_on(run, checkpoint, tmp_path, monkeypatch):
    words = ("recover", "digits", checkpoint, "--steps", "40", "--json")
    code, whole, _ = run(*words, "--out", tmp_path / "whole")
    assert code == 0
    taken = Adam.step

    def killed(self, gradient):
        if self.done == 25:
            raise KeyboardInterrupt
        taken(self, gradient)

    monkeypatch.setattr(Adam, "step", killed)
    assert run(*words, "--out", tmp_path / "better")[0] == 130
    assert list((tmp_path / "better.parts").iterdir())
    assert not (tmp_path / "better").exists()
    steps = []
    monkeypatch.setattr(Adam, "step", lambda self, gradient: (steps.append(self.done), taken(self, gradient)))
    code, resumed, _ = run(*words, "--out", tmp_path / "better", "--resume")
    assert code == 0
    assert steps[0] == 24  # from the last measurement on
    assert not (tmp_path / "better.parts").exists()
    clocks = [{**json.loads(shown), "seconds": 0, "path": ""} for shown in (whole, resumed)]
    assert clocks[0] == clocks[1]
    files = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("whole", "better")]
    assert files[0] == files[1]


def test_what_cannot_be_meant(run, checkpoint, tmp_path):
    for words, told, wanted in [
        ((tmp_path / "none", "--out", tmp_path / "better"), "cannot be read", 1),
        ((checkpoint, "--out", tmp_path / "solution.json" / "better"), "cannot be written", 2),
        ((checkpoint, "--out", tmp_path / "better", "--steps=-1"), "steps must be", 2),
        ((checkpoint, "--out", tmp_path / "better", "--lr=0"), "lr must be", 2),
    ]:
        code, shown, err = run("recover", "digits", *words)
        assert (code, shown) == (wanted, "")
        assert told in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small", "solution.json"]
