"""Every registered backend that calls itself exact agrees with the reference on random problems.

Backends come from the registry, a third party's as well as ours; one is skipped only where an extra of ours is not
installed. A backend is given only problems whose features it declares, with a floor on how many that must be.
"""

from __future__ import annotations

from typing import Any

import pytest

import allocator
from allocator import registry
from allocator.errors import AllocatorError, UnsupportedError
from allocator.problem import Problem
from allocator.protocols import Exactness
from allocator.reduce import reduce
from allocator.testing.claims import false_claims, tolerance
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, PARTS, random_rows
from allocator.testing.reference import Reference

PROBLEMS = 500
STEPS = 2.0**-40  # ortools_cpsat rounds a group's objective to steps of this share of its range


def exact_backends() -> list[str]:
    return sorted(
        name for name, entry in registry.entries("solvers").items() if entry.load().exactness is Exactness.EXACT
    )


def test_the_exact_backends_are_those_that_we_know_of() -> None:
    assert set(exact_backends()) >= {"brute_force", "scipy_milp", "ortools_mip", "ortools_cpsat"}


def allowance(name: str, problem: Problem, reference: Reference) -> float:
    """How far above the optimum an answer of the backend may lie."""
    slip = tolerance(reference)
    if name == "ortools_cpsat":
        slip += problem.group_count * reference.scale * STEPS
    return slip


def questions(features: frozenset[str], count: int) -> Any:
    """Seeds of random problems whose reduced form the backend takes: half of anything, half linear."""
    for seed in range(count):
        rows = random_rows(seed, PARTS if seed % 2 else LINEAR)
        problem = Problem.from_rows(rows)
        reduced = reduce(problem).problem
        if reduced is None or reduced.features <= features:
            yield seed, rows, problem


def wrong(name: str, problem: Problem, reference: Reference, solution: allocator.Solution) -> list[str]:
    """What an exact backend's checked answer must not be."""
    found = false_claims(reference, solution)
    best = reference.best
    if best is None:
        return found + ([] if solution.status == "infeasible" else ["infeasibility is not proved"])
    if solution.objective is None:
        return [*found, "found nothing, yet something is feasible"]
    if solution.objective > best.objective + allowance(name, problem, reference):
        found.append(f"objective {solution.objective!r}, the optimum is {best.objective!r}")
    if solution.claim == "infeasible":
        found.append("claims infeasible")
    return found


@pytest.mark.parametrize("name", exact_backends())
def test_agrees_with_the_reference(name: str) -> None:
    (reason,) = [listed.reason for listed in allocator.solvers() if listed.name == name]
    if "compression-allocator[" in (reason or ""):
        pytest.skip(f"an extra is not installed: {reason}")
    kind: Any = registry.find("solvers", name).load()
    asked = declined = proved = 0
    failures = []
    for seed, rows, problem in questions(kind.features, times(PROBLEMS)):
        reference = Reference(rows)
        try:
            solution = allocator.solve(problem, solver=name, threads=1)
        except UnsupportedError:  # a combination of features that are fine one by one
            declined += 1
            continue
        except AllocatorError as error:
            failures.append((seed, [f"{type(error).__name__}: {error}"], None))
            continue
        asked += 1
        proved += solution.status == "optimal"
        if found := wrong(name, problem, reference, solution):
            failures.append((seed, found, solution))
    report = "\n".join(
        f"random_rows({seed}, {'PARTS' if seed % 2 else 'LINEAR'}): {found} {solution}"
        for seed, found, solution in failures[:10]
    )
    assert not failures, f"{name}: {len(failures)} of {asked} wrong\n{report}"
    assert asked >= times(PROBLEMS) * 3 // 4, f"{name} takes only {asked} of {times(PROBLEMS)} random problems"
    assert declined <= times(PROBLEMS) // 20, f"{name} declines {declined} problems whose features it declares"
    assert proved >= asked // 3
