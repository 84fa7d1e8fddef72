"""The command: what is kept, what is measured again, what is said of rows that cannot be measured."""

import msgspec
import pytest
import torch

from allocator.demos import checkpoints, fashion_mnist
from benchmarks import goal as goals
from benchmarks.goal import Goal
from benchmarks.profilers import run, smollm2, train
from benchmarks.profilers.bench import version
from benchmarks.profilers.goals import GOALS
from benchmarks.profilers.rows import NETWORKS, ROWS
from benchmarks.store import Line, Store


def test_every_goal_has_a_row_on_its_network():
    for goal in GOALS:
        assert goal.row in NETWORKS[goal.network]
        assert goal.least is not None or goal.most is not None
    assert {row for rows in NETWORKS.values() for row in rows} == set(ROWS)


def test_distances():
    less = Goal(row="r", value="v", network="n", what="w", most=4, unit=" FB")
    more = Goal(row="r", value="v", network="n", what="w", least=0.5)
    assert goals.distance(less, 4.0) is None
    assert goals.distance(less, 5.0) == "1 FB above (1.25×)"
    assert goals.distance(more, 0.5) is None
    assert goals.distance(more, 0.4) == "0.1 below (0.80×)"
    assert goals.distance(less, float("nan")) is not None
    assert goals.distance(more, float("nan")) is not None


def test_results_are_kept_line_by_line(tmp_path):
    path = tmp_path / "out" / "results.jsonl"
    store = Store(path)
    store.add(Line(name="cost", network="n", version="1", values={"S1": 2.0}))
    with path.open("ab") as file:
        file.write(b'{"name": "single", "netw')  # killed while writing
    store = Store(path)
    assert store.get("cost", "n", "1").values == {"S1": 2.0}
    assert store.get("cost", "n", "2") is None
    store.add(Line(name="cost", network="n", version="2", values={"S1": 3.0}))
    assert Store(path).get("cost", "n", "2").values == {"S1": 3.0}
    assert Store(path).get("cost", "n", "1") is None


def test_facts_are_measured_once(bench):
    first = bench.single_kl()
    bench._load = None
    assert Store(bench.store.path).lines["single_kl", "tiny"].facts == first
    bench.store.lines["single_kl", "tiny"].facts = [1.0]
    assert bench.single_kl() == [1.0]


def test_rows_are_resumed(tmp_path, monkeypatch, capsys):
    calls = []

    def counted(bench):
        calls.append(bench.network)
        return {"S1": 3.0, "S4": 7.0}

    monkeypatch.setitem(run.ROWS, "cost", counted)
    argv = ["--rows", "cost", "--networks", "fashion*", "--out", str(tmp_path / "out")]
    assert run.main([*argv, "--write", str(tmp_path / "copy.md")]) == 0
    text = capsys.readouterr().out
    assert "3 FB" in text
    assert "1 FB above (1.17×)" in text
    assert "2 of 4 goals measured are met" in text
    assert calls == ["fashion-resnet20", "fashion-vit"]
    assert (tmp_path / "copy.md").read_text() == (tmp_path / "out" / "goals.md").read_text()
    assert run.main(argv) == 2
    assert "--resume goes on with it" in capsys.readouterr().err
    assert run.main([*argv, "--resume"]) == 0
    assert len(calls) == 2
    lines = (tmp_path / "out" / "results.jsonl").read_bytes().splitlines()
    stale = [msgspec.structs.replace(msgspec.json.decode(line, type=Line), version="old") for line in lines]
    (tmp_path / "out" / "results.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, stale)))
    assert run.main([*argv, "--resume"]) == 0
    assert len(calls) == 4


def test_missing_data_are_told_in_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(fashion_mnist.VARIABLE, str(tmp_path / "nowhere"))
    argv = ["--rows", "cost,single", "--networks", "fashion-vit", "--out", str(tmp_path / "out")]
    assert run.main(argv) == 0
    said = capsys.readouterr()
    assert said.out.count("make fashion-mnist-data") == 4
    assert "Traceback" not in said.err
    assert "0 of 0 goals measured are met" in said.out


def test_missing_packages_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("allocator.demos.packages.find_spec", lambda name: None)
    assert run.main(["--networks", "smollm2", "--out", str(tmp_path / "out")]) == 0
    assert "`make demo-smollm2` installs them" in capsys.readouterr().out


def test_what_cannot_be_meant(tmp_path, capsys):
    assert run.main(["--rows", "nothing"]) == 2
    assert "see --list" in capsys.readouterr().err
    assert run.main(["--list"]) == 0
    assert "fashion-vit: whole refined" in capsys.readouterr().out


def test_memory_of_this_process_is_read():
    assert 0.01 < smollm2.peak_gib() < 1000


def test_version_changes_with_sources_only():
    assert version() == version()
    assert torch.__version__ in version()


def test_training_learns_is_deterministic_and_stored(tmp_path, stand_in, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    recipe = train.Recipe(make=train.RECIPES["fashion-vit"].make, epochs=2, rate=2e-3, batch=100)
    monkeypatch.setattr(train, "RECIPES", {"fashion-vit": recipe})
    state = torch.get_rng_state()
    assert train.main(["fashion-vit"]) == 0
    assert torch.equal(torch.get_rng_state(), state)
    said = capsys.readouterr().out
    losses = [float(line.rpartition(" ")[2]) for line in said.splitlines() if "mean training loss" in line]
    assert losses[1] < losses[0]
    assert "accuracy" in said
    first = (tmp_path / "fashion_vit.safetensors").read_bytes()
    assert train.main([]) == 0
    assert (tmp_path / "fashion_vit.safetensors").read_bytes() == first


def test_training_without_data_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(fashion_mnist.VARIABLE, str(tmp_path))
    assert train.main(["fashion-vit"]) == 1
    assert capsys.readouterr().err.startswith("error: Fashion-MNIST is not in")
    with pytest.raises(SystemExit):
        train.main(["nothing"])
    assert "there is no recipe for nothing" in capsys.readouterr().err
