"""The error-subspace program against all allocations: optima, bounds, limits on the loss, and honest words."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import allocator
from allocator.certificate import Multipliers
from allocator.errors import SolverError, UnsupportedError, UsageError
from allocator.features import LINEAR
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.reduce import reduce
from allocator.solution import Answer
from allocator.statement import Basis, Budget, Pairs
from allocator.testing.claims import tolerance
from allocator.testing.coupled_layers import coupled_layers, table
from allocator.testing.depth import times
from allocator.testing.random_problems import DETAILS, MASKS, random_rows
from allocator.testing.reference import Reference
from solvers import _programs
from solvers._convex import run
from solvers.cvxpy_subspace import CvxpySubspace

QUICK = CvxpySubspace(lift="never", kicks=10)


def drawn(seed: int, groups: int = 4, choices: int = 3, negative: int = 2, score: float = 1.0) -> Problem:
    """Numbers at random; one budget halfway between the least and the largest use."""
    rng = np.random.default_rng(seed)
    n = groups * choices
    eigenvalues = rng.random(4) * np.where(np.arange(4) < negative, -1.0, 1.0)
    costs = rng.integers(1, 20, (groups, choices))
    least = costs.min(axis=1).sum()
    row = Budget(resource="bytes", max=int(least + 0.5 * (costs.max(axis=1).sum() - least)))
    problem = Problem.from_arrays({"s": score * rng.normal(size=(groups, choices))}, {"bytes": costs})
    basis = Basis("s", score * eigenvalues, rng.normal(size=(n, 4)))
    return problem.replace(interactions=(basis,), budgets=(row,))


def held(problem: Problem, answer: Answer) -> float:
    """The objective of an answer that must be there and feasible."""
    assert answer.choice is not None
    found = problem.evaluate(answer.choice)
    assert found.violations == ()
    return found.objective


def bounds_hold(answer: Answer, best: float, slip: float = 1e-10) -> None:
    for name, bound in answer.statistics["bounds"].items():
        assert bound <= best + slip, name
    assert answer.claimed_bound is not None
    assert answer.claimed_bound <= best + slip


@pytest.mark.parametrize("seed", range(3))
def test_coupled_layers_get_the_optimum_at_every_budget(seed: int) -> None:
    for bits in (2.5, 3.0, 3.5, 4.0, 5.0):
        problem = coupled_layers(seed, bits)
        _, loss, use = table(problem)
        best = float(loss[use <= bits * use.min() / 2].min())
        answer = QUICK.solve(problem, Limits())
        assert held(problem, answer) == pytest.approx(best, abs=1e-10)
        bounds_hold(answer, best)
        assert set(answer.statistics["bounds"]) == {"secant", "shift"}


def test_the_lift_is_much_nearer_than_the_secants() -> None:
    gaps = []
    for seed in range(times(3)):
        problem = coupled_layers(seed, 3.0, layers=5)
        _, loss, use = table(problem)
        best = float(loss[use <= 3.0 * use.min() / 2].min())
        answer = CvxpySubspace(kicks=0).solve(problem, Limits())
        bounds_hold(answer, best)
        bounds = answer.statistics["bounds"]
        gaps.append((best - bounds["lift"]) / (best - bounds["secant"]))
    assert max(gaps) < 0.5


def test_random_problems_of_every_kind_it_takes() -> None:
    """Nothing that it says is false, and nearly all allocations are optimal."""
    seen: Counter[str] = Counter()
    parts = LINEAR | {"pairs", "basis", "loss_budgets"} | DETAILS | MASKS
    for seed in range(70_000, 70_000 + times(260)):
        rows = random_rows(seed, parts, most_allocations=100)
        problem = reduce(Problem.from_rows(rows)).problem
        if problem is None or not problem.features <= CvxpySubspace.features:
            continue
        if not problem.features & {"pairs", "basis"}:
            continue
        reference, answer = Reference(rows), QUICK.solve(problem, Limits())
        best, slip = reference.best, tolerance(reference)
        if best is None:
            assert answer.choice is None, seed
            seen["infeasible"] += 1
            continue
        assert answer.claim != "infeasible", seed
        bounds_hold(answer, best.objective, slip)
        hit = held(problem, answer) <= best.objective + slip
        assert hit or answer.claim is None, seed
        seen["hit" if hit else "worse"] += 1
        seen["under a loss"] += "loss_budgets" in problem.features
    assert seen["hit"] >= times(40), seen
    assert seen["under a loss"] >= times(8), seen
    assert seen["worse"] <= seen["hit"] // 20, seen


def compact(problem: Problem, most: float) -> Problem:
    return problem.replace(minimize={next(iter(problem.costs)): 1.0}, budgets=(Budget(loss=True, max=most),))


@pytest.mark.parametrize("negative", [0, 2])
def test_the_least_cost_under_a_loss(negative: int) -> None:
    for seed in range(times(8)):
        problem = drawn(seed, groups=5, negative=negative)
        _, loss, use = table(problem)
        most = float(np.quantile(loss, 0.02))
        best = float(use[loss <= most].min())
        asked = compact(problem, most)
        answer = QUICK.solve(asked, Limits())
        assert held(asked, answer) == best
        bounds_hold(answer, best)


def test_without_time_an_allocation_within_the_loss_is_still_found() -> None:
    for seed in range(times(8)):
        problem = drawn(seed, groups=6)
        _, loss, _ = table(problem)
        asked = compact(problem, float(np.quantile(loss, 0.1)))
        answer = QUICK.solve(asked, Limits(time=1e-9))
        assert answer.limit == "time"
        held(asked, answer)


def test_cost_and_loss_together_under_a_loss() -> None:
    for seed in range(times(6)):
        problem = drawn(seed, groups=5)
        _, loss, use = table(problem)
        most = float(np.quantile(loss, 0.05))
        asked = compact(problem, most).replace(minimize={"bytes": 0.1, "loss": 1.0})
        best = float((0.1 * use + loss)[loss <= most].min())
        answer = QUICK.solve(asked, Limits())
        assert held(asked, answer) == pytest.approx(best, abs=1e-10)
        bounds_hold(answer, best)


def test_remainders_are_kept_when_asked() -> None:
    """The optimum of the stricter problem; the bound stays one of the problem as stated."""
    for seed in range(times(6)):
        problem = drawn(seed, groups=5)
        left_out = np.abs(np.random.default_rng(seed).normal(size=problem.choice_count)) * 0.3
        problem = problem.replace(remainder={"s": left_out})
        every, loss, use = table(problem)
        most = float(np.quantile(loss, 0.1))
        strict = loss + left_out[every + problem.indptr[:-1]].sum(axis=1) <= most
        assert strict.any()
        asked = compact(problem, most)
        answer = replace(QUICK, remainder=True).solve(asked, Limits())
        assert held(asked, answer) == use[strict].min()
        bounds_hold(answer, float(use[loss <= most].min()))
        assert held(asked, QUICK.solve(asked, Limits())) == use[loss <= most].min()


def test_what_cannot_be_is_said_to_be_infeasible() -> None:
    problem = drawn(0)
    _, loss, use = table(problem)
    for asked in (problem.with_budget("bytes", max=int(use.min()) - 1), compact(problem, float(loss.min()) - 50.0)):
        answer = QUICK.solve(asked, Limits())
        assert (answer.choice, answer.claim) == (None, "infeasible")
    close = QUICK.solve(compact(problem, float(loss.min()) - 1e-6), Limits())
    assert close.choice is None


def test_rows_that_exclude_each_other_are_proved_past_a_limit_on_the_loss() -> None:
    """The prices stand at the rows that they belong to, though the limit on the loss is the first row."""
    rng = np.random.default_rng(0)
    first = rng.integers(1, 100, (12, 3))
    problem = Problem.from_arrays({"s": rng.random((12, 3))}, {"a": first, "b": 100 - first})
    rows = (Budget(loss=True, max=100.0), Budget(resource="a", max=550), Budget(resource="b", max=550))
    basis = Basis("s", np.array([1.0, -1.0]), rng.normal(size=(36, 2)))
    asked = problem.replace(budgets=rows, interactions=(basis,))
    answer = QUICK.solve(asked, Limits())
    assert answer.claim == "infeasible"
    assert isinstance(answer.certificate, Multipliers)
    assert answer.certificate.values[0] == 0.0
    assert allocator.solve(asked, "cvxpy_subspace").status == "infeasible"


@pytest.mark.parametrize("score", [1e-12, 1e12])
@pytest.mark.parametrize("cost", [1, 10**9])
def test_units_do_not_matter(score: float, cost: int) -> None:
    for seed in range(times(3)):
        problem = drawn(seed, score=score)
        problem = problem.replace(costs={"bytes": problem.costs["bytes"] * cost})
        _, loss, use = table(problem)
        room = int((use.min() + use.max()) / 2)
        best = float(loss[use <= room].min())
        answer = QUICK.solve(problem.with_budget("bytes", max=room), Limits())
        assert held(problem.with_budget("bytes", max=room), answer) == pytest.approx(best, rel=1e-9)
        bounds_hold(answer, best, 1e-10 * score)
        most = float(np.quantile(loss, 0.05))
        asked = compact(problem, most)
        answer = QUICK.solve(asked, Limits())
        assert held(asked, answer) == use[loss <= most].min()
        bounds_hold(answer, float(use[loss <= most].min()), 1e-10 * cost)


@pytest.mark.parametrize("negative", [0, 2])
def test_integer_programs_close_the_gap(negative: int) -> None:
    solver = CvxpySubspace(lift="never", outer=40)
    for seed in range(times(3)):
        problem = drawn(seed, groups=5, negative=negative)
        _, loss, use = table(problem)
        for asked, best in (
            (problem, float(loss[use <= problem.budgets[0].max].min())),
            (compact(problem, most := float(np.quantile(loss, 0.05))), float(use[loss <= most].min())),
        ):
            answer = solver.solve(asked, Limits())
            assert held(asked, answer) == pytest.approx(best, abs=1e-10)
            bounds_hold(answer, best)
            assert answer.claimed_bound == pytest.approx(best, rel=1e-5, abs=1e-5)


def test_no_bound_of_any_relaxation_is_above_the_optimum() -> None:
    """Each by its name, of both forms, with axes uphill only and with some downhill, with pairs and without."""
    seen: Counter[str] = Counter()
    solver = CvxpySubspace(lift="always", outer=2, kicks=20)
    rng = np.random.default_rng(5)
    for seed in range(times(16)):
        problem = drawn(900 + seed, groups=3, negative=2 * (seed % 2))
        if seed % 4 > 1:
            ends = np.array([[0, 3], [1, 8], [4, 7]])
            problem = problem.replace(interactions=(*problem.interactions, Pairs("s", ends, rng.normal(size=3))))
        found = [problem.evaluate(c) for c in np.ndindex(*problem.sizes.tolist())]
        loss, use = np.array([o.loss for o in found]), np.array([o.totals["bytes"] for o in found])
        asked = compact(problem, float(np.quantile(loss, 0.15)))
        both = asked.replace(minimize={"bytes": 0.05, "loss": 1.0})
        for form, objective in (("budget", loss), ("compact", use), ("both", 0.05 * use + loss)):
            one = {"budget": problem, "compact": asked, "both": both}[form]
            kept = [o.feasible for o in map(one.evaluate, np.ndindex(*problem.sizes.tolist()))]
            best = float(objective[kept].min())
            answer = solver.solve(one, Limits())
            bounds_hold(answer, best)
            assert held(one, answer) >= best - 1e-10
            seen.update(f"{form} {name}" for name in answer.statistics["bounds"])
    for form in ("budget", "compact", "both"):
        for name in ("convex", "secant", "shift", "lift"):
            assert seen[f"{form} {name}"] >= times(16) // 8, seen
    assert sum(seen[f"{form} outer"] for form in ("budget", "compact", "both")) >= times(16) // 8, seen


def test_a_gap_that_is_allowed_ends_the_work() -> None:
    problem = coupled_layers(0, 3.0, layers=5)
    told = CvxpySubspace(outer=40).solve(problem, Limits(gap=1e6)).statistics
    assert "lift" not in told["bounds"]
    assert "masters" not in told


def test_an_engine_that_fails_costs_only_its_own_point(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, limits = drawn(0), Limits()
    expected = held(problem, QUICK.solve(problem, limits))
    calls = [0]

    def fails_after_the_first(*given: Any) -> tuple[str, str]:
        calls[0] += 1
        if calls[0] > 1:
            raise SolverError("no engine of cvxpy solved the relaxation")
        return run(*given)

    monkeypatch.setattr(_programs, "run", fails_after_the_first)
    answer = QUICK.solve(problem, limits)
    assert held(problem, answer) == expected
    assert set(answer.statistics["bounds"]) == {"secant"}
    assert "shift failed" in answer.statistics
    answer = QUICK.solve(problem, limits)
    assert held(problem, answer) == expected
    assert answer.claimed_bound is None
    assert "no engine" in answer.statistics["relaxation"]


def test_options_are_refused_by_name() -> None:
    for options in ({"form": "x"}, {"lift": "x"}, {"outer": -1}, {"kicks": -1}):
        with pytest.raises(UsageError, match=f"cvxpy_subspace: {next(iter(options))}"):
            CvxpySubspace(**options)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(UnsupportedError, match=r"lift 123 choices, more than 120"):
        CvxpySubspace(lift="always").solve(drawn(0, groups=41), Limits())


def test_the_example_of_the_page_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "subspace.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.S)
    [shown] = re.findall(r"```text\n(.*?)```", page, re.S)
    exec(code, {})
    assert capsys.readouterr().out == shown


def test_it_agrees_with_the_backend_quadratic() -> None:
    """Allocations of one search from other starts; bounds that share no code, each below what the other found."""
    for seed in range(times(3)):
        for problem in (coupled_layers(seed, 3.5), coupled_layers(seed, 3.0, layers=16), two_budgets(seed)):
            one, two = (allocator.solve(problem, name) for name in (CvxpySubspace(lift="never"), "quadratic"))
            assert one.objective is not None
            assert two.objective is not None
            assert one.objective == pytest.approx(two.objective, abs=1e-10)
            for solution, other in ((one, two), (two, one)):
                for bound in (solution.claimed_bound, solution.proven_bound):
                    assert bound is None or bound <= other.objective + 1e-10


def two_budgets(seed: int) -> Problem:
    """Ten layers under a second budget that pulls the other way."""
    problem = coupled_layers(seed, 4.0, layers=10)
    (bits,) = problem.costs.values()
    ms = np.random.default_rng(seed).integers(1, 9, 10)[:, None] * np.array([5, 4, 3, 2, 1])
    rows = (*problem.budgets, Budget(resource="ms", max=int(0.9 * ms.mean() * 10)))
    return problem.replace(costs={"bits": bits, "ms": ms.reshape(-1)}, resources={}, budgets=rows)
