"""Frontier files: what is written is read again, and a file that does not fit is refused with its place."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import allocator
from allocator.errors import ProblemError, UnsupportedError, UsageError
from allocator.formats.archive import read_arrays, write_arrays
from allocator.testing.random_problems import DETAILS, random_rows

FIELDS = ("base", "group", "choice", "costs", "objectives", "multipliers", "steps", "hull", "optimal", "gaps")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("frontiers")


@pytest.fixture
def problem():
    loss, cost = np.array([[5.0, 2, 1], [4, 1.5, 0.2]]), np.array([[1, 2, 4], [1, 3, 4]])
    return allocator.Problem.from_arrays(loss, cost, group_names=["a", "b"], choice_names=["x", "y", "z"])


@given(seed=st.integers(0, 10**6), exact=st.booleans())
def test_round_trip(folder, seed, exact):
    made = allocator.Problem.from_rows(random_rows(seed, DETAILS | {"pins", "same_choice"}, most_allocations=40))
    try:
        curve = allocator.frontier(made, "bytes", **({"exact": True, "points": 6} if exact else {}))
    except UnsupportedError:
        return
    for name in ("f.npz", "f.json"):
        curve.save(folder / name)
        again = allocator.load_frontier(folder / name, made)
        assert list(again) == list(curve)
        assert (again.resource, again.limit, again.reasons) == (curve.resource, curve.limit, curve.reasons)
        assert again.costs.dtype == curve.costs.dtype
        for i in range(len(curve)):
            assert again.allocation(i).tolist() == curve.allocation(i).tolist()
    bare = allocator.load_frontier(folder / "f.npz")
    assert list(bare) == list(curve)
    for name in FIELDS:
        one, other = getattr(curve, name), getattr(bare, name)
        assert (one is None) == (other is None)
        assert one is None or np.array_equal(one, other, equal_nan=name in ("multipliers", "gaps"))


def test_equal_frontiers_give_equal_bytes(tmp_path, problem):
    for name in ("a.npz", "b.npz", "a.json", "b.json"):
        allocator.frontier(problem).save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_json_names_what_changes(tmp_path, problem):
    allocator.frontier(problem, exact=True, gap=0).save(tmp_path / "f.json")
    shown = json.loads((tmp_path / "f.json").read_text())
    assert shown["base"] == {"a": "x", "b": "x"}
    assert [p["changes"] for p in shown["points"]] == [{}, {"a": "y"}, {"b": "y"}, {"b": "z"}, {"a": "z"}]
    assert [p["kind"] for p in shown["points"]] == ["hull", "hull", "exact", "hull", "hull"]


def test_without_the_problem_indices_are_known_and_names_are_not(tmp_path, problem):
    curve = allocator.frontier(problem)
    curve.save(tmp_path / "f.npz")
    curve.save(tmp_path / "f.json")
    bare = allocator.load_frontier(tmp_path / "f.npz")
    assert bare.at(6).tolist() == [1, 2]
    with pytest.raises(UsageError, match="without its problem"):
        bare.solution(0)
    with pytest.raises(UsageError, match="names need the problem"):
        bare.save(tmp_path / "g.json")
    with pytest.raises(UsageError, match="needs the problem"):
        allocator.load_frontier(tmp_path / "f.json")
    bare.save(tmp_path / "g.npz")
    assert allocator.load_frontier(tmp_path / "g.npz", problem).solution(0).status == "optimal"


def test_a_file_of_another_problem_is_refused(tmp_path, problem):
    other = problem.with_scores({"score": problem.scores["score"] + 1})
    for name in ("f.npz", "f.json"):
        allocator.frontier(problem).save(tmp_path / name)
        with pytest.raises(ProblemError, match="another content hash"):
            allocator.load_frontier(tmp_path / name, other)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("base", lambda a: a.astype(np.int64), "expected int32"),
        ("base", lambda a: a + 5, "does not have"),
        ("base", lambda a: a[:1], "outside 0 … 0"),
        ("group", lambda a: a + 2, "outside 0 … 1"),
        ("group", lambda a: a - 1, "outside 0 … 1"),
        ("group", lambda a: a[:1], "do not count the same changes"),
        ("choice", lambda a: a + 3, "does not have"),
        ("choice", lambda a: -a, "does not have"),
        ("costs", lambda a: a[::-1], "costs must rise"),
        ("costs", lambda a: a[:-1], "entries for"),
        ("objectives", lambda a: -a, "costs must rise"),
        ("objectives", lambda a: a * np.nan, "finite"),
        ("multipliers", lambda a: a[:2], "entries for"),
        ("head", lambda a: a[:-4], "not JSON"),
        ("head", lambda _: None, "is missing"),
        ("new", lambda _: np.zeros(3), "not an array of the format"),
        ("steps", lambda _: np.array([0, 1, 2, 9]), "do not count"),
    ],
)
def test_damaged_arrays_are_refused(tmp_path, problem, name, change, message):
    path = tmp_path / "f.npz"
    allocator.frontier(problem).save(path)
    arrays = read_arrays(path.read_bytes(), "f.npz")
    arrays[name] = change(arrays.get(name))
    path.write_bytes(write_arrays({k: v for k, v in arrays.items() if v is not None}))
    with pytest.raises(ProblemError, match=message):
        allocator.load_frontier(path, problem)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (lambda d: d | {"resource": "gold"}, "/resource"),
        (lambda d: d | {"base": {"a": "x"}}, "/base"),
        (lambda d: d | {"base": {"a": "x", "c": "x"}}, "/base"),
        (lambda d: d | {"version": 2}, "/version"),
        (lambda d: d | {"points": [{}]}, "/points/0"),
        (lambda d: d | {"points": [d["points"][0] | {"changes": {"a": "w"}}]}, "/points/0"),
        (lambda d: d | {"points": d["points"][::-1]}, "frontier:costs"),
        (lambda d: d | {"colour": "red"}, "/colour"),
    ],
)
def test_damaged_json_is_refused(tmp_path, problem, change, pointer):
    path = tmp_path / "f.json"
    allocator.frontier(problem).save(path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ProblemError) as error:
        allocator.load_frontier(path, problem)
    assert error.value.faults[0].pointer.startswith(pointer)
