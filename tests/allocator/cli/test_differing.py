"""`allocator diff`."""

import json
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "golden/example.json"


def test_two_solutions(run, tmp_path):
    problem = json.loads(EXAMPLE.read_text())
    assert run("solve", EXAMPLE, "--out", tmp_path / "a.json")[0] == 0
    found = json.loads((tmp_path / "a.json").read_text())
    group = problem["groups"][0]["name"]
    found["choices"][group], before = "another", found["choices"][group]
    (tmp_path / "b.json").write_text(json.dumps(found))
    code, out, _ = run("diff", tmp_path / "a.json", tmp_path / "b.json")
    assert code == 0
    assert f"1 of {len(found['choices'])} groups differ" in out
    assert before in out
    assert "another" in out
    code, out, _ = run("diff", tmp_path / "a.json", tmp_path / "b.json", "--json")
    assert json.loads(out)["choices"] == {group: [before, "another"]}
    code, out, _ = run("diff", "-", tmp_path / "a.json", stdin=(tmp_path / "a.json").read_bytes())
    assert (code, out.strip()) == (0, "the same")


def test_two_problems(run, tmp_path):
    problem = json.loads(EXAMPLE.read_text())
    resource = next(iter(problem["groups"][0]["choices"][0]["cost"]))
    problem["groups"][0]["choices"][0]["cost"][resource] += 7
    problem["x-note"] = "moved"
    (tmp_path / "p.json").write_text(json.dumps(problem))
    code, out, _ = run("diff", EXAMPLE, tmp_path / "p.json")
    assert code == 0
    assert "differ: x-note" in out
    assert f"cost {resource}" in out
    assert "1 of" in out
    assert run("diff", EXAMPLE, EXAMPLE)[1].strip() == "the same"


def test_what_cannot_be_compared(run, tmp_path):
    assert run("solve", EXAMPLE, "--out", tmp_path / "a.json")[0] == 0
    code, _, err = run("diff", tmp_path / "a.json", EXAMPLE)
    assert code == 2
    assert "compare two of a kind" in err
    (tmp_path / "text").write_text("hello")
    code, _, err = run("diff", EXAMPLE, tmp_path / "text")
    assert code == 2
    assert "neither a solution nor a problem" in err
    assert run("diff", EXAMPLE, tmp_path / "nowhere.json")[0] == 2
