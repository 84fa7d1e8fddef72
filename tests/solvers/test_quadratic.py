"""The backend `quadratic`: right on every small problem, proved by numpy, never worse than what it begins with."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

import allocator
import allocator.engine.quadratic_model as forms
import allocator.verification as verification
import solvers.quadratic as backend
from allocator.certificate import Multipliers
from allocator.certificate_dual import Dual, DualTree
from allocator.engine import native
from allocator.engine.separable import solve_separable
from allocator.errors import UsageError
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.quadratic import quadratic
from allocator.reduce import reduce
from allocator.statement import Basis, Budget, Pairs
from allocator.testing.claims import false_claims, tolerance
from allocator.testing.depth import times
from allocator.testing.interactions import drawn, every, keeps
from allocator.testing.random_problems import LINEAR, random_rows
from allocator.testing.reference import Reference
from solvers.quadratic import Quadratic

needs_c = pytest.mark.skipif(native() is None, reason="the C extension was not built")


@pytest.fixture
def no_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that certificates have to prove what small problems would have proved by looking at everything."""
    monkeypatch.setattr(verification, "small_enough", lambda *_: False)


def network(groups: int, rank: int, seed: int = 0, bits: float = 3.5) -> Problem:
    """Seven bit-widths each: errors fall by four a bit, weights spread 1:16, neighbours resemble each other."""
    rng = np.random.default_rng(seed)
    weights = np.round(np.exp(rng.uniform(0, np.log(16), groups)) * 1000).astype(int)
    width = np.arange(2, 9)
    spectrum = np.sqrt(np.exp(-np.arange(rank) / 30) + 1e-3)
    own = rng.normal(size=(groups, 7, rank)) + 0.5 * rng.normal(size=(groups, 1, rank))
    own[1:] += 0.5 * own[:-1]
    vectors = (own * spectrum * 2.0 ** -width[None, :, None]).reshape(groups * 7, rank)
    vectors /= np.sqrt((vectors**2).sum(axis=1).mean())
    problem = Problem.from_arrays(
        {"s": (0.5 * (vectors**2).sum(axis=1)).reshape(groups, 7)},
        {"b": np.outer(weights, width)},
        budgets={"b": int(bits * weights.sum())},
    )
    return problem.replace(interactions=(Basis("s", np.ones(rank), vectors),))


@needs_c
@pytest.mark.usefixtures("no_enumeration")
def test_five_hundred_random_problems_are_solved_and_proved_without_enumeration() -> None:
    asked = 0
    for seed in itertools.count():
        rows = random_rows(seed, LINEAR | {"pairs", "basis"}, most_allocations=100)
        problem = Problem.from_rows(rows)
        if not problem.features & {"pairs", "basis"}:
            continue
        reference = Reference(rows)
        solution = allocator.solve(problem, "quadratic")
        assert not false_claims(reference, solution), seed
        if reference.best is not None:
            assert solution.objective is not None, seed
            assert solution.objective <= reference.best.objective + tolerance(reference), seed
            assert solution.status == "optimal", seed
        else:
            assert solution.status == "infeasible" or solution.allocation is None, seed
        asked += 1
        if asked == times(500):
            return


@pytest.mark.parametrize("options", [{"steps": 0}, {"nodes": 0}, {"nodes": 3, "steps": 50}, {"engine": "numpy"}])
@pytest.mark.usefixtures("no_enumeration")
def test_every_way_to_stop_early_bounds_from_below(options: dict[str, Any]) -> None:
    bounded = 0
    for seed in range(times(25)):
        problem = drawn(seed, 4, rows=seed % 3, convex=seed % 2 == 0)
        best = min((_objective(problem, r) for r in every(problem) if keeps(problem, r)), default=None)
        solution = allocator.solve(problem, "quadratic", **options)
        if best is None:
            assert solution.allocation is None
            continue
        assert solution.objective == pytest.approx(best, abs=1e-9)
        assert solution.claimed_bound is None or solution.claimed_bound <= best + 1e-9
        assert solution.proven_bound is not None
        assert solution.proven_bound <= best + 1e-9
        bounded += 1
    assert bounded > times(12)


def _objective(problem: Problem, rows: np.ndarray) -> float:
    return problem.evaluate(rows - problem.indptr[:-1]).objective


@needs_c
def test_networks_are_proved() -> None:
    for seed, bits in ((0, 3.0), (1, 4.0)):
        solution = allocator.solve(network(14, 98, seed, bits), "quadratic")
        assert solution.status == "optimal"
        assert solution.certificate == {"kind": "tree", "checked": True}
        assert solution.run["statistics"]["nodes"] > 1


@needs_c
def test_indefinite_losses_are_proved() -> None:
    problem = network(9, 20, 3)
    part = problem.interactions[0]
    assert isinstance(part, Basis)
    signs = np.where(np.arange(20) % 3 == 0, -1.0, 1.0)
    solution = allocator.solve(problem.replace(interactions=(Basis("s", signs, part.vectors),)), "quadratic")
    assert solution.status == "optimal"
    assert solution.run["statistics"]["iterations"] > 0


@pytest.mark.parametrize("dense", [True, False])
def test_large_ones_are_bounded_and_no_worse_than_where_they_begin(
    dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "DENSE", 10_000 if dense else 0)
    problem = network(90, 40, 5)
    model = quadratic(problem)
    alone = solve_separable(model.linear, tolerance=None, seconds=lambda: 60.0)
    assert alone.rows is not None
    solution = allocator.solve(problem, "quadratic", effort=0.02)
    assert solution.objective is not None
    assert solution.objective <= model.total(alone.rows)
    assert solution.certificate == {"kind": "dual", "checked": True}
    assert solution.proven_bound is not None
    assert solution.proven_bound <= solution.objective


def test_a_useless_bound_is_called_useless() -> None:
    solution = allocator.solve(network(90, 4, 6), "quadratic", effort=0.02)
    assert "no useful bound" in solution.run["statistics"]["bound"]


def test_equal_seeds_give_equal_answers() -> None:
    problem = network(30, 20, 7)
    options = {"nodes": 0, "effort": 0.1}
    found = [allocator.solve(problem, "quadratic", seed=s, **options).choices for s in (1, 1, 2)]
    assert found[0] == found[1]
    assert allocator.solve(problem, "quadratic", seed=2, **options).choices == found[2]


@needs_c
@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e285])
@pytest.mark.usefixtures("no_enumeration")
def test_far_scales_are_proved_too(scale: float) -> None:
    problem = network(5, 6, 8)
    part = problem.interactions[0]
    assert isinstance(part, Basis)
    scaled = problem.replace(
        scores={"s": problem.scores["s"] * scale}, interactions=(Basis("s", part.eigenvalues * scale, part.vectors),)
    )
    solution = allocator.solve(scaled, "quadratic")
    assert solution.status == "optimal"
    assert solution.choices == allocator.solve(problem, "quadratic").choices


@needs_c
@pytest.mark.usefixtures("no_enumeration")
def test_degenerate_problems() -> None:
    one = Problem.from_arrays({"s": np.array([[3.0, 1.0, 2.0]])}, np.array([[1, 5, 2]]), budgets={"cost": 3})
    one = one.replace(interactions=(Basis("s", np.ones(1), np.ones((3, 1))),))
    single = Problem.from_arrays({"s": np.ones((4, 1))}, np.ones((4, 1), int), budgets={"cost": 4})
    single = single.replace(interactions=(Basis("s", -np.ones(1), np.arange(4.0)[:, None]),))
    zero = network(4, 3, 1).replace(interactions=(Basis("s", np.zeros(3), np.ones((28, 3))),))
    copies = Problem.from_arrays({"s": np.zeros((5, 3))}, np.ones((5, 3), int), budgets={"cost": 5})
    copies = copies.replace(interactions=(Basis("s", np.ones(2), np.repeat(np.arange(10.0).reshape(5, 2), 3, axis=0)),))
    nothing = Problem.from_arrays({"s": np.zeros((3, 2))}, np.zeros((3, 2), int), budgets={"cost": 0})
    nothing = nothing.replace(interactions=(Pairs("s", np.array([[0, 2]]), np.array([-1.0])),))
    for problem in (one, single, zero, copies, nothing):
        solution = allocator.solve(problem, "quadratic")
        best = min(_objective(problem, r) for r in every(problem) if keeps(problem, r)) if problem is not zero else None
        assert solution.status == "optimal"
        assert best is None or solution.objective == pytest.approx(best, abs=1e-12)


def test_infeasible_ones_are_proved_infeasible() -> None:
    by_one_row = network(6, 4).with_budget("b", max=1)
    assert allocator.solve(by_one_row, "quadratic").status == "infeasible"
    costs = {"a": np.tile([0, 10], (12, 1)), "b": np.tile([10, 0], (12, 1))}
    two = Problem.from_arrays({"s": np.ones((12, 2))}, costs, budgets={"a": 50, "b": 50})
    two = two.replace(interactions=(Basis("s", np.ones(1), np.ones((24, 1))),))
    solution = allocator.solve(two, "quadratic")
    assert solution.status == "infeasible"


def test_a_gap_is_proved_and_no_optimum_claimed() -> None:
    problem = network(14, 98, 2)
    solution = allocator.solve(problem, "quadratic", gap=0.2)
    assert solution.claim is None
    assert solution.gap is not None
    assert solution.gap <= 0.2 or native() is None


def test_starts_reports_and_forbidden_choices() -> None:
    problem = network(10, 20, 9)
    allowed = np.ones(70, bool)
    allowed[::7] = False
    problem = problem.replace(allowed=allowed)
    seen: list[float] = []
    solution = allocator.solve(
        problem,
        "quadratic",
        start=[1] * 10,
        report=lambda choice: seen.append(problem.evaluate(choice).objective),
    )
    assert solution.objective == min(seen)
    assert seen == sorted(seen, reverse=True)
    assert solution.allocation is not None
    assert (solution.allocation.choice > 0).all()


def test_interactions_that_do_not_count_leave_sums() -> None:
    problem = network(40, 4)
    plain = allocator.solve(problem.replace(interactions=()), "exact")
    for part in (Basis("s", np.zeros(4), np.ones((280, 4))), Basis("s", np.ones(4), np.zeros((280, 4)))):
        solution = allocator.solve(problem.replace(interactions=(part,)), "quadratic")
        assert solution.status == "optimal"
        assert solution.objective == plain.objective


@needs_c
def test_a_certificate_that_is_not_its_own_is_refused() -> None:
    """The core's word on an answer whose certificate belongs to another problem, or claims too much."""
    problem, other = network(12, 84, 1), network(12, 84, 2)
    reduced = reduce(problem)
    assert reduced.problem is not None
    solver = Quadratic()
    right = solver.solve(reduced.problem, Limits())
    assert isinstance(right.certificate, DualTree)
    assert verification.verify(problem, reduced, right).status == "optimal"
    wrong = solver.solve(other, Limits()).certificate
    assert isinstance(wrong, DualTree)
    assert right.choice is not None
    worse = right.choice.copy()
    up = int(np.argmax(worse > 0))
    worse[up] -= 1  # fewer bits: feasible, and not the optimum
    broken = dataclasses.replace(right.certificate.stages[0], point=np.zeros(3))
    for certificate, choice in (
        (wrong, right.choice),
        (right.certificate, worse),
        (DualTree((broken,)), right.choice),
        (DualTree((None,)), right.choice),  # type: ignore[arg-type]  # what a careless backend may send
        (Dual((0.0,), np.zeros(1)), right.choice),
        (Multipliers((0.0,)), right.choice),
    ):
        solution = verification.verify(
            problem, reduced, dataclasses.replace(right, certificate=certificate, choice=choice)
        )
        assert solution.status == "feasible"
        assert solution.proven_bound is None or solution.proven_bound <= solution.objective


def test_options_are_checked() -> None:
    for options in ({"effort": -1.0}, {"nodes": -1}, {"steps": -1}, {"engine": "fortran"}):
        with pytest.raises(UsageError, match="quadratic"):
            Quadratic(**options)  # type: ignore[arg-type]  # wrong on purpose
    assert repr(backend.Quadratic()) == "Quadratic(effort=1.0, nodes=400000, steps=800, engine='auto')"


def test_limits_on_a_loss_with_interactions_are_refused_by_name() -> None:
    problem = network(12, 4).replace(budgets=(Budget(loss=True, max=1.0),))
    with pytest.raises(allocator.errors.UnsupportedError, match="loss_budgets"):
        allocator.solve(problem, "quadratic")
