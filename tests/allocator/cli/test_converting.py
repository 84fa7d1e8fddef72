"""`allocator convert` with tables and solver formats, as a user meets it."""

import json
import re
from pathlib import Path

import pytest

from allocator.formats.problems import load_problem


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("layer,bits,bytes,kl,mse,note\na,2,10,1,3,-\na,4,20,0,1,-\nb,2,10,2,2,-\nb,4,20,0,0,-\n")
    return path


MAP = "group=layer,choice=bits,cost.weight_bytes=bytes,score.kl=kl,score.mse=mse"


def test_a_table_becomes_a_problem_and_a_program(run, table, tmp_path):
    out = tmp_path / "p.json"
    code, _, err = run("convert", table, out, "--columns", MAP, "--budget", "weight_bytes=75%", "--loss", "mse")
    assert code == 0
    assert "columns left out: note" in err
    assert "loss: 1 mse" in err
    problem = load_problem(out)
    assert problem.budgets[0].max == 30
    assert json.loads(run("solve", out, "--json")[1])["choices"] == {"a": "2", "b": "4"}
    assert run("convert", out, tmp_path / "p.mps")[0] == 0
    assert run("convert", table, tmp_path / "q.lp", "--columns", MAP, "--budget", "30")[0] == 0
    assert "Subject To" in (tmp_path / "q.lp").read_text()
    assert run("convert", out, "-", "--to", "lp")[1].startswith("\\ value")


def test_the_example_of_the_docs(run, tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "ways-in-and-out.md").read_text()
    [first, second] = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("measured.csv").write_text(first.partition("measured.csv\n")[2].partition("$ ")[0])
    command, said = re.search(r"\$ allocator (convert measured.*?)\n(.*)", first, re.DOTALL).groups()
    assert run(*command.split())[2] == said
    assert run("convert", "problem.json", "model.lp")[0] == 0
    assert Path("model.lp").read_text() == second.partition("cat model.lp\n")[2]


def test_faults_are_lines_on_stderr(run, table):
    table.write_text(table.read_text().replace("20", "?"))
    code, out, err = run("convert", table, table.with_suffix(".json"), "--columns", MAP)
    assert code == 1
    assert out == ""
    assert [line.partition(", ")[2][:6] for line in err.splitlines()] == ["line 3", "line 5"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{golden}", "{tmp}/o.json", "--columns", "group=x"], "belong to a table"),
        (["{golden}", "{tmp}/o.mps", "--form", "rows"], "is no problem.json"),
        (["{golden}", "{tmp}/o.json", "--form", "cubes"], "rows and columns"),
        (["{golden}", "{tmp}/o.json", "--to", "excel"], "no exporter 'excel'"),
        (["{golden}", "{golden}"], "is the input"),
    ],
)
def test_messages(run, golden, tmp_path, words, message):
    code, _, err = run("convert", *[w.format(golden=golden / "example.json", tmp=tmp_path) for w in words])
    assert code == 2
    assert message in err


def test_form_is_the_other_one_or_the_one_asked(run, golden, tmp_path):
    run("convert", golden / "example.json", tmp_path / "a.json")
    assert (tmp_path / "a.npz").exists()
    run("convert", golden / "example.json", tmp_path / "b.json", "--form", "rows", "--budget", "weight_bytes=99999")
    assert not (tmp_path / "b.npz").exists()
    assert load_problem(tmp_path / "b.json").budgets[0].max == 99999
