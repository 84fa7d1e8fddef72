"""What cvxpy_subspace is made of: ranges of the axes, convex programs, prices of a loss, tangents, steps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from allocator.errors import UnsupportedError
from allocator.problem import Problem
from allocator.protocols import Limits
from allocator.quadratic import Quadratic, quadratic
from allocator.statement import Basis, Budget, Pairs
from allocator.testing.depth import times
from solvers._box import tight_box, wide_box
from solvers._concave import descended, tilted
from solvers._convexify import Convex, split
from solvers._level import shares
from solvers._levels import lowered, takes
from solvers._loss_row import LossRow, separated
from solvers._loss_search import LossSearch
from solvers._outer import outer
from solvers._programs import Program, tangent_bound
from solvers._recovery import Recovery
from solvers._relaxations import Relaxations
from solvers._steps import curves, stepped
from solvers.cvxpy_subspace import CvxpySubspace

ALL = Limits()


def signed(seed: int, groups: int = 4, choices: int = 3, pairs: bool = False) -> Problem:
    """Two axes up and two down, a budget, and where asked a few pairs of either sign."""
    rng = np.random.default_rng(seed)
    n = groups * choices
    costs = rng.integers(1, 20, (groups, choices))
    budgets = {"bytes": int(costs.min(axis=1).sum() + 0.4 * np.ptp(costs, axis=1).sum())}
    problem = Problem.from_arrays({"s": rng.normal(size=(groups, choices))}, {"bytes": costs}, budgets=budgets)
    parts: list[Basis | Pairs] = [Basis("s", np.array([2.0, 0.5, -1.0, -0.3]), rng.normal(size=(n, 4)))]
    if pairs:
        parts.append(Pairs("s", np.array([[0, choices], [1, n - 1]]), np.array([0.7, -0.9])))
    return problem.replace(interactions=tuple(parts))


def under_loss(problem: Problem, share: float, **minimize: float) -> tuple[Problem, float]:
    """At most the loss that this share of the allocations has; and that loss."""
    most = float(np.quantile([problem.evaluate(c).loss for c in every(problem)], share))
    return problem.replace(minimize=minimize, budgets=(Budget(loss=True, max=most),)), most


def every(problem: Problem) -> NDArray[np.int64]:
    return np.indices(problem.sizes).reshape(problem.group_count, -1).T.astype(np.int64)


def feasible(problem: Problem) -> list[NDArray[np.int64]]:
    return [c for c in every(problem) if problem.evaluate(c).feasible]


def limited(problem: Problem) -> tuple[LossRow, Recovery, Relaxations]:
    model, row = separated(problem)
    assert row is not None
    return row, Recovery(model, row, ALL, 30), Relaxations(model, row, ALL)


def test_boxes_hold_every_allocation_that_keeps_the_rows() -> None:
    narrower = 0
    for seed in range(times(20)):
        problem = signed(seed)
        model = quadratic(problem)
        down = model.vectors[:, model.eigenvalues < 0]
        wide, tight = wide_box(model), tight_box(model, ALL)
        sums = np.array([down[problem.indptr[:-1] + c].sum(axis=0) for c in every(problem)])
        kept = np.array([problem.evaluate(c).feasible for c in every(problem)])
        assert sums.min(axis=0) == pytest.approx(wide.lo)
        assert sums.max(axis=0) == pytest.approx(wide.hi)
        assert (sums[kept] >= tight.lo).all()
        assert (sums[kept] <= tight.hi).all()
        assert (tight.lo >= wide.lo).all()
        assert (tight.hi <= wide.hi).all()
        narrower += int((tight.hi - tight.lo < 0.95 * (wide.hi - wide.lo)).sum())
    assert narrower >= times(20)


def test_secants_over_a_box_lie_below_whatever_is_in_it() -> None:
    for seed in range(times(10)):
        problem = signed(seed, pairs=True)
        model = quadratic(problem)
        form = split(model, tight_box(model, ALL))
        for c in feasible(problem):
            x = np.zeros(problem.choice_count)
            x[problem.indptr[:-1] + c] = 1.0
            bent = form.factor @ x
            value = form.linear @ x + 0.5 * bent @ bent + form.constant
            assert value <= problem.evaluate(c).objective + form.slip


def test_the_programs_are_convex_by_cvxpys_own_grammar() -> None:
    problem, _ = under_loss(signed(0, pairs=True), 0.2, bytes=1.0, loss=0.1)
    row, _, _ = limited(problem)
    model, _ = separated(problem)
    program = Program(model, split(model), (split(row.model), row.hi))
    assert program.problem.is_dcp(dpp=True)


def test_the_program_finds_the_least_point() -> None:
    """Compared with allocations and with many points between them: none is better, none that keeps the rows."""
    rng = np.random.default_rng(0)
    for seed in range(times(5)):
        problem = signed(seed)
        model = quadratic(problem)
        form = split(model)
        point = Program(model, form).solve(form.linear, ALL)
        assert point.x is not None
        (row,) = model.linear.rows
        corners = np.zeros((len(feasible(problem)), problem.choice_count))
        for i, c in enumerate(feasible(problem)):
            corners[i, problem.indptr[:-1] + c] = 1.0

        def value(x: NDArray[np.float64], form: Convex = form) -> float:
            bent = form.factor @ x
            return float(form.linear @ x + 0.5 * bent @ bent)

        least = value(point.x)
        assert row.column @ point.x <= float(row.hi) * (1 + 1e-6)
        for x in [*corners, *rng.dirichlet(np.full(len(corners), 0.1), 200) @ corners]:
            assert least <= value(x) + 1e-5


def test_any_price_of_a_loss_bounds_the_optimum() -> None:
    rng = np.random.default_rng(1)
    for seed in range(times(10)):
        problem, most = under_loss(signed(seed), 0.2, bytes=1.0)
        best = min(problem.evaluate(c).objective for c in feasible(problem))
        row, _, _ = limited(problem)
        model, _ = separated(problem)
        form, limit = split(model), (split(row.plain), row.hi)
        assert row.hi == pytest.approx(most)
        for _ in range(20):
            x, price = rng.normal(size=problem.choice_count), 10.0 ** rng.uniform(-3, 3)
            assert tangent_bound(model, form, x, limit, price)[1] <= best + 1e-9
        least = problem.costs["bytes"].reshape(4, 3).min(axis=1).sum()
        assert tangent_bound(model, form, x, limit, 0.0)[1] == pytest.approx(least)


def test_convex_concave_steps_never_rise() -> None:
    for seed in range(times(10)):
        model = quadratic(signed(seed, groups=6))
        box = tight_box(model, ALL)
        form = split(model, box)
        program = Program(model, form)
        start = program.solve(form.linear, ALL).x
        assert start is not None
        end, steps = descended(program, model, form, box, start, ALL)
        assert steps >= 1

        def worth(x: NDArray[np.float64], model: Quadratic = model) -> float:
            own = model.linear.value - 0.5 * (model.vectors**2) @ model.eigenvalues
            return float(own @ x + 0.5 * model.eigenvalues @ (model.vectors.T @ x) ** 2)

        assert worth(end) <= worth(start) + 1e-9
        again, _ = descended(program, model, form, box, end, ALL)
        assert worth(again) == pytest.approx(worth(end), abs=1e-4)


def test_a_tilted_objective_is_the_objective_and_the_loss_at_a_price() -> None:
    for weights in ({"bytes": 1.0}, {"bytes": 0.5, "loss": 2.0}):
        problem, _ = under_loss(signed(3, pairs=True), 0.5, **weights)
        model, row = separated(problem)
        assert row is not None
        both = tilted(model, row, 0.75)
        for c in every(problem)[::7]:
            found = problem.evaluate(c)
            rows = problem.indptr[:-1] + c
            assert both.total(rows) == pytest.approx(found.objective + 0.75 * found.loss)


def test_search_under_a_loss_ends_where_no_two_changes_help() -> None:
    ended = 0
    for seed in range(times(6)):
        problem, _ = under_loss(signed(seed, pairs=True), 0.3, bytes=1.0)
        model, row = separated(problem)
        assert row is not None
        search = LossSearch(model, row, ALL)
        search.begin(problem.indptr[:-1] + np.zeros(4, np.int64))
        if search.best is None:
            continue
        ended += 1
        assert search.best.feasible
        for c in feasible(problem):
            if (c != search.best.rows - problem.indptr[:-1]).sum() <= 2:
                assert problem.evaluate(c).objective >= search.best.objective - 1e-9
    assert ended > times(6) // 2


def test_levels_bring_the_least_cost_under_a_loss_from_the_least_loss() -> None:
    hits = 0
    for seed in range(times(8)):
        problem, most = under_loss(signed(seed, groups=5, pairs=True), 0.05, bytes=1.0)
        model, row = separated(problem)
        assert row is not None
        search = LossSearch(model, row, ALL)
        assert takes(search)
        found = [problem.evaluate(c) for c in every(problem)]
        search.offer(min(found, key=lambda o: o.loss).rows)
        assert search.best is not None
        lowered(search, -np.inf, 20)
        best = min(o.objective for o in found if o.loss <= most)
        assert search.best.loss <= most
        hits += search.best.objective == best
    assert hits >= 0.8 * times(8)


def test_levels_are_for_sums_under_a_max_on_the_loss() -> None:
    for weights, limit, taken in (
        ({"bytes": 1.0}, {"max": 0.0}, True),
        ({"bytes": 1.0}, {"max": 0.0, "min": -9.0}, False),
        ({"bytes": 1.0, "loss": 1.0}, {"max": 0.0}, False),
    ):
        problem = signed(0).replace(minimize=weights, budgets=(Budget(loss=True, **limit),))
        model, row = separated(problem)
        assert row is not None
        assert takes(LossSearch(model, row, ALL)) is taken


def test_kicks_under_a_loss_repeat_and_never_worsen() -> None:
    better = 0
    for seed in range(times(6)):
        problem, _ = under_loss(signed(seed, groups=6, pairs=True), 0.02, bytes=0.1, loss=1.0)
        model, row = separated(problem)
        assert row is not None
        ends = []
        for _ in range(2):
            search = LossSearch(model, row, ALL)
            search.begin(problem.indptr[:-1].copy())
            before = search.best
            search.kick(30)
            ends.append(None if search.best is None else search.best.rows.tolist())
        assert ends[0] == ends[1]
        if before is not None and search.best is not None:
            assert search.best.objective <= before.objective
            better += search.best.objective < before.objective
    assert better > 0


def test_a_slack_limit_on_the_loss_leaves_the_optimum_without_it() -> None:
    for seed in range(times(4)):
        problem = signed(seed, groups=6)
        free = min(problem.evaluate(c).objective for c in feasible(problem))
        rows = (*problem.budgets, Budget(loss=True, max=free + 1.0))
        answer = CvxpySubspace(lift="never").solve(problem.replace(budgets=rows), ALL)
        assert answer.choice is not None
        assert problem.evaluate(answer.choice).objective == pytest.approx(free, abs=1e-10)
        assert answer.statistics["allocation_from"] != "kicks"


def test_a_limit_without_interactions_stays_an_ordinary_row() -> None:
    problem = signed(0).replace(interactions=(), budgets=(Budget(loss=True, max=1.0),))
    model, row = separated(problem)
    assert row is None
    assert len(model.linear.rows) == 1
    with_errors = problem.replace(remainder={"s": np.full(problem.choice_count, 0.1)})
    _, row = separated(with_errors, remainder=True)
    assert row is not None
    assert row.counts_remainders
    assert row.model.linear.value == pytest.approx(row.plain.linear.value + 0.1)


def test_masters_say_no_more_than_the_form_allows() -> None:
    """A form that lies below the objective leaves a gap: what comes back is excluded, until none is left."""
    for seed in range(times(3)):
        problem = signed(seed, groups=3)
        model, row = separated(problem)
        recovery, found = Recovery(model, row, ALL, 30), Relaxations(model, row, ALL)
        assert found.secant() is not None
        found.form = split(model, wide_box(model))
        recovery.begin("cheapest", [problem.indptr[:-1]])
        outer(found, recovery, 80)
        best = min(problem.evaluate(c).objective for c in feasible(problem))
        assert recovery.best is not None
        assert recovery.best.objective == pytest.approx(best)
        assert found.bounds["outer"] <= best + 1e-9


def water(seed: int, groups: int = 5, choices: int = 60) -> tuple[Problem, NDArray[np.float64], NDArray[np.float64]]:
    """Losses a·exp(−b·cost) on a fine grid of costs, with the curves as stats."""
    rng = np.random.default_rng(seed)
    a, b = np.exp(rng.normal(size=groups)), rng.uniform(0.02, 0.05, groups)
    cost = np.tile(np.arange(choices), (groups, 1))
    problem = Problem.from_arrays({"s": a[:, None] * np.exp(-b[:, None] * cost)}, {"bits": cost}, budgets={"bits": 120})
    return problem.replace(stats={"rd_scale": a, "rd_decay": b}), a, b


def test_steps_without_shared_axes_are_reverse_water_filling() -> None:
    for seed in range(times(3)):
        problem, a, b = water(seed)
        (start,) = stepped(quadratic(problem), None, ALL).starts
        lo, hi = np.zeros(5), np.full(5, 59.0)
        target = shares(np.log(a * b) / b, 1 / b, lo, hi, 120.0)
        assert problem.costs["bits"][start] == pytest.approx(target, abs=0.51)


def test_steps_shrink_where_errors_add_up() -> None:
    """Two groups whose errors point the same way share less loss than the budget of each alone would leave them."""
    problem, a, b = water(0, groups=3)
    step = np.exp(-0.5 * b[:, None] * np.arange(60))
    axis = (np.sqrt(a)[:, None] * step * np.array([[1.0], [1.0], [0.0]])).reshape(-1, 1)
    problem = problem.replace(interactions=(Basis("s", np.array([2.0]), axis),)).with_budget("bits", max=70)
    model = quadratic(problem)
    shape = curves(model, problem.costs["bits"].astype(float))
    assert shape.own == pytest.approx([0.0, 0.0, a[2]])
    (start,) = stepped(model, None, ALL).starts
    (alone,) = stepped(quadratic(problem.replace(interactions=())), None, ALL).starts
    cost = problem.costs["bits"]
    assert cost[start][:2].sum() > cost[alone][:2].sum()
    answer = CvxpySubspace(form="steps", kicks=0).solve(problem, ALL)
    assert answer.choice is not None
    assert problem.evaluate(answer.choice).feasible
    assert answer.claimed_bound is None
    assert answer.statistics["form"] == "steps"


def test_steps_give_the_least_cost_under_a_loss() -> None:
    problem, a, b = water(1)
    limit = 0.5 * float(a.sum())
    asked = problem.replace(minimize={"bits": 1.0}, budgets=(Budget(loss=True, max=limit),))
    axis = Basis("s", np.array([1.0]), np.zeros((problem.choice_count, 1)) + 1e-9)
    asked = asked.replace(interactions=(axis,))
    model, row = separated(asked)
    assert row is not None
    (start,) = stepped(model, row, ALL).starts
    cost = problem.costs["bits"][start].astype(float)
    slopes = (a * b * np.exp(-b * cost))[(cost > 0) & (cost < 59)]
    assert slopes.max() / slopes.min() < 1.1  # one slope wherever no end is reached
    assert problem.scores["s"][start].sum() == pytest.approx(limit, rel=0.1)


def test_steps_need_their_stats() -> None:
    with pytest.raises(UnsupportedError, match="'cvxpy_subspace' needs the stat 'rd_scale'"):
        CvxpySubspace(form="steps").solve(signed(0), ALL)


def test_without_time_boxes_stay_wide() -> None:
    model = quadratic(signed(0))
    tight = tight_box(model, Limits(time=1e-9))
    assert (tight.lo == wide_box(model).lo).all()
