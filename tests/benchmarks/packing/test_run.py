"""The command on a small matrix: rows are kept and judged, both ways are measured, nonsense is refused."""

import pytest

from benchmarks.packing import goals, memory, report, run, speed
from benchmarks.store import Line


def test_every_goal_has_its_rows():
    for goal in goals.GOALS:
        assert set(goals.WIDTHS.get(goal.row, (goal.row,))) <= set(goals.ROWS)
    assert all(len(names) == (1 if "float" in width else 6) for width, names in goals.WIDTHS.items())


def test_rows_are_measured_and_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed, "SHAPE", (16, 64))
    argv = ["--out", str(tmp_path), "--rows", "1 bits sym*,float16,small", "--resume"]
    assert run.main(argv) == 0
    captured = capsys.readouterr()
    assert "[1/5] float16" in captured.err
    assert "not measured: 3 of 6 rows are there" in captured.out
    assert "1 bits symmetric tensor" in captured.out
    assert run.main(argv) == 0
    assert not capsys.readouterr().err
    assert run.main(argv[:-1]) == 2


def test_what_is_not_there_is_refused(tmp_path, capsys):
    assert run.main(["--out", str(tmp_path), "--rows", "9 bits"]) == 2
    assert "nothing matches" in capsys.readouterr().err


def test_the_slowest_row_of_a_width_counts():
    names = goals.WIDTHS["3 bits"]
    kept = {
        name: Line(name=name, network="", version="", values={"pack": 1.0 + i, "unpack": 0.4 + i})
        for i, name in enumerate(names)
    }
    told = {v.goal.value: v for v in report.judge(kept) if v.goal.row == "3 bits"}
    assert (told["pack"].measured, told["pack"].met) == (1.0, True)
    assert (told["unpack"].measured, told["unpack"].met) == (0.4, False)


def test_looking_rows_up_gives_both_times():
    assert set(memory.lookup()) == {"rows_ms", "whole_ms"}


@pytest.mark.parametrize("name", ["3 bits asymmetric tensor", "1 bits symmetric channel"])
def test_a_row_has_the_speeds_of_both_ways(name, monkeypatch):
    monkeypatch.setattr(speed, "SHAPE", (16, 64))
    found = speed.speeds(speed.actions()[name])
    assert {"pack", "unpack", "pack_torch", "unpack_torch", "pack_first", "unpack_first"} <= set(found)
    assert ("unpack_numpy" in found) == (name[0] == "1")
