"""A solution read back: for its own problem, for another version of it, from every form."""

from __future__ import annotations

import numpy as np
import pytest

import allocator
from allocator.chosen import chosen
from allocator.errors import UsageError
from allocator.explanation import explain
from allocator.formats.digest import content_sha256
from allocator.formats.solutions import load_solution
from allocator.problem import Problem


@pytest.fixture
def problem(example, tmp_path) -> Problem:
    allocator.save_problem(Problem.from_rows(example), tmp_path / "p.json")
    return allocator.load_problem(tmp_path / "p.json")


@pytest.mark.parametrize("name", ["s.json", "s.npz"])
def test_files_are_read_as_what_was_solved(problem, tmp_path, name) -> None:
    solved = allocator.solve(problem, budgets={"weight_bytes": 90000})
    solved.save(tmp_path / name)
    for given in (solved, tmp_path / name, str(tmp_path / name), load_solution(tmp_path / name, problem)):
        found = chosen(problem, given)
        assert found.warnings == ()
        assert found.status == "optimal"
        assert found.problem.budgets[0].max == 90000
        assert found.outcome.objective == solved.objective
        assert found.outcome.violations == ()


def test_mappings_and_indices_are_allocations_of_the_problem_itself(problem) -> None:
    solved = allocator.solve(problem)
    for given in (dict(solved.choices), solved.allocation.choice, solved.allocation.choice.tolist()):
        found = chosen(problem, given)
        assert (found.outcome.objective, found.status, found.multipliers) == (solved.objective, None, None)


def test_other_version_is_a_warning_and_worked_out_anew(problem, tmp_path) -> None:
    solved = allocator.solve(problem)
    solved.save(tmp_path / "s.json")
    other = problem.with_scores({s: 2 * v for s, v in problem.scores.items()})
    for given in (solved, tmp_path / "s.json"):
        found = chosen(other, given)
        assert "made for another problem, or for another version" in found.warnings[0]
        assert found.status is None
        assert found.multipliers is None
        assert found.outcome.problem is other
    tight = problem.with_budget("weight_bytes", 60000)
    warned = explain(tight, solved).warnings
    assert "another version" in warned[0]
    assert "breaks this problem: weight_bytes" in warned[1]


def test_same_columns_under_other_couplings_are_another_version(problem) -> None:
    assert chosen(problem.replace(couplings=()), allocator.solve(problem)).status is None


def test_objective_override_is_applied(problem, tmp_path) -> None:
    other = next(s for s in problem.scores if s not in problem.loss.terms)
    solved = allocator.solve(problem.with_loss(other))
    head = {"sha256": content_sha256(problem), "overrides": {"objective": other}}
    solved = solved.__class__(**{**vars(solved), "problem": head})
    solved.save(tmp_path / "s.json")
    found = chosen(problem, tmp_path / "s.json")
    assert found.problem.loss.terms == {other: 1.0}
    assert found.outcome.objective == solved.objective


def test_what_does_not_fit_is_named(problem) -> None:
    solved = allocator.solve(problem)
    with pytest.raises(UsageError, match="for group 'conv1'"):
        chosen(problem, {**solved.choices, "conv1": "int9"})
    with pytest.raises(UsageError, match="for group 'conv1'"):
        chosen(problem, {g: c for g, c in solved.choices.items() if g != "conv1"})
    with pytest.raises(UsageError, match="does not belong"):
        chosen(problem, np.zeros(3, int))
    with pytest.raises(UsageError, match="holds no allocation"):
        chosen(problem, allocator.solve(problem, budgets={"weight_bytes": 1}))
    assert "1 groups that this problem does not have" in chosen(problem, {**solved.choices, "x": "y"}).warnings[0]


def test_default_names_are_found(tmp_path) -> None:
    plain = Problem.from_arrays(np.arange(6.0).reshape(2, 3), np.ones((2, 3), int))
    assert chosen(plain, {"g0": "c2", "g1": "c1"}).outcome.rows.tolist() == [2, 4]
