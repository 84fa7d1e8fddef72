"""The command: pieces in processes of their own, what is kept, what is said of those that cannot be measured."""

from functools import partial

import pytest

from benchmarks.interactions import measure, report, run
from benchmarks.interactions.goals import GOALS
from benchmarks.interactions.pieces import Finding, Piece, Settings
from benchmarks.interactions.rows import ROWS
from benchmarks.store import Store


def piece(row, name):
    (found,) = (p for p in ROWS[row].pieces if p.name == name)
    return found


def test_a_piece_is_measured_in_a_process_of_its_own(tmp_path):
    settings = Settings(out=str(tmp_path))
    found = measure.measured(piece("synthetic 40", "seed 1 facts"), settings)
    assert found.values["bits"] == pytest.approx(3.5, abs=1e-3)


def test_what_cannot_be_measured_is_a_note(tmp_path, monkeypatch, capfd):
    settings = Settings(out=str(tmp_path), limit=5)
    monkeypatch.setenv("ALLOCATOR_FASHION_MNIST", str(tmp_path / "nowhere"))
    found = measure.measured(piece("real fashion-vit", "3 bits search"), settings)
    assert not found.values
    assert "make fashion-mnist-data" in found.note
    assert "Traceback" not in capfd.readouterr().err
    dying = Piece(row="no such row", name="x", measure=lambda _: Finding(), sources=())
    assert measure.measured(dying, settings).note == "its process ended with code 1"


def test_every_goal_has_its_row_and_some_figure():
    for goal in GOALS:
        assert goal.row in ROWS
        assert goal.least is not None or goal.most is not None
    figures = {goal.row for goal in GOALS}
    assert figures == set(ROWS)


def test_pieces_are_resumed_and_the_table_written(tmp_path, monkeypatch, capsys):
    calls = []

    def counted(piece, settings):
        calls.append(piece.name)
        known = {"problems": 5.0, "quadratic_hits": 5.0, "quadratic_valid": 4.0}
        known |= {"cvxpy_subspace_hits": 5.0, "cvxpy_subspace_valid": 5.0}
        return Finding(values=known | {"quadratic_proved": 5.0, "cvxpy_subspace_proved": 0.0})

    monkeypatch.setattr(run, "measured", counted)
    argv = ["--rows", "toy: seed [0-2]", "--out", str(tmp_path / "out")]
    assert run.main([*argv, "--write", str(tmp_path / "copy.md")]) == 0
    assert calls == ["seed 0", "seed 1", "seed 2"]
    assert "3 of 6 pieces to run" in capsys.readouterr().out
    assert run.main(argv) == 2
    assert "--resume goes on with it" in capsys.readouterr().err
    argv[1] = "toy"
    assert run.main([*argv, "--resume", "--write", str(tmp_path / "copy.md")]) == 0
    assert len(calls) == 6
    text = (tmp_path / "copy.md").read_text()
    assert "| quadratic: optima of 30 | toy | ≥ 30 | 30 | met |" in text
    assert "| quadratic: valid bounds of 30 | toy | ≥ 30 | 24 | 6 below (0.80×) |" in text
    assert "3 of 4 goals measured are met" in text
    assert text == (tmp_path / "out" / "goals.md").read_text()
    assert run.main([*argv, "--resume"]) == 0
    assert len(calls) == 6


def test_a_stale_piece_is_measured_again(tmp_path, monkeypatch):
    one = piece("chain 54", "graph")
    assert one.version(Settings(out="a", limit=1)) == one.version(Settings(out="b", limit=1))
    assert one.version(Settings(out="a", limit=1)) != one.version(Settings(out="a", limit=2))
    long = piece("synthetic 226", "seed 1 long")
    assert long.version(Settings(out="a", long=1)) != long.version(Settings(out="a", long=2))
    assert "allocator" not in long.sources
    monkeypatch.setattr(run, "measured", partial(lambda p, s: Finding(note="no luck")))
    store = Store(tmp_path / "results.jsonl")
    settings = Settings(out=str(tmp_path))
    assert "not measured: no luck" in run.measure(store, one, settings)
    verdicts = {v.goal.row: v for v in report.judge(store, settings)}
    assert verdicts["chain 54"].measured is None
    assert "no luck" in report.remarks(store, settings) or verdicts["chain 54"].distance.startswith("not measured")


def test_what_cannot_be_meant(capsys):
    assert run.main(["--rows", "nothing"]) == 2
    assert "see --list" in capsys.readouterr().err
    assert run.main(["--list", "--rows", "held-out"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 30
