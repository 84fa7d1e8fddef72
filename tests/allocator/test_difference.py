"""What differs between two solutions or two problems."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator import Problem, load_problem, solve
from allocator.difference import between_problems, between_solutions
from allocator.errors import UsageError
from allocator.formats.problems import parse_problem
from allocator.formats.solutions import load_solution
from allocator.formats.types import SolutionFile

EXAMPLE = Path(__file__).parents[1] / "golden/example.json"


@pytest.fixture(scope="module")
def rows():
    return json.loads(EXAMPLE.read_text())


def changed(rows, change):
    other = copy.deepcopy(rows)
    change(other)
    return between_problems(Problem.from_rows(rows), Problem.from_rows(other))


def test_a_problem_is_the_same_as_itself(rows):
    found = between_problems(load_problem(EXAMPLE), parse_problem(EXAMPLE.read_bytes(), None))
    assert found.same
    assert found.to_json() == {
        "kind": "problem", "same": True, "fields": [], "only_first": [], "only_second": [], "columns": {}
    }  # fmt: skip


@given(data=st.data())
def test_the_order_of_groups_and_choices_does_not_count(data):
    rows = {
        "format": "allocation-problem", "version": 1, "scores": {"s": {}}, "resources": {"r": {}},
        "loss": {"terms": {"s": 1}},
        "groups": [
            {"name": g, "choices": [{"name": c, "cost": {"r": i}, "score": {"s": i / 2}} for i, c in enumerate("uvw")]}
            for g in "abcd"
        ],
    }  # fmt: skip
    other = copy.deepcopy(rows)
    other["groups"] = data.draw(st.permutations(other["groups"]))
    for group in other["groups"]:
        group["choices"] = data.draw(st.permutations(group["choices"]))
    assert between_problems(Problem.from_rows(rows), Problem.from_rows(other)).same


def test_numbers_that_moved_are_counted_and_the_farthest_is_named(rows):
    group = rows["groups"][1]
    name = next(iter(group["choices"][0]["score"]))

    def change(other):
        other["groups"][0]["choices"][0]["score"][name] += 0.25
        other["groups"][1]["choices"][1]["score"][name] -= 0.5

    found = changed(rows, change)
    moved = found.columns[f"score {name}"]
    assert (moved.differ, moved.group, moved.choice) == (2, group["name"], group["choices"][1]["name"])
    assert moved.pair[1] - moved.pair[0] == pytest.approx(-0.5)
    assert moved.of == sum(len(g["choices"]) for g in rows["groups"])
    assert list(found.columns) == [f"score {name}"]
    assert found.fields == []
    assert not found.same


def test_the_difference_is_told_in_standard_errors(rows):
    before, after = copy.deepcopy(rows), copy.deepcopy(rows)
    name = next(iter(rows["groups"][0]["choices"][0]["score"]))
    for side, spread, by in ((before, 0.3, 0.0), (after, 0.4, 0.75)):
        choice = side["groups"][0]["choices"][0]
        choice["score"][name] += by
        choice["stderr"] = {**choice.get("stderr", {}), name: spread}
    found = between_problems(Problem.from_rows(before), Problem.from_rows(after))
    assert found.columns[f"score {name}"].deviations == pytest.approx(0.75 / 0.5)
    assert found.columns[f"stderr {name}"].deviations is None


def test_what_only_one_problem_has_is_named(rows):
    gone = rows["groups"][0]["choices"][0]["name"]

    def change(other):
        other["groups"][0]["choices"][0]["name"] = "renamed"
        other["groups"][1]["name"] = "elsewhere"
        for key in ("pins", "couplings", "reference", "interactions", "budgets"):
            other.pop(key, None)

    before = copy.deepcopy(rows)
    for key in ("pins", "couplings", "reference", "interactions", "budgets"):
        before.pop(key, None)
    found = changed(before, change)
    assert found.only == (
        [rows["groups"][1]["name"], f"{rows['groups'][0]['name']}: {gone}"],
        ["elsewhere", f"{rows['groups'][0]['name']}: renamed"],
    )


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("budgets", lambda p: p["budgets"].clear()),
        ("x-note", lambda p: p.update({"x-note": 1})),
        ("tags", lambda p: p["groups"][0].update(tags=["odd one"])),
        ("action", lambda p: p["groups"][0]["choices"][0].update(action={"kind": "keep", "dtype": "float16"})),
        ("allowed", lambda p: p["groups"][0]["choices"][-1].update(allowed=False)),
        ("label", lambda p: p["groups"][0]["choices"][-1].update(label="another")),
        ("weights", lambda p: p["groups"][0].update(weights=12345)),
        ("interactions", lambda p: p["interactions"].clear()),
    ],
)
def test_parts_of_the_statement_are_named(rows, key, change):
    assert key in changed(rows, change).fields


def test_solutions(rows, tmp_path):
    problem = load_problem(EXAMPLE)
    first = solve(problem)
    first.save(tmp_path / "a.json")
    again = solve(problem)
    again.save(tmp_path / "b.json")
    one, other = (load_solution(tmp_path / f"{name}.json") for name in "ab")
    assert one.run != other.run  # which says when, and does not count
    assert between_solutions(one, other).same
    group, choice = next(iter(other.choices.items()))
    other.choices[group] = "another"
    other.loss += 1
    other.solver["name"] = "someone"
    found = between_solutions(one, other)
    assert found.choices == {group: (choice, "another")}
    assert found.fields == {"loss": (one.loss, other.loss), "solver.name": (one.solver["name"], "someone")}
    assert found.groups == len(one.choices)
    assert found.to_json()["choices"] == {group: [choice, "another"]}


def test_another_action_under_the_same_name_is_told():
    one, other = (
        SolutionFile(
            format="allocation-solution", version=1, status="feasible", choices={"g": "int4", "h": h},
            actions={g: {"kind": "quantize", "bits": 4, "method": method} for g in "gh"},
        )
        for h, method in (("a", "rtn"), ("b", "gptq"))
    )  # fmt: skip
    found = between_solutions(one, other)
    assert list(found.fields) == ["actions.g"]
    assert list(found.choices) == ["h"]


def test_a_solution_without_names_is_refused():
    bare = SolutionFile(format="allocation-solution", version=1, status="optimal")
    with pytest.raises(UsageError, match="holds no names"):
        between_solutions(bare, bare)
