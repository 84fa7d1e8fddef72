"""Damaged, absurd and hostile problem.json: always a ProblemError with places and reasons, never another exception."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from allocator.errors import ProblemError, UsageError
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
    None, True, False, 0, -1, 1.5, "", "x", "loss", [], Pairs(), [[]], ["a"], Pairs([["a", 1]]), -0.0, 2**63, -(2**63) - 1, 10**30,
    Literal("NaN"), Literal("Infinity"), Literal("-Infinity"), Literal("1e999"), Literal("-1e999"), Literal("1" + "0" * 400),
    Literal("1" * 5000), Literal("1e-999"), Literal("1e308"), Literal("-1.7976931348623157e308"), Literal("01"), Literal("+1"), Literal(".5"),
    Literal("0x10"), Literal("nul"), Literal("'x'"), Literal('"\\ud800"'), Literal('"\\u0000"'), Literal('"\\x"'), Literal('"a\nb"'),
    Literal(""), Literal(","), Literal("]"), Literal("}"), Literal("[" * 3000 + "]" * 3000), Literal('{"a":' * 3000 + "1" + "}" * 3000),
    Literal("[" * 200_000), "conv1", "int4", "weight_bytes", "ggn", ["conv1", "int4"], ["conv1", "int4", "x"], "max", "pnorm", "sum",
    Literal('"' + "y" * 100_000 + '"'),
]  # fmt: skip


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


def check(path: Path) -> str:
    """Loads it or is told why not; a problem that loads must be usable throughout."""
    try:
        problem = load_problem(path)
    except ProblemError as error:
        assert 1 <= len(error.faults) <= 100
        for fault in error.faults:
            assert isinstance(fault.pointer, str)
            assert fault.pointer == "" or fault.pointer.startswith("/") or fault.pointer.startswith("problem.npz")
            assert fault.message.strip()
            assert len(fault.message) < 2000
        assert str(error).startswith("not a valid problem: ")
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
    try:
        problem = load_problem(tmp_path / "p.json")
    except ProblemError as error:
        assert error.faults[0].message
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


def _set(path: str, value: Any) -> Any:
    def change(rows: dict[str, Any]) -> None:
        *walk, last = [int(p) if p.isdigit() else p.replace("~1", "/") for p in path.split("/")[1:]]
        target: Any = rows
        for step in walk:
            target = target[step]
        if value is KeyError:
            del target[last]
        else:
            target[last] = value

    return change


def _append(path: str, value: Any) -> Any:
    def change(rows: dict[str, Any]) -> None:
        target: Any = rows
        for step in path.split("/")[1:]:
            target = target[int(step) if step.isdigit() else step]
        target.append(value)

    return change


C0 = "/groups/0/choices/1"
WORDING: list[tuple[str, Any, str, str]] = [
    ("string for a cost", _set(f"{C0}/cost/weight_bytes", "9"), f"{C0}/cost/weight_bytes", "must be int | float, not str"),
    ("null for a score", _set(f"{C0}/score/ggn", None), f"{C0}/score/ggn", "must be float, not null"),
    ("missing score", _set(f"{C0}/score", KeyError), f"{C0}/score", "is missing"),
    ("one score less", _set(f"{C0}/score/ggn", KeyError), f"{C0}/score/ggn", "every choice needs the same names"),
    ("one cost more", _set(f"{C0}/cost/ram", 3), f"{C0}/cost/ram", "is not in the first choice; give it to all"),
    ("unknown key", _set("/group", []), "/group", "is not a key of the format; free keys start with 'x-'"),
    ("unknown key inside", _set(f"{C0}/costs", {}), f"{C0}/costs", "is not a key here; known: name, cost, score"),
    ("twice a group name", _set("/groups/1/name", "conv1"), "/groups/1/name", "'conv1' is already the name of group 0"),
    ("twice a choice name", _set(f"{C0}/name", "int2"), f"{C0}/name", "'int2' is used twice in group 'conv1'"),
    ("empty name", _set("/groups/0/name", ""), "/groups/0/name", "must be str of length >= 1"),
    ("no choices", _set("/groups/0/choices", []), "/groups/0/choices", "is empty; at least 1 needed"),
    ("negative stderr", _set(f"{C0}/stderr/ggn", -1), f"{C0}/stderr/ggn", "must be float >= 0.0"),
    ("stderr of nothing", _set(f"{C0}/stderr/kl", 1), f"{C0}/stderr/kl", "is no score of this choice"),
    ("action without kind", _set(f"{C0}/action", {"bits": 4}), f"{C0}/action/kind", "an action names its kind"),
    ("unknown resource", _set("/budgets/0/resource", "ram"), "/budgets/0/resource", "there is no resource 'ram'; known: weight_bytes"),
    ("no limit", _set("/budgets/0/max", KeyError), "/budgets/0", "has neither max nor min"),
    ("unknown tag", _set("/budgets/1/tags", ["stage9"]), "/budgets/1/tags", "no group has the tag 'stage9'"),
    ("two things limited", _set("/budgets/0/loss", True), "/budgets/0", "limits one thing"),
    ("unknown group", _set("/couplings/0/groups", ["conv9"]), "/couplings/0/groups/0", "there is no group 'conv9'"),
    ("unknown choice", _set("/couplings/3/then", ["conv1", "int3"]), "/couplings/3/then", "group 'conv1' has no choice 'int3'; known: int2, int4"),
    ("unknown coupling", _set("/couplings/0/kind", "same"), "/couplings/0", "Invalid value 'same'"),
    ("a choice listed twice", _set("/couplings/2/choices", [["conv1", "int2"]] * 2), "/couplings/2/choices", "names one choice twice"),
    ("pin on a forbidden choice", _set("/groups/5/choices/2/allowed", False), "/pins/head", "choice 'int8' is not allowed; allow it or drop the pin"),
    ("pin on nothing", _set("/pins/conv9", "int2"), "/pins/conv9", "there is no group 'conv9'"),
    ("unknown loss term", _set("/loss/terms", {"kl": 1}), "/loss/terms/kl", "there is no score 'kl'; known: ggn, first_order"),
    ("negative weight", _set("/loss/terms/ggn", -1), "/loss/terms/ggn", "must be finite and 0 or more"),
    ("p-norm without p", _set("/loss", {"terms": {"first_order": 1}, "aggregate": "pnorm"}), "/loss/p", "a p-norm needs p of 1 or more"),
    ("maximum with interactions", _set("/loss/aggregate", "max"), "/loss/aggregate", "does not go with interactions on its term 'ggn'"),
    ("unknown objective", _set("/minimize", "ram"), "/minimize", "'ram' is neither 'loss' nor a resource"),
    ("pair in one group", _set("/interactions/1/pairs/0/b", ["layer1.0.conv1", "int2"]), "/interactions/1/pairs/0", "both choices belong to group 'layer1.0.conv1'"),
    ("short vector", _set("/interactions/0/basis/vectors/conv1/int2", [1.0]), "/interactions/0/basis/vectors/conv1/int2", "has 1 numbers for 2 eigenvalues"),
    ("interaction of no score", _set("/interactions/0/score", "kl"), "/interactions/0/score", "there is no score 'kl'"),
    ("unknown target", _set("/scores/ggn/target", "accuracy"), "/scores/ggn/target", "must be one of kl, ce, metric, proxy"),
    ("score declared for nothing", _set("/scores/weight_bytes", {}), "/scores/weight_bytes", "no choice has it; remove it"),
    ("resource declared for nothing", _set("/resources/ggn", {}), "/resources/ggn", "no choice has it; remove it"),
    ("asks for the future", _set("/requires", ["quantum"]), "/requires", "asks for 'quantum', which this version does not know"),
    ("several scores, none named", _set("/loss", {}), "/loss", "several scores (ggn, first_order): name those that count"),
    ("huge limit", _set("/budgets/0/max", 10**400), "/budgets/0/max", "numbers must be finite"),
    ("huge offset", _set("/resources/weight_bytes/offset", 10**400), "/resources/weight_bytes/offset", "numbers must be finite"),
    ("costs that overflow", _set(f"{C0}/cost/latency_ms", 1.5e308), f"{C0}/cost/latency_ms", "is too large to be added up"),
    ("columns beside groups", _set("/columns", {"file": "a.npz", "sha256": "0" * 64}), "/columns", "stands beside groups"),
    ("max_distinct over nothing", _append("/couplings", {"kind": "max_distinct", "count": 1, "groups": []}), "/couplings/4/groups", "leave it out to mean all groups"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "pointer", "message"), [w[1:] for w in WORDING], ids=[w[0] for w in WORDING])
def test_each_mistake_is_named_with_its_place(
    change: Any, pointer: str, message: str, example: dict[str, Any], tmp_path: Path
) -> None:
    change(example)
    (tmp_path / "p.json").write_text(json.dumps(example))
    for read in (lambda: load_problem(tmp_path / "p.json"), lambda: Problem.from_rows(example)):
        with pytest.raises(ProblemError) as caught:
            read()
        assert {f.pointer for f in caught.value.faults} == {pointer}
        assert message in caught.value.faults[0].message


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


def test_many_mistakes_are_told_at_once_and_no_more_than_a_hundred(tmp_path: Path, example: dict[str, Any]) -> None:
    for group in example["groups"]:
        for choice in group["choices"]:
            choice["score"]["ggn"] = "bad"
            choice["cost"]["weight_bytes"] = None
            choice["surplus"] = 1
    (tmp_path / "p.json").write_text(json.dumps(example))
    with pytest.raises(ProblemError, match=r"and 74 more; `allocator check` lists them") as caught:
        load_problem(tmp_path / "p.json")
    assert len({f.pointer for f in caught.value.faults}) == 75
    example["groups"] = example["groups"] * 10
    (tmp_path / "p.json").write_text(json.dumps(example))
    with pytest.raises(ProblemError) as caught:
        load_problem(tmp_path / "p.json")
    assert len(caught.value.faults) == 100


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        load_problem(tmp_path / "none.json")


@pytest.mark.parametrize("rows", [{1: 2}, {"a": object()}, {"a": {1, 2}}, {"a": b"x", "b": float("nan")}], ids=str)
def test_plain_data_that_json_cannot_hold(rows: Any) -> None:
    with pytest.raises(ProblemError):
        Problem.from_rows(rows)
