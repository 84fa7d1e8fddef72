"""Tables of choices: default names, mapped names, exact integers, and faults that name their line and column."""

import sys

import pytest

import allocator
from allocator.errors import ProblemError, UnavailableError, UsageError
from allocator.importers import importer_for
from allocator.importers.table import Table

PLAIN = """group,choice,cost.weight_bytes,cost.ms,score.kl,stderr.kl,label,allowed,tags,weights,action,why
a,int4,100,0.5,0.25,0.01,four,yes,x;y,1000,"{""kind"": ""quantize"", ""bits"": 4}",first
b,int4,70,0.25,0.5,,,,,500,,
a,int8,200,1,0.125,,,false,,1000,,"two
lines"
b,int8,140.0,0.5,1e-3,0.5,,,y,,,
"""


def written(tmp_path, text, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def faults(path, **options):
    with pytest.raises(ProblemError) as caught:
        Table(**options).read(path)
    return [str(f).removeprefix(f"{path}, ") for f in caught.value.faults]


def test_columns_of_known_names_are_read(tmp_path):
    problem = Table().read(written(tmp_path, PLAIN))
    assert list(problem.group_names) == ["a", "b"]
    assert [problem.choice_name(r) for r in range(4)] == ["int4", "int8", "int4", "int8"]
    assert problem.costs["weight_bytes"].dtype.kind == "i"
    assert problem.costs["weight_bytes"].tolist() == [100, 200, 70, 140]
    assert problem.costs["ms"].tolist() == [0.5, 1.0, 0.25, 0.5]
    assert problem.scores["kl"].tolist() == [0.25, 0.125, 0.5, 1e-3]
    assert problem.stderr["kl"].tolist() == [0.01, 0, 0, 0.5]
    assert problem.resources["weight_bytes"].unit == "byte"
    assert problem.resources["ms"].unit == "ms"
    assert problem.allowed.tolist() == [True, False, True, True]
    assert problem.weights.tolist() == [1000, 500]
    assert problem.tags.of(0) == ("x", "y")
    assert problem.tags.of(1) == ("y",)
    assert problem.action_table == ({"kind": "quantize", "bits": 4},)
    assert problem.label_codes.table[problem.label_codes.code[0]] == "four"
    assert problem.notes.provenance["columns_left_out"] == ["why"]


def test_columns_can_have_other_names(tmp_path):
    text = "layer;bits;size;err;cost.size\nl1;2;5;1;9\nl1;4;9;0;9\n"
    mapped = {"group": "layer", "choice": "bits", "cost.bytes": "size", "score.kl": "err"}
    path = written(tmp_path, "\ufeff" + text)
    problem = Table(columns=mapped).read(path)
    assert list(problem.costs) == ["bytes", "size"]
    assert problem.choice_name(1) == "4"
    assert allocator.solve(problem, budgets={"bytes": 5}).choices == {"l1": "2"}
    same = Table(columns="group=layer, choice=bits,cost.bytes=size,score.kl=err").read(path)
    assert same.costs["bytes"].tolist() == [5, 9]


def test_the_loss_is_the_first_score_or_what_is_asked(tmp_path):
    path = written(tmp_path, "group,score.b,score.a,cost.c\ng,1,2,3\ng,2,1,3\n")
    assert Table().read(path).loss.terms == {"b": 1.0}
    assert Table(loss="a=1,b=0.5").read(path).unary.tolist() == [2.5, 2.0]
    assert Table().read(path).choice_name(1) == "c1"
    assert Table(units="c=byte").read(path).resources["c"].unit == "byte"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("g,a,x,1,", "line 3, column 'cost.c': 'x' is not a number (the decimal mark is a point)"),
        ("g,a,,1,", "line 3, column 'cost.c': is empty; give a number"),
        ("g,a,1,nan,", "line 3, column 'score.s': 'nan' is not a finite number of ordinary size"),
        ("g,a,1,inf,", "line 3, column 'score.s': 'inf' is not a finite number of ordinary size"),
        ("g,a,1" + "0" * 400 + ",1,", "line 3, column 'cost.c': '1" + "0" * 39 + "' is not a finite"),
        ("g,a,1,1,-1", "line 3, column 'stderr.s': '-1' is below 0"),
        ("g,first,1,1,", "line 3, column 'choice': group 'g' has a choice 'first' already, in line 2"),
        (",a,1,1,", "line 3, column 'group': is empty; name the group"),
        ("g,a,1,1", "line 3: has 4 cells, the header 5"),
        ('g,"a,1,1,1', "line 3: cannot be read"),
    ],
)
def test_faults_name_line_and_column(tmp_path, row, message):
    path = written(tmp_path, f"group,choice,cost.c,score.s,stderr.s\ng,first,1,1,\n{row}\n")
    assert any(f.startswith(message) for f in faults(path))


def test_all_faults_are_listed_up_to_a_hundred(tmp_path):
    head = "group,choice,cost.c,score.s\n"
    assert len(faults(written(tmp_path, head + "".join(f"g,{i},x,1\n" for i in range(30))))) == 30
    assert len(faults(written(tmp_path, head + "".join(f"g,{i},x,1\n" for i in range(300))))) == 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty"),
        (b"group,cost.c,score.s\n", "there are no rows"),
        (b"group,group,cost.c,score.s\n", "names 'group' twice"),
        (b"group,cost.c,score.s\n\xff,1,1\n", "is not utf-8"),
        (b"group,cost.c,score.s,allowed\ng,1,1,perhaps\n", "neither true nor false"),
        (b"group,cost.c,score.s,weights\ng,1,1,0.5\n", "is not a count"),
        (b"group,cost.c,score.s,weights\ng,1,1,5\ng,1,1,6\n", "6 differs from 5"),
        (b"group,cost.c,score.s,action\ng,1,1,{\n", "is not JSON"),
        (b"group,cost.c,score.s,action\ng,1,1,[]\n", "is not an action"),
    ],
)
def test_hostile_tables(tmp_path, text, message):
    assert any(message in f for f in faults(written(tmp_path, text)))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("layer,cost.c,score.s\n", {}, "no column for group; its columns are layer, cost.c, score.s"),
        ("group,score.s\n", {}, "no column for cost.NAME"),
        ("group,cost.c,score.s\n", {"columns": "group=layer"}, "there is no column 'layer'"),
        ("group,cost.c,score.s\n", {"columns": "goup=group"}, "there is no part 'goup'"),
        ("group,cost.c,score.s\n", {"columns": "group"}, "write name=value"),
        ("group,cost.c,score.s\n", {"columns": "group=a,group=b"}, "two values"),
        ("group,cost.c,score.s,stderr.t\n", {}, "stderr.t is of no score"),
        ("group,cost.c,score.s\ng,1,1\n", {"loss": "t=1"}, "there is no score 't'"),
        ("group,cost.c,score.s\ng,1,1\n", {"loss": "s=x"}, "not a number"),
        ("group,cost.c,score.s\ng,1,1\n", {"units": "t=byte"}, "there is no resource 't'"),
    ],
)
def test_options_that_the_table_does_not_bear_out(tmp_path, text, options, message):
    with pytest.raises(UsageError, match=message):
        Table(**options).read(written(tmp_path, text))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnavailableError, match=r"pip install 'compression-allocator\[parquet\]'"):
        Table().read(written(tmp_path, b"PAR1", "t.parquet"))


def test_parquet_is_the_same_table(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    from pyarrow import parquet

    columns = {
        "layer": ["a", "a", "b"], "choice": [4, 8, 4], "cost.bytes": [2**53 + 1, 7, 7], "score.kl": [0.5, 0.25, 0.0],
        "allowed": [True, None, False], "tags": [["x"], None, ["y", "z"]],
    }  # fmt: skip
    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    problem = Table(columns={"group": "layer"}).read(path)
    assert problem.costs["bytes"].tolist() == [2**53 + 1, 7, 7]
    assert [problem.choice_name(r) for r in range(3)] == ["4", "8", "4"]
    assert problem.allowed.tolist() == [True, True, False]
    assert problem.tags.of(1) == ("y", "z")
    broken = written(tmp_path, b"PAR1 but not really", "b.parquet")
    assert "cannot be read as Parquet" in faults(broken)[0]


@pytest.mark.parametrize(("path", "name"), [("a.CSV", "table"), ("a.tsv", "table"), ("a.json", None)])
def test_the_ending_decides(path, name):
    assert importer_for(path) == name
