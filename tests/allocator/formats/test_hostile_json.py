"""Damaged, absurd and hostile problem.json: always a ProblemError with places and reasons, never another exception."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from allocator.errors import ProblemError
from allocator.formats.digest import content_sha256
from allocator.formats.problems import load_problem
from allocator.formats.rows import problem_to_rows
from allocator.problem import Problem
from allocator.testing.depth import times

Path_ = tuple[str | int, ...]


class Pairs(list[Any]):
    """An object as a list of key and value, so that a key can stand twice."""


def paired(tree: Any) -> Any:
    if isinstance(tree, dict):
        return Pairs([key, paired(value)] for key, value in tree.items())
    return [paired(x) for x in tree] if isinstance(tree, list) else tree


class Literal(str):
    """Text that goes into the file as it stands."""

    __slots__ = ()


def written(tree: Any) -> str:
    if isinstance(tree, Literal):
        return str(tree)
    if isinstance(tree, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{written(value)}" for key, value in tree) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(map(written, tree)) + "]"
    return json.dumps(tree)


def nodes(tree: Any, path: Path_ = ()) -> list[Path_]:
    found = [path]
    if isinstance(tree, Pairs):
        for i, (_, value) in enumerate(tree):
            found += nodes(value, (*path, i))
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            found += nodes(value, (*path, i))
    return found


STRANGE: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    "",
    "x",
    "loss",
    [],
    Pairs(),
    [[]],
    ["a"],
    Pairs([["a", 1]]),
    -0.0,
    2**63,
    -(2**63) - 1,
    10**30,
    Literal("NaN"),
    Literal("Infinity"),
    Literal("-Infinity"),
    Literal("1e999"),
    Literal("-1e999"),
    Literal("1" + "0" * 400),
    Literal("1" * 5000),
    Literal("1e-999"),
    Literal("1e308"),
    Literal("-1.7976931348623157e308"),
    Literal("01"),
    Literal("+1"),
    Literal(".5"),
    Literal("0x10"),
    Literal("nul"),
    Literal("'x'"),
    Literal('"\\ud800"'),
    Literal('"\\u0000"'),
    Literal('"\\x"'),
    Literal('"a\nb"'),
    Literal(""),
    Literal(","),
    Literal("]"),
    Literal("}"),
    Literal("[" * 3000 + "]" * 3000),
    Literal('{"a":' * 3000 + "1" + "}" * 3000),
    Literal("[" * 200_000),
    "conv1",
    "int4",
    "weight_bytes",
    "ggn",
    ["conv1", "int4"],
    ["conv1", "int4", "x"],
    "max",
    "pnorm",
    "sum",
    Literal('"' + "y" * 100_000 + '"'),
]


def mutated(tree: Any, rng: Random) -> Any:
    """One change at a random place."""
    path = rng.choice(nodes(tree)[1:])
    parent = tree
    for step in path[:-1]:
        parent = parent[step][1] if isinstance(parent, Pairs) else parent[step]
    i = int(path[-1])
    change = rng.choice(["replace", "replace", "replace", "delete", "twice", "swap", "rename", "add"])
    if change == "delete":
        del parent[i]
    elif change == "twice":
        parent.insert(rng.randrange(len(parent) + 1), parent[i])
    elif change == "swap":
        j = rng.randrange(len(parent))
        parent[i], parent[j] = parent[j], parent[i]
    elif isinstance(parent, Pairs) and change == "rename":
        parent[i] = [rng.choice(["", "x", "x-y", "loss", "kind", "name", "é", "~/", "max"]), parent[i][1]]
    elif isinstance(parent, Pairs) and change == "add":
        parent.append(
            [rng.choice(["new", "min", "max", "tags", "p", "allowed", "label", "columns"]), rng.choice(STRANGE)]
        )
    elif isinstance(parent, Pairs):
        parent[i] = [parent[i][0], rng.choice(STRANGE)]
    else:
        parent[i] = rng.choice(STRANGE)
    return tree


def loaded(path: Path) -> Problem | ProblemError:
    try:
        return load_problem(path)
    except ProblemError as error:
        return error


def check(path: Path) -> str:
    """Loads it or is told why not; a problem that loads must be usable throughout."""
    problem = loaded(path)
    if isinstance(problem, ProblemError):
        assert 1 <= len(problem.faults) <= 100
        for fault in problem.faults:
            assert fault.pointer == "" or fault.pointer.startswith("/")
            assert fault.message.strip()
            assert len(fault.message) < 2000
        assert str(problem).startswith("not a valid problem: ")
        return "refused"
    outcome = problem.evaluate(np.zeros(problem.group_count, np.int64))
    assert math.isfinite(outcome.objective)
    assert outcome.violations is not None
    assert outcome.slack is not None
    assert problem.warnings is not None
    assert content_sha256(Problem.from_rows(problem_to_rows(problem))) == content_sha256(problem)
    return "taken"


def test_random_damage_to_a_good_file(tmp_path: Path, example: dict[str, Any]) -> None:
    rng = Random(0)
    results = {"taken": 0, "refused": 0}
    for _ in range(times(700)):
        tree = paired(example)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            tree = mutated(tree, rng)
        file = tmp_path / "p.json"
        file.write_text(written(tree))
        results[check(file)] += 1
    assert results["refused"] > times(300)
    assert results["taken"] > times(50)


def test_random_damage_to_bytes(tmp_path: Path, golden: Path) -> None:
    rng = Random(1)
    data = (golden / "example.json").read_bytes()
    file = tmp_path / "p.json"
    for _ in range(times(250)):
        kind = rng.choice(["cut", "flip", "drop", "insert", "double"])
        at = rng.randrange(len(data))
        if kind == "cut":
            new = data[:at]
        elif kind == "flip":
            new = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif kind == "drop":
            new = data[:at] + data[at + rng.randint(1, 40) :]
        elif kind == "insert":
            new = data[:at] + rng.choice([b"\x00", b"\xff\xfe", b"{", b'"', b"//", b"\xef\xbb\xbf"]) + data[at:]
        else:
            new = data + data[at:]
        file.write_bytes(new)
        check(file)


@pytest.mark.parametrize("depth", [10, 900, 950, 980, 990, 1000, 1010, 5000, 100_000])
@pytest.mark.parametrize("place", ["meta", "version", "groups", "x-deep", "unknown"])
def test_deep_nesting_is_refused_or_read(depth: int, place: str, tmp_path: Path, example: dict[str, Any]) -> None:
    text = written(paired({key: value for key, value in example.items() if key != place}))
    (tmp_path / "p.json").write_text(text[:-1] + f',"{place}":' + "[" * depth + "]" * depth + "}")
    problem = loaded(tmp_path / "p.json")
    if isinstance(problem, ProblemError):
        assert problem.faults[0].message
    else:
        assert place in ("meta", "x-deep")
        assert problem.group_count == 6


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"{", "the file looks truncated"),
        (b'{"format": "allocation-prob', "the file looks truncated"),
        (b"\xff\xfe{}", "is not UTF-8 text (byte 0)"),
        (b"[]", "must be one JSON object"),
        (b"null", "must be one JSON object"),
        (b"7", "must be one JSON object"),
        (b"{} {}", "is not JSON: Extra data at line 1, column 4"),
        (b"{'a': 1}", "is not JSON: Expecting property name"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        (b'{"a": 1, "a": 2}', "stands twice in one object"),
        (b"{}", 'is missing; expected "allocation-problem"'),
        (b'{"format": "allocation-solution", "version": 1}', 'is "allocation-solution"; expected "allocation-problem"'),
        (b'{"format": "allocation-problem", "version": 2}', "is 2; expected 1"),
        (b'{"format": "allocation-problem", "version": true}', "is true; expected 1"),
        (b'{"format": "allocation-problem", "version": 1}', "is missing; give groups"),
        (b'{"format": "allocation-problem", "version": 1, "groups": []}', "there are no groups"),
    ],
    ids=lambda x: x[:30] if isinstance(x, bytes) else "",
)
def test_what_is_no_problem_file_says_why(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_bytes(data)
    with pytest.raises(ProblemError) as caught:
        load_problem(tmp_path / "p.json")
    assert message in str(caught.value)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_none_is_found(constant: str, tmp_path: Path, example: dict[str, Any]) -> None:
    tree = paired(example)
    text = written(tree).replace('"first_order":0.0105', f'"first_order":{constant}')
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ProblemError) as caught:
        load_problem(tmp_path / "p.json")
    assert caught.value.faults[0].pointer == "/groups/0/choices/0/score/first_order"
    assert caught.value.faults[0].message == f"is {constant}; numbers must be finite"


def test_a_key_that_stands_twice_is_found_wherever_it_is(tmp_path: Path, example: dict[str, Any]) -> None:
    rng = Random(4)
    for _ in range(40):
        tree = paired(example)
        objects = [p for p in nodes(tree) if isinstance(_at(tree, p), Pairs) and _at(tree, p)]
        target = _at(tree, rng.choice(objects))
        key = rng.choice(target)[0]
        target.append([key, 1])
        (tmp_path / "p.json").write_text(written(tree))
        with pytest.raises(ProblemError) as caught:
            load_problem(tmp_path / "p.json")
        (fault,) = caught.value.faults
        assert fault.pointer.endswith("/" + key.replace("~", "~0").replace("/", "~1"))
        assert fault.message == "stands twice in one object; remove or rename one"


def _at(tree: Any, path: Path_) -> Any:
    for step in path:
        tree = tree[step][1] if isinstance(tree, Pairs) else tree[step]
    return tree
