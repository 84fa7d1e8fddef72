"""solution.json and its npz: written, read back, and refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import allocator
from allocator.errors import ProblemError
from allocator.formats.archive import write_arrays
from allocator.formats.solutions import load_solution, save_solution, solution_to_json
from allocator.problem import Problem
from allocator.testing.random_problems import random_rows


@pytest.fixture
def problem(example: dict[str, Any]) -> Problem:
    return Problem.from_rows(example)


@pytest.fixture
def solution(problem: Problem) -> allocator.Solution:
    return allocator.solve(problem, solver="brute_force")


def test_json_holds_what_the_contract_lists(solution: allocator.Solution, tmp_path: Path) -> None:
    solution.save(tmp_path / "s.json")
    whole = json.loads((tmp_path / "s.json").read_text())
    assert list(whole) == [
        "format", "version", "status", "claim", "objective", "loss", "proven_bound", "claimed_bound", "gap",
        "certificate", "choices", "actions", "modules", "totals", "multipliers", "slack", "limit", "reasons",
        "solver", "problem", "run",
    ]  # fmt: skip
    assert whole["status"] == "optimal"
    assert whole["gap"] == 0.0
    assert whole["proven_bound"] == whole["objective"]
    assert whole["choices"]["conv1"] == "int4"
    assert whole["actions"]["conv1"]["bits"] == 4
    assert whole["modules"]["conv1"] == ["conv1"]
    assert whole["totals"]["weight_bytes"] == 99252
    assert len(whole["slack"]) == len(whole["multipliers"]) == 3
    assert set(whole["run"]) >= {"wall_s", "cpu_s", "host", "date"}


def test_json_comes_back(solution: allocator.Solution, tmp_path: Path) -> None:
    solution.save(tmp_path / "s.json")
    file = load_solution(tmp_path / "s.json")
    assert file.choices == dict(solution.choices)
    assert file.actions == solution.actions
    assert (file.status, file.objective, file.gap) == ("optimal", solution.objective, 0.0)
    assert file.certificate is not None
    assert file.certificate.checked is True


def test_the_compact_form_comes_back_with_the_problem(
    solution: allocator.Solution, problem: Problem, tmp_path: Path
) -> None:
    save_solution(solution, tmp_path / "s.npz")
    bare = load_solution(tmp_path / "s.npz")
    assert bare.choices is None
    assert bare.objective == solution.objective
    whole = load_solution(tmp_path / "s.npz", problem)
    assert whole.choices == dict(solution.choices)
    assert whole.actions == solution.actions
    assert whole.modules == solution.modules


def test_solutions_without_an_allocation_come_back(tmp_path: Path) -> None:
    for seed in range(60):
        solution = allocator.solve(random_rows(seed), solver="uniform")
        for name in ("s.json", "s.npz"):
            solution.save(tmp_path / name)
            file = load_solution(tmp_path / name)
            assert file.status == solution.status
            assert file.reasons == list(solution.reasons)
            assert solution.allocation is not None or not file.choices


def test_a_solution_of_another_problem_is_refused(solution: allocator.Solution, tmp_path: Path) -> None:
    save_solution(solution, tmp_path / "s.npz")
    other = Problem.from_rows(random_rows(1, frozenset()))
    with pytest.raises(ProblemError, match="does not belong to this problem: an allocation is"):
        load_solution(tmp_path / "s.npz", other)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"status": "perfect"}, "/status"),
        ({"format": "allocation-problem"}, "/format"),
        ({"version": 3}, "/version"),
        ({"choices": ["int4"]}, "/choices"),
        ({"objective": "low"}, "/objective"),
        ({"certificate": {"kind": "faith", "checked": True}}, "/certificate/kind"),
        ({"new": 1}, "/new"),
        ({"claim": "surely"}, "/claim"),
    ],
    ids=str,
)
def test_what_is_no_solution_is_named(
    change: dict[str, Any], pointer: str, solution: allocator.Solution, tmp_path: Path
) -> None:
    whole = json.loads(json.dumps(solution_to_json(solution), default=str)) | change
    (tmp_path / "s.json").write_text(json.dumps(whole))
    with pytest.raises(ProblemError, match="not a valid solution") as caught:
        load_solution(tmp_path / "s.json")
    assert caught.value.faults[0].pointer == pointer


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"choice": np.zeros(6, np.int32)},
        {"choice": np.zeros(6, np.int64), "head": np.zeros(3, np.uint8)},
        {"choice": np.zeros(6, np.int32), "head": np.zeros(3, np.uint8)},
        {"choice": np.zeros(6, np.int32), "head": np.frombuffer(b"{}", np.uint8)},
    ],
    ids=range(5),
)
def test_an_npz_that_is_no_solution_is_refused(arrays: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "s.npz").write_bytes(write_arrays(arrays))
    with pytest.raises(ProblemError, match="not a valid solution"):
        load_solution(tmp_path / "s.npz")
