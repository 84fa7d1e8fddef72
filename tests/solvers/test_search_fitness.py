"""A measured loss of the whole model: what the function is asked, how often, and what becomes of its words."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import allocator
from allocator.errors import SolverError, UsageError
from allocator.formats.solutions import solution_bytes
from allocator.problem import Problem
from solvers.annealing import Annealing
from solvers.evolutionary import Evolutionary

ROOT = Path(__file__).parents[2]
WANTED = np.array([0, 2, 1, 0, 2, 1])


def stated() -> Problem:
    """Six groups, one pinned, one with a forbidden choice, two that take one label; scores say nothing."""
    rows: dict[str, Any] = {"format": "allocation-problem", "version": 1, "budgets": [{"resource": "b", "max": 14}]}
    rows["groups"] = [
        {"name": f"g{g}", "choices": [{"name": n, "cost": {"b": c}, "score": {"s": 0}} for c, n in enumerate("abc", 1)]}
        for g in range(6)
    ]
    rows["groups"][4]["choices"][1]["allowed"] = False
    rows["pins"] = {"g1": "c"}
    rows["couplings"] = [{"kind": "same_choice", "groups": ["g2", "g5"]}]
    return Problem.from_rows(rows)


class Counted:
    """Distance from what is wanted; keeps what it was asked."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.asked: list[float | None] = []

    def __call__(self, choice: NDArray[np.int32], sample: float | None) -> float:
        assert isinstance(choice, np.ndarray)
        assert choice.dtype == np.int32
        assert choice.shape == (self.problem.group_count,)
        assert self.problem.evaluate(choice).feasible
        self.asked.append(sample)
        distance = float(np.abs(choice - WANTED).sum())
        choice[:] = -1  # its own copy: what it does to it is its own affair
        return distance


def test_evolution_minimises_what_is_measured() -> None:
    problem = stated()
    fitness = Counted(problem)
    solver = Evolutionary(
        fitness=fitness, generations=12, offspring=10, survivors="4,2", samples="0.25,1", starts=5, mutations=2
    )
    solution = allocator.solve(problem, solver=solver)
    assert solution.allocation is not None
    assert solution.allocation.choice.tolist() == WANTED.tolist()
    assert solution.objective == 0.0
    told = solution.run["statistics"]
    assert told["fitness"] == 0.0 < told["fitness_of_start"]
    assert told["evaluations"] == len(fitness.asked) <= (5 + 4) + 12 * (10 + 4)
    assert told["generations"] == 12
    assert set(fitness.asked) == {0.25, None}
    assert fitness.asked[0] is None
    assert fitness.asked.count(None) <= 1 + 13 * 4


def test_annealing_minimises_what_is_measured() -> None:
    problem = stated()
    fitness = Counted(problem)
    solution = allocator.solve(problem, solver=Annealing(fitness=fitness, steps=60, restarts=3))
    assert solution.allocation is not None
    assert solution.allocation.choice.tolist() == WANTED.tolist()
    told = solution.run["statistics"]
    assert told["fitness"] == 0.0 < told["fitness_of_start"]
    assert told["evaluations"] == len(fitness.asked) <= (60 + 2) * 3
    assert set(fitness.asked) == {None}


def test_name_is_recorded() -> None:
    def divergence(choice: Any, sample: Any) -> float:
        return 0.0

    for solver in (Evolutionary(fitness=divergence, generations=1), Annealing(fitness=divergence, steps=1)):
        name = "test_name_is_recorded.<locals>.divergence"
        assert f"fitness={name}" in repr(solver)
        written = msgspec.json.decode(solution_bytes(allocator.solve(stated(), solver=solver)))
        assert written["solver"]["options"]["fitness"] == name
    plain = allocator.solve(stated(), solver="evolutionary", generations=1)
    assert msgspec.json.decode(solution_bytes(plain))["solver"]["options"]["fitness"] is None


def test_solve_takes_it_by_name_too() -> None:
    fitness = Counted(stated())
    allocator.solve(stated(), solver="evolutionary", fitness=fitness, generations=1, offspring=16)
    assert fitness.asked


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_broken_models_are_never_the_fittest(bad: float) -> None:
    def fitness(choice: NDArray[np.int32], sample: float | None) -> float:
        return bad if choice[0] == 0 else float(choice.sum())

    for solver in (Evolutionary(fitness=fitness, generations=10), Annealing(fitness=fitness, steps=40, restarts=2)):
        solution = allocator.solve(stated(), solver=solver)
        assert solution.allocation is not None
        assert solution.allocation.choice.tolist() == [1, 2, 0, 0, 0, 0]
        assert solution.run["statistics"]["fitness"] == 3.0


def test_what_is_no_number_and_what_raises_is_told() -> None:
    def words(choice: Any, sample: Any) -> Any:
        return "good"

    def fails(choice: Any, sample: Any) -> float:
        raise RuntimeError("out of memory")

    with pytest.raises(SolverError, match="words returned 'good', which is not a number"):
        allocator.solve(stated(), solver=Evolutionary(fitness=words))
    with pytest.raises(SolverError, match="RuntimeError: out of memory"):
        allocator.solve(stated(), solver=Annealing(fitness=fails, steps=3))
    with pytest.raises(UsageError, match="with a fitness say how many"):
        allocator.solve(stated(), solver="annealing", fitness=words)


def test_example_of_the_page() -> None:
    page = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    space: dict[str, Any] = {}
    exec(block, space)
    of_scores = space["measured_loss"](space["by_scores"].allocation.choice, None)
    solution = space["by_measurement"]
    assert solution.run["statistics"]["fitness"] == space["measured_loss"](solution.allocation.choice, None)
    assert solution.run["statistics"]["fitness"] < 0.5 * of_scores
    assert solution.loss > space["by_scores"].loss
