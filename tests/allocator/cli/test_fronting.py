"""`allocator frontier`: the table, the document, the files, the exit codes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import allocator
from allocator.cli.fronting import representative
from allocator.cli.plotting import uniform_points

EXAMPLE = Path(__file__).parents[2] / "golden" / "example.json"

TABLE = """
   bytes             objective   multiplier              groups changed   from
 ──────────────────────────────────────────────────────────────────────────────
   2 500    2.5 kB           9   one more B buys 0.003                    hull
    3500    3.5 kB           6   one more B buys 0.00127              1   hull
    6500    6.5 kB         2.2   one more B buys 0.0005               1   hull
    8500    8.5 kB         1.2   nothing more to buy                  1   hull

4 points, each optimal for its own bytes
"""


@pytest.fixture
def file(tmp_path):
    resources = {"bytes": allocator.problem.Resource("byte", offset=500)}
    problem = allocator.Problem.from_arrays(
        {"kl": np.array([[5.0, 2, 1], [4, 1.5, 0.2]])}, {"bytes": np.array([[1, 2, 4], [1, 3, 4]]) * 1000},
        group_names=["a", "b"], choice_names=["x", "y", "z"], budgets={"bytes": 5000}, resources=resources,
    )  # fmt: skip
    path = tmp_path / "problem.json"
    allocator.save_problem(problem, path)
    return path


def words_of(text):
    """Lines without the spaces that fill a table, nor the space within numbers."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_table_of_a_small_frontier(run, file):
    code, out, err = run("frontier", file)
    assert (code, err) == (0, "")
    assert words_of(out)[2:] == words_of(TABLE.replace("2 500", "2500"))[2:]
    assert words_of(out)[0] == words_of(TABLE)[0]


def test_document_holds_points_and_changes(run, file):
    code, out, err = run("frontier", file, "--json")
    shown = json.loads(out)
    assert (code, err) == (0, "")
    assert [p["cost"] for p in shown["points"]] == [2500, 3500, 6500, 8500]
    assert shown["base"] == {"a": "x", "b": "x"}
    assert shown["points"][1] == {
        "cost": 3500, "objective": 6.0, "multiplier": pytest.approx(3.8 / 3000), "kind": "hull", "status": "optimal",
        "gap": 0.0, "changes": {"a": "y"},
    }  # fmt: skip
    assert json.loads(run("frontier", file, "--json")[1]) == shown


@pytest.mark.parametrize("words", [("--gap", "0"), ("--points", "7"), ("--budgets", "5.5kB")])
def test_exact_points_stand_between(run, file, words):
    code, out, _ = run("frontier", file, "--exact", "--json", *words)
    assert code == 0
    assert [(p["cost"], p["kind"]) for p in json.loads(out)["points"]] == [
        (2500, "hull"), (3500, "hull"), (5500, "exact"), (6500, "hull"), (8500, "hull"),
    ]  # fmt: skip
    assert "5 points, 1 of them from a solver" in run("frontier", file, "--exact", *words)[1]


@pytest.mark.parametrize("name", ["f.npz", "f.json"])
def test_file_is_the_frontier(run, file, tmp_path, name):
    assert run("frontier", file, "--out", tmp_path / name)[0] == 0
    curve = allocator.load_frontier(tmp_path / name, allocator.load_problem(file))
    assert curve.costs.tolist() == [2500, 3500, 6500, 8500]


def test_problem_with_couplings_goes_through_a_solver(run):
    assert run("frontier", EXAMPLE, "--resource", "weight_bytes")[0] == 1
    words = ("--exact", "--points", "5", "--resource", "weight_bytes", "--json")
    code, out, _ = run("frontier", EXAMPLE, *words)
    points = json.loads(out)["points"]
    assert code == 0
    assert len(points) >= 4
    assert {p["status"] for p in points} == {"optimal"}


def test_infeasible_exits_with_3_and_says_why(run, file, tmp_path):
    rows = json.loads(file.read_text())
    for choice in rows["groups"][1]["choices"]:
        choice["allowed"] = False
    path = tmp_path / "stuck.json"
    path.write_text(json.dumps(rows))
    code, out, err = run("frontier", path)
    assert (code, out) == (3, "")
    assert "group 'b' has no choice that may be taken" in err
    code, out, _ = run("frontier", path, "--json")
    assert (code, json.loads(out)["points"]) == (3, [])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--points", "3"), 2, "points needs exact=True (--exact)"),
        (("--exact", "--points", "3", "--budgets", "4kB"), 2, "--points and --budgets"),
        (("--exact", "--points", "3", "--gap", "0.1"), 2, "give one of them"),
        (("--resource", "gold"), 2, "there is no resource 'gold'"),
        (("--out", "/no/such/folder/f.npz"), 2, "there is no folder"),
        (("--exact", "--solver", "nobody"), 2, "there is no solver 'nobody'"),
    ],
)
def test_messages_name_the_thing_and_the_way_out(run, file, words, code, message):
    found, out, err = run("frontier", file, *words)
    assert (found, out) == (code, "")
    assert message in err


def test_drawing_is_written(run, file, tmp_path):
    assert run("frontier", file, "--plot", tmp_path / "f.svg")[0] == 0
    text = (tmp_path / "f.svg").read_text()
    assert "<svg" in text
    code, _, err = run("frontier", file, "--plot", tmp_path / "f.nonsense")
    assert code == 2
    assert "nonsense" in err


def test_drawing_without_matplotlib_names_the_extra(run, file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = run("frontier", file, "--plot", tmp_path / "f.png")
    assert (code, out) == (1, "")
    assert "[report]" in err


def test_uniform_allocations_of_common_labels(file):
    problem = allocator.load_problem(file)
    assert uniform_points(problem, "bytes") == [("x", 2500, 9), ("y", 5500, 3.5), ("z", 8500, pytest.approx(1.2))]


def test_at_most_twenty_points_are_shown():
    rng = np.random.default_rng(0)
    curve = allocator.frontier(allocator.Problem.from_arrays(rng.random((60, 6)), rng.integers(0, 99, (60, 6))))
    shown = representative(curve)
    assert len(curve) > 60
    assert len(shown) <= 20
    assert (shown[0], shown[-1]) == (0, len(curve) - 1)


def test_page_shows_what_is_printed(run, tmp_path):
    """docs/frontier.md: the table of the first example of docs/format.md."""
    docs = Path(__file__).parents[3] / "docs"
    first = re.search(r"^```json\n(.*?)^```", (docs / "format.md").read_text(), re.M | re.S)
    shown = re.search(r"\$ allocator frontier problem.json\n(.*?)^```", (docs / "frontier.md").read_text(), re.M | re.S)
    (tmp_path / "problem.json").write_text(first[1])
    printed = run("frontier", tmp_path / "problem.json")[1]
    assert words_of(printed) == words_of(shown[1])
