"""What a mistake in problem.json is answered with: the place, the reason and the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from allocator.errors import ProblemError, UsageError
from allocator.formats.problems import load_problem
from allocator.problem import Problem


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
    (
        "vectors that overflow",
        _set("/interactions/0/basis/vectors/head/int2/0", 1e200),
        "/interactions/0",
        "adds up to",
    ),
    (
        "string for a cost",
        _set(f"{C0}/cost/weight_bytes", "9"),
        f"{C0}/cost/weight_bytes",
        "must be int | float, not str",
    ),
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
    (
        "unknown resource",
        _set("/budgets/0/resource", "ram"),
        "/budgets/0/resource",
        "there is no resource 'ram'; known: weight_bytes",
    ),
    ("no limit", _set("/budgets/0/max", KeyError), "/budgets/0", "has neither max nor min"),
    ("unknown tag", _set("/budgets/1/tags", ["stage9"]), "/budgets/1/tags", "no group has the tag 'stage9'"),
    ("two things limited", _set("/budgets/0/loss", True), "/budgets/0", "limits one thing"),
    ("unknown group", _set("/couplings/0/groups", ["conv9"]), "/couplings/0/groups/0", "there is no group 'conv9'"),
    (
        "unknown choice",
        _set("/couplings/3/then", ["conv1", "int3"]),
        "/couplings/3/then",
        "group 'conv1' has no choice 'int3'; known: int2, int4",
    ),
    ("unknown coupling", _set("/couplings/0/kind", "same"), "/couplings/0", "Invalid value 'same'"),
    (
        "a choice listed twice",
        _set("/couplings/2/choices", [["conv1", "int2"]] * 2),
        "/couplings/2/choices",
        "names one choice twice",
    ),
    (
        "pin on a forbidden choice",
        _set("/groups/5/choices/2/allowed", False),
        "/pins/head",
        "choice 'int8' is not allowed; allow it or drop the pin",
    ),
    ("pin on nothing", _set("/pins/conv9", "int2"), "/pins/conv9", "there is no group 'conv9'"),
    (
        "unknown loss term",
        _set("/loss/terms", {"kl": 1}),
        "/loss/terms/kl",
        "there is no score 'kl'; known: ggn, first_order",
    ),
    ("negative weight", _set("/loss/terms/ggn", -1), "/loss/terms/ggn", "must be finite and 0 or more"),
    (
        "p-norm without p",
        _set("/loss", {"terms": {"first_order": 1}, "aggregate": "pnorm"}),
        "/loss/p",
        "a p-norm needs p of 1 or more",
    ),
    (
        "maximum with interactions",
        _set("/loss/aggregate", "max"),
        "/loss/aggregate",
        "does not go with interactions on its term 'ggn'",
    ),
    ("unknown objective", _set("/minimize", "ram"), "/minimize", "'ram' is neither 'loss' nor a resource"),
    (
        "pair in one group",
        _set("/interactions/1/pairs/0/b", ["layer1.0.conv1", "int2"]),
        "/interactions/1/pairs/0",
        "both choices belong to group 'layer1.0.conv1'",
    ),
    (
        "short vector",
        _set("/interactions/0/basis/vectors/conv1/int2", [1.0]),
        "/interactions/0/basis/vectors/conv1/int2",
        "has 1 numbers for 2 eigenvalues",
    ),
    ("interaction of no score", _set("/interactions/0/score", "kl"), "/interactions/0/score", "there is no score 'kl'"),
    (
        "unknown target",
        _set("/scores/ggn/target", "accuracy"),
        "/scores/ggn/target",
        "must be one of kl, ce, metric, proxy",
    ),
    (
        "score declared for nothing",
        _set("/scores/weight_bytes", {}),
        "/scores/weight_bytes",
        "no choice has it; remove it",
    ),
    ("resource declared for nothing", _set("/resources/ggn", {}), "/resources/ggn", "no choice has it; remove it"),
    (
        "asks for the future",
        _set("/requires", ["quantum"]),
        "/requires",
        "asks for 'quantum', which this version does not know",
    ),
    (
        "several scores, none named",
        _set("/loss", {}),
        "/loss",
        "several scores (ggn, first_order): name those that count",
    ),
    ("huge limit", _set("/budgets/0/max", 10**400), "/budgets/0/max", "numbers must be finite"),
    (
        "huge offset",
        _set("/resources/weight_bytes/offset", 10**400),
        "/resources/weight_bytes/offset",
        "numbers must be finite",
    ),
    (
        "costs that overflow",
        _set(f"{C0}/cost/latency_ms", 1.5e308),
        f"{C0}/cost/latency_ms",
        "is too large to be added up",
    ),
    (
        "columns beside groups",
        _set("/columns", {"file": "a.npz", "sha256": "0" * 64}),
        "/columns",
        "stands beside groups",
    ),
    (
        "max_distinct over nothing",
        _append("/couplings", {"kind": "max_distinct", "count": 1, "groups": []}),
        "/couplings/4/groups",
        "leave it out to mean all groups",
    ),
]


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


@pytest.mark.parametrize("rows", [{1: 2}, {"a": object()}, {"a": {1, 2}}, {"a": b"x", "b": float("nan")}], ids=range(4))
def test_plain_data_that_json_cannot_hold(rows: Any) -> None:
    with pytest.raises(ProblemError):
        Problem.from_rows(rows)
