"""Points survive the disk, and tables say of them what they hold."""

import numpy as np
import pytest

from allocator.methods.judging import Judged
from benchmarks.compression import report
from benchmarks.compression.curves import Task, tasks
from benchmarks.compression.menus import JOINT
from benchmarks.compression.points import Point
from benchmarks.compression.subjects import SUBJECTS

RESNEXT, MINILM = SUBJECTS["fashion-resnext"], SUBJECTS["minilm"]


def point(kl, right, size=100, pairs=None):
    """Of the divergences and hits of some samples; the float network has them all right but the first."""
    kl, right = np.asarray(kl, float), np.asarray(right, float)
    ones, hits = np.ones(len(kl)), np.ones(len(kl))
    hits[0] = 0
    original = Judged({"accuracy": hits}, {"accuracy": ones})
    judged = Judged({"kl": kl, "accuracy": right}, {"kl": ones, "accuracy": ones}, original)
    return Point(size, 800, judged, {"quantize 2": 3, "cp": 1}, pairs)


def test_a_point_is_read_as_it_was_written(tmp_path):
    pairs = np.arange(12.0).reshape(3, 4)
    for one in (point([0.1, 0.2], [1, 0]), point([0.1, 0.2], [1, 0], pairs=pairs)):
        one.save(tmp_path / "a" / "point.npz")
        again = Point.load(tmp_path / "a" / "point.npz")
        assert (again.bytes, again.whole, again.choices) == (one.bytes, one.whole, one.choices)
        assert again.times_fewer == 8
        for mine, theirs in ((one.judged, again.judged), (one.judged.original, again.judged.original)):
            assert mine.sums.keys() == theirs.sums.keys()
            assert all(np.array_equal(mine.sums[name], theirs.sums[name]) for name in mine.sums)
        assert (again.pairs is None) == (one.pairs is None)
    assert np.array_equal(again.pairs, pairs)


def test_rows_say_what_was_lost_and_duels_who_won(tmp_path, capsys):
    rng = np.random.default_rng(0)
    base = 0.01 + 0.001 * rng.random(400)
    hits = np.ones(400)
    found = {
        Task(RESNEXT, "ranks", 8.0): point(2 * base, hits),
        Task(RESNEXT, "bits", 8.0): point(3 * base, hits - (np.arange(400) < 40)),
        Task(RESNEXT, JOINT, 8.0): point(base, hits),
        Task(RESNEXT, "ranks", 11.0): point(base, hits),
        Task(RESNEXT, JOINT, 11.0): point(base + rng.normal(size=400) * 0.01, hits),
    }
    places = {task: tmp_path / f"{place}.npz" for place, task in enumerate(found)}
    for task, one in found.items():
        one.save(places[task])
    missing = Task(RESNEXT, JOINT, 24.0)
    report.write([*found, missing], lambda task: places.get(task, tmp_path / "none"), tmp_path, None)
    said = capsys.readouterr().out
    lines = {tuple(line.split()[:2]): line for line in said.splitlines() if line}
    assert "+0.0025 ± 0.0025" in lines["ranks", "8×"]  # the float network errs once, these never
    assert " yes " in lines["ranks", "8×"]
    assert " no " in lines["bits", "8×"]
    assert "cp 1, quantize 2 3" in lines["bits", "8×"]
    assert lines["8", "ranks"].endswith("better")
    assert lines["11", "ranks"].endswith("not separated")
    assert (tmp_path / "compression-fashion-resnext.png").stat().st_size > 10_000
    assert "## fashion-resnext" in (tmp_path / "compression-tables.md").read_text()


def test_correlations_are_judged_by_pairs(tmp_path):
    given = np.linspace(0, 1, 50)
    pairs = np.stack([given, given[::-1], given])
    line = report.shown(Task(MINILM, "bits", 5.0), point([0.1] * 50, [1] * 50, pairs=pairs))
    assert "spearman -1.0000" in line
    assert "(-2.0000 ± 0)" in line


def test_names_of_points_are_their_own():
    names = [task.name for task in tasks()]
    assert len(set(names)) == len(names)
    assert {task.recovered for task in tasks() if "recovered" in task.name} == {True}
    assert not any(task.recovered for task in tasks() if "recovered" not in task.name)


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_kinds_are_of_the_package(subject):
    assert set(subject.kinds) <= set(report.KINDS)
