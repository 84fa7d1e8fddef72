"""`allocator.solve`: inputs, starts, budgets, and that the same call gives the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import allocator
from allocator.errors import UnsupportedError, UsageError
from allocator.formats.solutions import solution_to_json
from allocator.problem import Problem
from allocator.testing.claims import false_claims
from allocator.testing.depth import times
from allocator.testing.random_problems import random_rows
from allocator.testing.reference import Reference

IN_PROCESS = ("brute_force", "uniform", "greedy", "lagrangian")


def essence(solution: allocator.Solution) -> str:
    """The solution file without `run`."""
    whole = solution_to_json(solution)
    del whole["run"]
    return json.dumps(whole)


@pytest.mark.parametrize("name", IN_PROCESS)
def test_the_same_call_gives_the_same_bytes(name: str) -> None:
    for seed in range(times(60)):
        rows = random_rows(seed)
        try:
            first = allocator.solve(rows, solver=name, seed=3)
        except UnsupportedError:
            continue
        assert essence(first) == essence(allocator.solve(Problem.from_rows(rows), solver=name, seed=3))


AGAIN = """
import json, sys
import allocator
from allocator.formats.solutions import solution_to_json
from allocator.testing.random_problems import random_rows
for seed in range(12):
    for name in ("brute_force", "uniform", "lagrangian"):
        try:
            whole = solution_to_json(allocator.solve(random_rows(seed), solver=name))
        except allocator.errors.AllocatorError as error:
            whole = {"run": None, "error": str(error)}
        del whole["run"]
        print(json.dumps(whole))
"""


def test_other_processes_with_other_hash_seeds_give_the_same_bytes() -> None:
    said = set()
    for seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run(
            [sys.executable, "-c", AGAIN], env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        assert len(run.stdout.splitlines()) == 36
        said.add(run.stdout)
    assert len(said) == 1


def test_a_path_a_mapping_and_a_problem_are_the_same(golden: Path, example: dict[str, Any]) -> None:
    answers = [
        allocator.solve(given, solver="brute_force")
        for given in (golden / "example.json", str(golden / "example.json"), example, Problem.from_rows(example))
    ]
    assert len({json.dumps(dict(a.choices)) for a in answers}) == 1
    assert len({a.problem["sha256"] for a in answers}) == 1
    assert answers[0].problem["file_sha256"] == answers[1].problem["file_sha256"]
    assert answers[2].problem["file_sha256"] is None
    assert list(answers[2].problem) == ["file_sha256", "sha256", "overrides"]
    assert answers[2].problem == {"file_sha256": None, "sha256": answers[0].problem["sha256"], "overrides": {}}


def test_the_solver_is_described_well_enough_to_run_it_again(example: dict[str, Any]) -> None:
    plain = allocator.solve(example | {"interactions": [], "couplings": []}, solver="lagrangian", starts=7, seed=5)
    assert plain.solver["name"] == "lagrangian"
    assert plain.solver["options"] == {"starts": 7}
    assert plain.solver["limits"]["seed"] == 5
    automatic = allocator.solve(example, solver="auto")
    assert "chosen_because" in automatic.solver
    assert automatic.solver["name"] == "brute_force"


def test_budgets_replace_the_rows_of_the_file_and_are_recorded(example: dict[str, Any]) -> None:
    solution = allocator.solve(example, solver="brute_force", budgets={"weight_bytes": "120kB"})
    assert solution.problem["overrides"] == {"weight_bytes": {"max": 120000}}
    assert solution.totals["weight_bytes"] <= 120000
    assert solution.totals["weight_bytes"] > 100000
    assert solution.problem["sha256"] == allocator.solve(example, solver="brute_force").problem["sha256"]


def test_a_start_may_be_names_places_or_a_solution(example: dict[str, Any]) -> None:
    rows = example | {"interactions": [], "couplings": []}
    first = allocator.solve(rows, solver="lagrangian")
    places = first.allocation.choice.tolist() if first.allocation else []
    for start in (first, dict(first.choices), places, np.array(places)):
        again = allocator.solve(rows, solver="lagrangian", start=start)
        assert again.objective == first.objective


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ([0, 1], "an allocation is 6 integers"),
        ([0.5] * 6, "an allocation is 6 integers"),
        ([9] * 6, "has choices 0 to"),
        ("abc", "start: an allocation"),
        ([[1], [1, 2]], "start: "),
        ({"conv1": "int2"}, "start: there is no 'layer1.0.conv1'"),
        (
            dict.fromkeys(["conv1", "layer1.0.conv1", "layer1.0.conv2", "attn.q_proj", "attn.k_proj", "head"], "int3"),
            "start: there is no 'int3'",
        ),
    ],
    ids=str,
)
def test_a_start_that_cannot_be_meant_is_refused(start: Any, message: str, example: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=message):
        allocator.solve(example, solver="brute_force", start=start)


def test_a_start_against_a_pin_is_left_out(example: dict[str, Any]) -> None:
    assert allocator.solve(example, solver="brute_force", start=[0] * 6).status == "optimal"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solver": "brute-forse"}, "did you mean 'brute_force'"),
        ({"solver": "nothing like it"}, "there is no solver 'nothing like it'"),
        ({"solver": "uniform", "engine": "x"}, "has no option 'engine'; it takes none"),
        ({"time_limit": 0}, "time limit 0: give seconds above 0"),
        ({"time_limit": float("nan")}, "time limit nan"),
        ({"threads": 0}, "threads 0: give 1 or more"),
        ({"gap": -1.0}, r"gap -1\.0: give 0 or more"),
        ({"seed": -1}, "seed -1: give an integer"),
        ({"seed": 2**31}, "seed 2147483648"),
        ({"budgets": {"ram": 3}}, "budget 'ram': there is no such resource"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_meant_are_refused(
    arguments: dict[str, Any], message: str, example: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=message):
        allocator.solve(example, **{"solver": "brute_force", **arguments})


def test_dashes_and_instances_name_solvers_too(example: dict[str, Any]) -> None:
    from solvers.brute_force import BruteForce

    by_dash = allocator.solve(example, solver="brute-force")
    by_instance = allocator.solve(example, solver=BruteForce())
    assert essence(by_dash) == essence(by_instance)
    with pytest.raises(UsageError, match="options most belong to a solver's name"):
        allocator.solve(example, solver=BruteForce(), most=3)


def test_an_infeasible_problem_never_reaches_a_backend_when_a_group_is_empty() -> None:
    rows = random_rows(0, frozenset())
    for choice in rows["groups"][0]["choices"]:
        choice["allowed"] = False
    solution = allocator.solve(rows, solver="greedy")
    assert not false_claims(Reference(rows), solution)
    assert solution.status == "infeasible"
    assert len(solution.multipliers) == len(solution.slack) == len(rows["budgets"])


def test_an_unreadable_path_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        allocator.solve(tmp_path / "none.json")
    with pytest.raises(UsageError, match="is a folder"):
        allocator.solve(tmp_path)
