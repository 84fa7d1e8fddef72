"""The command line as a user meets it: documents on stdout, words on stderr, exit codes, and no traceback."""

import json
from pathlib import Path

import jsonschema
import pytest

from allocator import load_problem, save_problem
from allocator.actions import KINDS

EXAMPLE = Path(__file__).parents[2] / "golden" / "example.json"


def changed(tmp_path, **parts):
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(json.loads(EXAMPLE.read_text()) | parts))
    return path


def test_check_accepts_the_example_from_file_and_stdin(run):
    assert run("check", EXAMPLE)[0] == 0
    code, out, _ = run("check", "-", "--json", stdin=EXAMPLE.read_bytes())
    assert code == 0
    assert json.loads(out) | {"features": 0} == {
        "valid": True, "groups": 6, "choices": 25, "features": 0, "warnings": [],
    }  # fmt: skip


def test_check_lists_several_faults_with_pointers(run, tmp_path):
    path = changed(tmp_path, pins={"nobody": "int8", "head": "int9"}, budgets=[{"resource": "gold", "max": 1}])
    code, out, _ = run("check", path, "--json")
    pointers = [e["pointer"] for e in json.loads(out)["errors"]]
    assert code == 1
    assert pointers == ["/pins/nobody", "/pins/head", "/budgets/0/resource"]


def test_solve_prints_one_document_and_writes_the_same(run, tmp_path):
    code, out, err = run("solve", EXAMPLE, "--json", "--out", tmp_path / "s.json")
    document = json.loads(out)
    assert code == 0
    assert document["status"] == "optimal"
    assert document["objective"] == pytest.approx(0.4087976213034, abs=1e-15)
    assert document["choices"]["head"] == "int8"
    assert json.loads((tmp_path / "s.json").read_text()) == document
    assert [line.partition(": ")[0] for line in err.splitlines()] == ["warning"] * 2  # few rows, negative curvature


def test_solve_is_reproducible_outside_run(run):
    first, second = (json.loads(run("solve", EXAMPLE, "--json")[1]) for _ in range(2))
    for document in (first, second):
        document.pop("run")
    assert first == second


def test_solve_states_the_resolved_budget(run):
    code, out, err = run("solve", EXAMPLE, "--budget", "weight_bytes=4bits", "--json")
    assert code == 0
    assert "105760" in err
    assert json.loads(out)["problem"]["overrides"] == {"weight_bytes": {"max": 105760}}


def test_exit_codes(run, tmp_path):
    assert run("solve", EXAMPLE, "--budget", "weight_bytes=1000")[0] == 3
    assert run("solve", EXAMPLE, "--solver", "uniform")[0] == 4
    assert run("solve", EXAMPLE, "--solver", "nobody")[0] == 2
    assert run("solve", EXAMPLE, "--budget", "weight_bytes=12QB")[0] == 2
    assert run("solve", EXAMPLE, "--no-such-option")[0] == 2
    assert run("solve", tmp_path / "missing.json")[0] == 2
    assert run("solve", EXAMPLE, "--solver", "greedy")[0] == 1
    assert run("check", changed(tmp_path, version=7))[0] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["solve", EXAMPLE, "--solver", "unifrom"], "did you mean 'uniform'?"),
        (["solve", EXAMPLE, "--solver", "greedy"], "does not take"),
        (["solve", EXAMPLE, "--set", "most"], "write option=value"),
        (["solve", EXAMPLE, "--solver", "brute_force", "--set", "least=3"], "it takes most"),
        (["solve", EXAMPLE, "--budget", "1000"], "say of which resource"),
        (["solve", EXAMPLE, "--budget", "latency_ms=12MB"], "not bytes or bits"),
        (["solve", EXAMPLE, "--objective", "beauty"], "there is no such score"),
        (["solve", EXAMPLE, "--time-limit", "-1"], "give seconds above 0"),
        (["solve", EXAMPLE, "--out", "/no/such/folder/s.json"], "there is no folder"),
        (["schema", "poem"], "'problem' and 'solution'"),
        (["apply", "nobody", EXAMPLE, "--out", "x"], "not a valid solution"),
        (["evaluate", "nobody"], "there is no built-in model 'nobody'"),
        (["evaluate", "no.such.module:make"], "there is no module 'no'"),
        (["profile", "digits", "--out", "p.json", "--bits", "2,x"], "numbers with commas"),
        (["profile", "digits", "--out", "p.json", "--profiler", "gnn"], "did you mean 'ggn'?"),
        (["demo", "nobody"], "there is no built-in model"),
    ],
)
def test_messages_name_the_thing_and_the_way_out(run, words, message):
    code, out, err = run(*words)
    assert code in (1, 2)
    assert message in err
    assert out == ""


def test_dry_run_solves_nothing(run):
    code, out, _ = run("solve", EXAMPLE, "--dry-run", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["groups"] == 6
    assert document["groups_after_reduction"] == 5
    assert "objective" not in document


def test_convert_there_and_back(run, tmp_path):
    columns, rows = tmp_path / "columns.json", tmp_path / "rows.json"
    assert run("convert", EXAMPLE, columns)[0] == 0
    assert (tmp_path / "columns.npz").exists()
    assert run("convert", columns, rows)[0] == 0
    first, second = (json.loads(run("solve", p, "--json")[1]) for p in (EXAMPLE, rows))
    assert first["problem"]["sha256"] == second["problem"]["sha256"]
    assert first["choices"] == second["choices"]


def test_compare_shows_refusals_and_regret(run):
    code, out, _ = run("compare", EXAMPLE, "--solvers", "brute_force,uniform,greedy", "--json", "--strict")
    rows = {row["solver"]: row for row in json.loads(out)["rows"]}
    assert code == 0
    assert rows["brute_force"]["regret"] == 0
    assert rows["uniform"]["status"] == "unknown"
    assert rows["greedy"]["status"] == "error"
    assert "max_distinct" in rows["greedy"]["error"]


def test_compare_runs_each_budget_in_turn(run):
    words = ("--solvers", "brute_force", "--budgets", "100000,150000", "--resource", "weight_bytes", "--json")
    rows = json.loads(run("compare", EXAMPLE, *words)[1])["rows"]
    assert [row["budget"] for row in rows] == ["100000", "150000"]
    assert rows[1]["objective"] <= rows[0]["objective"]


EXTRAS = {"gurobi", "scip"}  # their packages are not part of the ordinary install


@pytest.mark.parametrize("group", ["solvers", "profilers", "actions"])
def test_listings(run, group):
    listed = json.loads(run(group, "--json")[1])[group]
    assert len(listed) >= 3
    assert all(entry["available"] for entry in listed if entry["name"] not in EXTRAS)
    assert run(group)[0] == 0


def test_actions_are_listed_with_their_keys(run, monkeypatch):
    listed = {one["name"]: one["usage"] for one in json.loads(run("actions", "--json")[1])["actions"]}
    assert listed == {name: spec.usage for name, spec in KINDS.items()}
    monkeypatch.setenv("COLUMNS", "400")
    shown = run("actions")[1]
    assert all(usage[:40] in shown for usage in listed.values())
    assert json.loads(run("solvers", "--json")[1])["solvers"][0]["usage"] is None


@pytest.mark.parametrize("what", ["problem", "solution"])
def test_schema_describes_what_is_written(run, tmp_path, what):
    schema = json.loads(run("schema", what)[1])
    document = json.loads(EXAMPLE.read_text() if what == "problem" else run("solve", EXAMPLE, "--json")[1])
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(document)
    assert not validator.is_valid(document | {"unknown": 1})
    assert validator.is_valid(document | {"x-free": 1})


def test_interrupt_writes_the_incumbent(run, tmp_path, monkeypatch):
    def interrupted(backend, problem, limits, start=None):
        answer = backend.solve(problem, limits, start)  # reports allocations on its way
        assert answer.choice is not None
        raise KeyboardInterrupt

    monkeypatch.setattr("allocator.pipeline.run_backend", interrupted)
    out = tmp_path / "s.json"
    assert run("solve", EXAMPLE, "--solver", "brute_force", "--out", out)[0] == 130
    written = json.loads(out.read_text())
    assert written["limit"] == "interrupt"
    assert written["choices"]["head"] == "int8"


def test_out_is_replaced_only_by_a_whole_file(run, tmp_path):
    out = tmp_path / "s.json"
    out.write_text("precious")
    assert run("solve", EXAMPLE, "--solver", "greedy", "--out", out)[0] == 1
    assert out.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["s.json"]


def test_saved_problem_is_loaded_as_it_was(tmp_path):
    problem = load_problem(EXAMPLE)
    save_problem(problem, tmp_path / "again.json")
    assert load_problem(tmp_path / "again.json").budgets == problem.budgets
