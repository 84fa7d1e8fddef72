"""Rows, columns and JSON say the same thing: whatever is written reads back as the same problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allocator.errors import ProblemError
from allocator.formats.digest import content_sha256
from allocator.formats.problems import load_problem, save_problem
from allocator.formats.rows import problem_to_rows
from allocator.problem import Problem
from allocator.statement import Basis, Pairs
from allocator.testing.depth import times
from allocator.testing.reference import Reference
from allocator.testing.strategies import documents

QUICK = settings(max_examples=times(40), suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(first: Problem, second: Problem) -> None:
    """Equal in everything that can be told."""
    assert content_sha256(first) == content_sha256(second)
    assert problem_to_rows(first) == problem_to_rows(second)
    assert [g.name for g in first.groups] == [g.name for g in second.groups]
    for choice in (np.zeros(first.group_count, np.int64), first.sizes - 1):
        one, two = first.evaluate(choice), second.evaluate(choice)
        assert (one.loss, one.totals, one.violations, one.slack) == (two.loss, two.totals, two.violations, two.slack)


@given(documents(most_allocations=40))
@settings(max_examples=times(70))
def test_rows_come_back(rows: dict[str, Any]) -> None:
    problem = Problem.from_rows(rows)
    again = Problem.from_rows(problem_to_rows(problem))
    same(problem, again)
    assert problem_to_rows(problem)["groups"] == rows_with_defaults(rows)["groups"]
    for key in ("generator", "provenance", "meta", "x-mine", "reference", "requires"):
        assert problem_to_rows(problem).get(key) == rows.get(key)


def rows_with_defaults(rows: dict[str, Any]) -> dict[str, Any]:
    """As the writer puts it: no empty tags or modules, no zero errors, no `allowed: true`; the rest as it was."""
    out = json.loads(json.dumps(rows))
    for group in out["groups"]:
        for key in ("modules", "tags", "stats"):
            if not group.get(key):
                group.pop(key, None)
        for choice in group["choices"]:
            for key in ("stderr", "remainder"):
                kept = {s: v for s, v in choice.pop(key, {}).items() if v}
                if kept:
                    choice[key] = kept
            if choice.get("allowed", True):
                choice.pop("allowed", None)
    return out  # type: ignore[no-any-return]  # json.loads gives Any


@given(documents(most_allocations=40))
@QUICK
def test_json_comes_back(tmp_path: Path, rows: dict[str, Any]) -> None:
    problem = Problem.from_rows(rows)
    save_problem(problem, tmp_path / "p.json")
    again = load_problem(tmp_path / "p.json")
    same(problem, again)
    assert json.loads((tmp_path / "p.json").read_text()) == problem_to_rows(problem)


@given(documents(most_allocations=40))
@QUICK
def test_columns_come_back(tmp_path: Path, rows: dict[str, Any]) -> None:
    problem = Problem.from_rows(rows)
    given_to = [sum("stats" in g for g in rows["groups"])]
    if 0 < given_to[0] < len(rows["groups"]):
        with pytest.raises(ProblemError, match="stat 'alpha' is missing in some groups"):
            save_problem(problem, tmp_path / "p.json", columns=True)
        return
    save_problem(problem, tmp_path / "p.json", columns=True)
    again = load_problem(tmp_path / "p.json")
    same(problem, again)
    save_problem(again, tmp_path / "q.json")
    same(problem, load_problem(tmp_path / "q.json"))


@given(documents(most_allocations=40))
@QUICK
def test_the_same_problem_gives_the_same_files(tmp_path: Path, rows: dict[str, Any]) -> None:
    for group in rows["groups"]:
        group.pop("stats", None)
    for name in ("a", "b"):
        save_problem(Problem.from_rows(rows), tmp_path / f"{name}.json")
        (tmp_path / name).mkdir(exist_ok=True)
        save_problem(Problem.from_rows(rows), tmp_path / name / "p.json", columns=True)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a" / "p.npz").read_bytes() == (tmp_path / "b" / "p.npz").read_bytes()
    assert (tmp_path / "a" / "p.json").read_bytes() == (tmp_path / "b" / "p.json").read_bytes()


@given(documents(most_allocations=40), st.randoms(use_true_random=False))
@settings(max_examples=times(50))
def test_the_hash_sees_every_number_and_no_note(rows: dict[str, Any], rng: Any) -> None:
    before = content_sha256(Problem.from_rows(rows))
    for key in ("meta", "provenance", "generator", "x-mine", "x-null"):
        rows.pop(key, None)
    assert content_sha256(Problem.from_rows(rows)) == before
    group = rng.choice(rows["groups"])
    choice = rng.choice(group["choices"])
    change = rng.choice(["cost", "score", "weights", "action", "tags", "budget", "unit"])
    if change == "cost":
        choice["cost"]["bytes"] += 1 + abs(choice["cost"]["bytes"])
    elif change == "score":
        choice["score"]["s"] += 1 + abs(choice["score"]["s"])
    elif change == "weights":
        group["weights"] = 12345
    elif change == "action":
        choice["action"] = {"kind": "new"}
    elif change == "tags":
        group["tags"] = [*group.get("tags", []), "new"]
    elif change == "budget":
        rows["budgets"] = [*rows["budgets"], {"resource": "bytes", "max": 123456789}]
    else:
        rows["resources"]["bytes"]["unit"] = "bit"
    assert content_sha256(Problem.from_rows(rows)) != before


def test_the_hash_sees_every_number_of_the_example(example: dict[str, Any]) -> None:
    before = content_sha256(Problem.from_rows(example))
    places = [p for p in leaves(example) if p[0] not in ("meta", "generator", "format", "version")]
    assert len(places) > 400
    for path in [*places[::4], *(p for p in places if p[0] in ("interactions", "budgets", "couplings"))]:
        target: Any = example
        for step in path[:-1]:
            target = target[step]
        old = target[path[-1]]
        if isinstance(old, str | bool):
            continue
        target[path[-1]] = old * 2 + 1 if path[-1] != "bits" else 3
        assert content_sha256(Problem.from_rows(example)) != before, path
        target[path[-1]] = old


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(tree, dict | list):
        return [path]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [leaf for key, value in items for leaf in leaves(value, (*path, key))]


def test_the_order_of_names_within_choices_does_not_matter(example: dict[str, Any]) -> None:
    other = json.loads(json.dumps(example))
    for group in other["groups"]:
        for choice in group["choices"]:
            for part in ("cost", "score"):
                choice[part] = dict(reversed(choice[part].items()))
    assert content_sha256(Problem.from_rows(example)) == content_sha256(Problem.from_rows(other))


def test_equal_actions_hash_equal_however_the_table_lists_them(tmp_path: Path, example: dict[str, Any]) -> None:
    problem = Problem.from_rows(example)
    assert problem.action_code is not None
    table = (*problem.action_table, dict(problem.action_table[0]), {"kind": "unused"})
    codes = problem.action_code.copy()
    codes[np.flatnonzero(codes == 0)[1:]] = len(problem.action_table)
    other = problem.replace(action_table=table, action_code=codes)
    assert content_sha256(other) == content_sha256(problem)
    save_problem(other, tmp_path / "p.json", columns=True)
    assert content_sha256(load_problem(tmp_path / "p.json")) == content_sha256(problem)


def test_minus_zero_is_zero(tmp_path: Path) -> None:
    problem = Problem.from_arrays(np.array([[0.0, 1.0]]), np.array([[1.0, 2.0]]))
    minus = Problem.from_arrays(np.array([[-0.0, 1.0]]), np.array([[1.0, 2.0]]))
    vectors = np.array([[-0.0], [1.0]])
    assert content_sha256(problem) == content_sha256(minus)
    bent = minus.replace(interactions=(Basis("score", np.array([1.0]), vectors),))
    same(bent, Problem.from_rows(problem_to_rows(bent)))


def test_empty_interactions_come_back(tmp_path: Path, example: dict[str, Any]) -> None:
    problem = Problem.from_rows(example | {"interactions": []})
    empty = (
        Pairs("ggn", np.zeros((0, 2), np.int64), np.zeros(0)),
        Basis("ggn", np.zeros(0), np.zeros((problem.choice_count, 0))),
    )
    problem = problem.replace(interactions=empty)
    save_problem(problem, tmp_path / "c.json", columns=True)
    save_problem(problem, tmp_path / "r.json")
    for name in ("c", "r"):
        again = load_problem(tmp_path / f"{name}.json")
        assert len(again.interactions) == 2
        assert content_sha256(again) == content_sha256(problem)


def test_single_precision_vectors_hash_as_their_values(tmp_path: Path, example: dict[str, Any]) -> None:
    problem = Problem.from_rows(example)
    basis = problem.interactions[0]
    assert isinstance(basis, Basis)
    single = problem.replace(interactions=(Basis("ggn", basis.eigenvalues, basis.vectors.astype(np.float32)),))
    save_problem(single, tmp_path / "p.json", columns=True)
    again = load_problem(tmp_path / "p.json")
    part = again.interactions[0]
    assert isinstance(part, Basis)
    assert part.vectors.dtype == np.float32
    same(single, again)


def test_what_the_columns_cannot_hold_is_refused_by_name(tmp_path: Path, example: dict[str, Any]) -> None:
    example["pins"], example["couplings"], example["interactions"] = {}, [], []
    example["groups"][0]["name"] = "two\nlines"
    with pytest.raises(ProblemError, match="a group name with a line break"):
        save_problem(Problem.from_rows(example), tmp_path / "p.json", columns=True)
    example["groups"][0]["name"] = "one"
    for group in example["groups"]:
        for choice in group["choices"]:
            choice["cost"]["a\0b"] = 1
    with pytest.raises(ProblemError, match="zero byte"):
        save_problem(Problem.from_rows(example), tmp_path / "p.json", columns=True)
    assert not list(tmp_path.iterdir())


def test_columns_of_two_files_cannot_go_to_standard_output(example: dict[str, Any]) -> None:
    from allocator.errors import UsageError

    with pytest.raises(UsageError, match="two files"):
        save_problem(Problem.from_rows(example), "-", columns=True)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, example: dict[str, Any]) -> None:
    from allocator.formats.files import replacing

    target = tmp_path / "p.json"
    target.write_text("old")

    def fail() -> None:
        with replacing(target) as stream:
            stream.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]


def test_the_schema_takes_what_the_reader_takes(example: dict[str, Any]) -> None:
    from allocator.formats.schema import schema

    made = schema("problem")
    assert set(made["properties"]) >= set(example)
    assert msgspec.json.encode(made)


def test_the_reference_reads_what_the_writer_wrote(example: dict[str, Any]) -> None:
    first, again = Reference(example), Reference(problem_to_rows(Problem.from_rows(example)))
    for places in list(first.allocations())[::37]:
        assert first.loss(places) == again.loss(places)
        assert first.violations(places) == again.violations(places)
