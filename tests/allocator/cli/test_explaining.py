"""`allocator explain` and `allocator stability`: tables, documents, exit codes, and the pages that show them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import allocator

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "tests" / "golden" / "example.json"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The problem of docs/explain.md as problem.json, and with a pin and a small budget as pinned.json."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
    rows = json.loads(re.search(r"^```json\n(.*?)^```", text, re.M | re.S)[1])
    (tmp_path / "problem.json").write_text(json.dumps(rows))
    pinned = rows | {"pins": {"head": "int8"}, "budgets": [rows["budgets"][0] | {"max": 60000}]}
    (tmp_path / "pinned.json").write_text(json.dumps(pinned))


def words_of(text):
    """Lines without the spaces that fill a table."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("page", ["explain.md", "uncertainty.md"])
def test_pages_show_what_is_printed(run, page) -> None:
    run("solve", "problem.json", "--out", "solution.json")
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    shown = re.findall(r"^```console\n\$ allocator (.*?)\n(.*?)^```", text, re.M | re.S)
    assert shown
    for command, printed in shown:
        assert words_of(run(*command.split())[1]) == words_of(printed), command


@pytest.mark.usefixtures("files")
def test_python_of_the_page_runs() -> None:
    text = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
    problem = allocator.load_problem("problem.json")
    names = {"allocator": allocator, "problem": problem, "solution": allocator.solve(problem)}
    first, second = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    exec(first, names)
    assert names["low"].shape == (4,)
    names["problem"] = allocator.load_problem("pinned.json")
    exec(second, names)
    assert [m.pointer for m in names["found"].members] == ["/budgets/0/max", "/pins/head"]


@pytest.mark.usefixtures("files")
def test_document_is_one_and_plain(run) -> None:
    run("solve", "problem.json", "--out", "solution.json")
    code, out, err = run("explain", "problem.json", "solution.json", "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["kinds"]["fill"] == 1
    assert [g["group"] for g in document["groups"]] == ["attn", "mlp", "head", "embed"]
    one = json.loads(run("explain", "problem.json", "solution.json", "--json", "--group", "mlp")[1])
    assert [g["group"] for g in one["groups"]] == ["mlp"]
    assert json.loads(run("explain", "problem.json", "--json", "--most", "1")[1])["groups"] == document["groups"][:1]


@pytest.mark.usefixtures("files")
def test_infeasible_exits_with_3_and_names_the_conflict(run) -> None:
    code, out, _ = run("explain", "pinned.json")
    assert code == 3
    assert "pin head=int8: drop it" in out
    code, out, _ = run("explain", "pinned.json", "--json")
    document = json.loads(out)
    assert (code, document["status"]) == (3, "infeasible")
    assert [m["pointer"] for m in document["conflict"]["members"]] == ["/budgets/0/max", "/pins/head"]
    code, out, err = run("solve", "pinned.json", "--json")
    assert (code, json.loads(out)["status"]) == (3, "infeasible")
    assert "these 2 constraints exclude each other" in err


@pytest.mark.usefixtures("files")
def test_solution_of_another_version_is_a_warning(run, tmp_path) -> None:
    run("solve", "problem.json", "--out", "solution.json")
    rows = json.loads((tmp_path / "problem.json").read_text())
    rows["groups"][0]["choices"][0]["score"]["kl"] = 0.5
    (tmp_path / "problem.json").write_text(json.dumps(rows))
    code, out, err = run("explain", "problem.json", "solution.json")
    assert code == 0
    assert "warning: the solution was made for another problem" in err
    assert out.startswith("not proved: objective 0.564")


def test_couplings_and_masks_are_told(run) -> None:
    code, out, _ = run("explain", EXAMPLE)
    assert code == 0
    assert "max_distinct 3 over all groups, not counting keep: int2, int4, int8 (no room left" in out
    assert "forbids single choices, so it has no price" in out
    code, out, _ = run("explain", EXAMPLE, "--group", "attn.q_proj")
    assert "(with attn.k_proj)" in out


@pytest.mark.usefixtures("files")
def test_stability_document(run) -> None:
    code, out, err = run("stability", "problem.json", "--samples", "5", "--correlated", "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert (document["samples"], document["correlated"], document["proved"]) == (5, True, 5)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("explain", "problem.json", "nowhere.json"), 2, "nowhere.json"),
        (("explain", "problem.json", "problem.json"), 1, "not a valid solution"),
        (("explain", "problem.json", "--group", "nobody"), 2, "there is no group 'nobody'"),
        (("stability", "problem.json", "--samples", "0"), 2, "give 1 or more"),
        (("stability", "problem.json", "--solver", "nobody"), 2, "there is no solver 'nobody'"),
        (("stability", "pinned.json"), 2, "no allocation to start from"),
    ],
)
def test_messages_name_the_thing_and_the_way_out(run, words, code, message) -> None:
    found, out, err = run(*words)
    assert (found, out) == (code, "")
    assert message in err
