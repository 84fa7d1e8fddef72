"""Explanations against dumb references: every change tried, every price scanned."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction
from random import Random
from typing import Any

import numpy as np
import pytest

import allocator
from allocator.errors import UsageError
from allocator.explanation import Explanation, explain
from allocator.problem import Problem
from allocator.reasons import KINDS
from allocator.statement import Budget, Resource
from allocator.testing.depth import times
from allocator.testing.random_problems import LINEAR, PARTS, random_rows
from allocator.testing.reference import Places, Reference


def some_allocation(reference: Reference, seed: int) -> Places | None:
    """The optimum half of the time, else anything feasible."""
    if reference.best is None:
        return None
    return reference.best.places if seed % 2 else Random(seed).choice(reference.feasible)


def changed(places: Places, g: int, k: int) -> Places:
    return (*places[:g], k, *places[g + 1 :])


def test_runner_up_is_the_best_of_all_single_changes() -> None:
    compared = found = 0
    for seed in range(times(200)):
        reference = Reference(random_rows(seed, PARTS - {"same_choice"}))
        places = some_allocation(reference, seed)
        if places is None:
            continue
        explained = explain(Problem.from_rows(reference.rows), places)
        now = reference.objective(places)
        slip = 1e-12 * reference.scale + 4 * reference.noise + 1e-15 * abs(now)
        for g, group in enumerate(reference.groups):
            others = [changed(places, g, k) for k in range(len(group["choices"])) if k != places[g]]
            kept = [p for p in others if not reference.violations(p)]
            best = min(
                ((reference.objective(p) - now, reference.tie(p) - reference.tie(places)) for p in kept), default=None
            )
            reason, words = explained.group(group["name"]), f"random_rows({seed}) {places} {group['name']}"
            compared += 1
            if best is None:
                assert reason.runner_up is None, words
                assert explained.regret[g] == math.inf
                continue
            found += 1
            assert explained.regret[g] == pytest.approx(best[0], abs=slip), words
            [(name, choice)] = reason.runner_up.choices.items()
            k = [c["name"] for c in group["choices"]].index(choice)
            assert name == group["name"]
            assert reason.runner_up.breaks == ()
            taken = changed(places, g, k)
            assert taken in kept, words
            assert reference.objective(taken) - now == pytest.approx(best[0], abs=slip), words
            largest = max(abs(total) for total in reference.totals(places).values())
            assert reason.runner_up.use == pytest.approx(
                {r: reference.total(taken, r) - reference.total(places, r) for r in reference.resources},
                rel=1e-9,
                abs=1e-6 + 1e-15 * largest,
            )
    assert compared > found > times(100)


def values_of(reference: Reference, g: int) -> list[float]:
    """What each choice adds to the objective."""
    choices = reference.groups[g]["choices"]
    return [
        sum(
            w * (reference.unary[g][k] if name == "loss" else choice["cost"][name])
            for name, w in reference.minimize.items()
        )
        for k, choice in enumerate(choices)
    ]


def uses_of(reference: Reference, g: int, row: dict[str, Any]) -> list[float]:
    """What each choice adds to a budget row."""
    group = reference.groups[g]
    if "tags" in row and not set(row["tags"]) & set(group.get("tags", [])):
        return [0.0] * len(group["choices"])
    if "resource" in row:
        return [c["cost"][row["resource"]] for c in group["choices"]]
    more = row.get("include_remainder", False)
    return [c["score"][row["score"]] + more * c.get("remainder", {}).get(row["score"], 0.0) for c in group["choices"]]


def test_intervals_hold_the_prices_at_which_a_scan_finds_the_choice_best() -> None:
    inside = outside = 0
    for seed in range(times(200)):
        reference = Reference(random_rows(seed, LINEAR - {"max_masks"}))
        places = some_allocation(reference, seed)
        if places is None:
            continue
        explained = explain(Problem.from_rows(reference.rows), places)
        prices = explained.multipliers
        rows = reference.rows["budgets"]
        for g in range(len(reference.groups)):
            uses = [uses_of(reference, g, row) for row in rows]
            for i, row in enumerate(rows):
                base = [Fraction(v) for v in values_of(reference, g)]
                for j, price in enumerate(prices):
                    base = [
                        b + (Fraction(price) * Fraction(u) if j != i else 0) for b, u in zip(base, uses[j], strict=True)
                    ]
                rounded = sum(abs(p) * max(map(abs, u)) for p, u in zip(prices, uses, strict=True))
                for price in scanned([float(b) for b in base], uses[i], reference.free[g], row):
                    lowered = [b + Fraction(price) * Fraction(u) for b, u in zip(base, uses[i], strict=True)]
                    margin = min(lowered[k] for k in reference.free[g]) - lowered[places[g]]
                    sizes = [abs(b) + abs(Fraction(price) * Fraction(u)) for b, u in zip(base, uses[i], strict=True)]
                    if 0 < -margin < 1e-9 * max(sizes) + 1e-14 * rounded:
                        continue  # rounding decides
                    low, high = (float(end[g]) for end in explained.interval(i))
                    assert (low <= price <= high) == (margin == 0), f"random_rows({seed}) {g} {i} at {price}"
                    inside += margin == 0
                    outside += margin != 0
    assert min(inside, outside) > times(300)


def scanned(base: list[float], uses: list[float], free: list[int], row: dict[str, Any]) -> list[float]:
    """Prices between, below and above all those at which two choices are equal; of the signs that the row allows."""
    exact = [Fraction(use) for use in uses]
    turns = {-(base[a] - base[b]) / float(exact[a] - exact[b]) for a in free for b in free if exact[a] != exact[b]}
    ends = sorted({0.0, *(t for t in turns if math.isfinite(t))})
    between = [(a + b) / 2 for a, b in itertools.pairwise(ends)]
    every = [0.0, 2 * ends[0] - 1, *between, 2 * ends[-1] + 1]
    return [p for p in every if (p >= 0 or "min" in row) and (p <= 0 or "max" in row)]


def test_reduced_cost_is_what_the_best_by_price_is_below() -> None:
    fills = 0
    for seed in range(times(200)):
        reference = Reference(random_rows(seed, LINEAR - {"max_masks"}))
        places = some_allocation(reference, seed)
        if places is None:
            continue
        explained = explain(Problem.from_rows(reference.rows), places)
        for g in range(len(reference.groups)):
            lowered = values_of(reference, g)
            size = max(map(abs, lowered))
            for row, price in zip(reference.rows["budgets"], explained.multipliers, strict=True):
                lowered = [v + price * u for v, u in zip(lowered, uses_of(reference, g, row), strict=True)]
                size += abs(price) * max(map(abs, uses_of(reference, g, row)))
            cost = lowered[places[g]] - min(lowered[k] for k in reference.free[g])
            assert explained.reduced_cost[g] == pytest.approx(cost, abs=1e-9 * size)
            kind = KINDS[explained.kind[g]]
            if len(reference.free[g]) == 1:
                assert kind == "forced"
            elif cost > 1e-9 * size:
                assert kind in ("fill", "improvable"), f"random_rows({seed}) {g} {cost} {size}"
                fills += kind == "fill"
                intervals = [explained.interval(i) for i in range(len(explained.multipliers))]
                for (low, high), price in zip(intervals, explained.multipliers, strict=True):
                    assert not low[g] <= price <= high[g]
            elif cost <= 0:
                assert kind in ("price", "improvable")
    assert fills > times(20)


def knapsack(limit: int = 9000) -> Problem:
    losses = [[5.0, 2, 1], [4, 1.5, 0.2], [3, 2.9, 0]]
    costs = np.array([[1, 2, 4], [1, 3, 4], [1, 2, 3]]) * 1000
    return Problem.from_arrays(
        {"kl": np.array(losses)}, {"bytes": costs}, group_names=["a", "b", "c"], choice_names=["x", "y", "z"],
        budgets={"bytes": limit}, resources={"bytes": Resource("byte")},
    )  # fmt: skip


def test_reason_in_words_and_numbers() -> None:
    problem = knapsack()
    explained = explain(problem, allocator.solve(problem))
    assert explained.status == "optimal"
    assert dict(zip("abc", (r.choice for r in map(explained.group, "abc")), strict=True)) == {
        "a": "y",
        "b": "z",
        "c": "z",
    }
    reason = explained.group("a")
    assert reason.kind == "price"
    assert reason.why == "best by price: holds while one B is worth between 0.0005 and 0.003 of loss"
    assert reason.intervals == (pytest.approx((0.0005, 0.003)),)
    assert reason.next_better.choices == {"a": "z"}
    assert reason.next_better.objective == -1
    assert reason.next_better.use == {"bytes": 2000}
    assert reason.next_better.breaks == ("bytes",)
    assert explained.counts["price"] == 3


def test_fill_choice_is_off_the_hull_or_outside_its_interval() -> None:
    problem = knapsack(8000)
    explained = explain(problem, {"a": "y", "b": "z", "c": "y"})
    reason = explained.group("c")
    assert reason.kind == "fill"
    assert reason.intervals == (None,)
    assert "taken to make the budgets fit" in reason.why
    assert "best at no price" in reason.why
    assert reason.reduced_cost > 0
    better = explain(problem, {"a": "x", "b": "y", "c": "y"}).group("c")
    assert better.kind == "improvable"
    assert "keeps everything" in better.why


def test_groups_of_a_same_choice_change_together(example) -> None:
    problem = Problem.from_rows(example)
    explained = explain(problem, allocator.solve(problem))
    first, second = explained.group("attn.q_proj"), explained.group("attn.k_proj")
    assert first.changes_with == ("attn.k_proj",)
    assert set(first.runner_up.choices) == {"attn.q_proj", "attn.k_proj"}
    assert first.runner_up == second.runner_up
    taken = dict(allocator.solve(problem).choices) | dict(first.runner_up.choices)
    outcome = problem.evaluate(np.array([problem.row(g, c) for g, c in taken.items()]) - problem.indptr[:-1])
    assert outcome.feasible
    assert outcome.objective - explained.outcome.objective == pytest.approx(first.runner_up.objective)
    assert explained.group("head").why == "forced: pinned"


def test_changes_of_tied_groups_are_as_feasible_and_as_good_as_they_say() -> None:
    tied = 0
    for seed in range(times(150)):
        reference = Reference(random_rows(seed, PARTS))
        places = some_allocation(reference, seed)
        if places is None:
            continue
        problem = Problem.from_rows(reference.rows)
        explained = explain(problem, places)
        json.dumps(explained.to_json(most=99))
        now, slip = reference.objective(places), 1e-12 * reference.scale + 4 * reference.noise
        for group in problem.group_names:
            reason = explained.group(group)
            tied += bool(reason.changes_with)
            for other in (reason.runner_up, reason.best_other_by_price, reason.next_better):
                if other is None:
                    continue
                names = reference.names(places) | dict(other.choices)
                rows = np.array([problem.row(g, c) for g, c in names.items()]) - problem.indptr[:-1]
                taken = tuple(rows.tolist())
                assert bool(other.breaks) == bool(reference.violations(taken)), f"random_rows({seed}) {group} {other}"
                assert other.objective == pytest.approx(reference.objective(taken) - now, abs=slip + 1e-15 * abs(now))
    assert tied > times(10)


def test_couplings_say_whether_there_is_room_and_what_they_rule_out(example) -> None:
    problem = Problem.from_rows(example)
    explained = explain(problem, allocator.solve(problem))
    told = explained.couplings()
    assert [c["tight"] for c in told] == [True, True, False, True]
    everything = Reference(example)
    places = tuple((explained.outcome.rows - problem.indptr[:-1]).tolist())
    for i, coupling in enumerate(told):
        without = Reference(example | {"couplings": example["couplings"][:i] + example["couplings"][i + 1 :]})
        better = 0
        for g, group in enumerate(everything.groups):
            for k in range(len(group["choices"])):
                p = changed(places, g, k)
                lower = everything.objective(p) < everything.objective(places) - 1e-12
                better += lower and not without.violations(p) and bool(everything.violations(p))
        assert coupling["improvements_ruled_out"] == better


@pytest.mark.parametrize("loss", [{"aggregate": "max"}, {"aggregate": "pnorm", "p": 3}])
def test_other_losses_say_what_prices_are_of(loss: dict[str, Any]) -> None:
    problem = knapsack()
    problem = problem.with_loss("kl", **loss)
    explained = explain(problem, allocator.solve(problem))
    assert explained.notes
    assert all(m is not None for m in explained.multipliers)
    assert explained.counts["unpriced"] == 0


def test_norm_prices_are_slopes_of_the_norm() -> None:
    rng = np.random.default_rng(1)
    problem = Problem.from_arrays(
        rng.random((400, 5)) * 4.0 ** -np.arange(5), rng.integers(1, 9, (400, 1)) * np.arange(1, 6)
    )
    problem = problem.with_loss("score", aggregate="pnorm", p=2).with_budget("cost", 5000)
    [price] = explain(problem, allocator.solve(problem)).multipliers
    there, more = (allocator.solve(problem, budgets={"cost": b}).objective for b in (5000, 5050))
    assert price == pytest.approx((there - more) / 50, rel=0.1)


def test_what_is_not_a_sum_has_no_prices_and_says_why() -> None:
    problem = knapsack().replace(resources={"bytes": Resource("byte", "max")}, minimize={"bytes": 1.0})
    explained = explain(problem, [0, 0, 0])
    assert "no prices" in explained.notes[0]
    assert explained.counts["unpriced"] == 3
    assert np.isnan(explained.reduced_cost).all()
    assert np.isnan(explained.interval(0)[0]).all()
    assert explained.group("a").best_other_by_price is None


def test_document_is_plain_data_and_shows_the_worst_runner_up_first(example) -> None:
    problem = Problem.from_rows(example)
    explained = explain(problem, allocator.solve(problem))
    document = json.loads(json.dumps(explained.to_json()))
    regrets = [g["runner_up"]["objective"] for g in document["groups"] if g["runner_up"]]
    assert regrets == sorted(regrets, reverse=True)
    assert sum(document["kinds"].values()) == problem.group_count
    assert len(explained.to_json(most=2)["groups"]) == 2
    assert explained.to_json(group="head")["groups"][0]["group"] == "head"


def test_errors_name_the_thing() -> None:
    explained = explain(knapsack(), [1, 2, 2])
    with pytest.raises(UsageError, match="no group 'nobody'"):
        explained.group("nobody")
    with pytest.raises(UsageError, match="no budget row 3"):
        explained.interval(3)
    with pytest.raises(UsageError, match="does not belong"):
        explain(knapsack(), [1, 2])
    assert isinstance(explained, Explanation)
    assert repr(explained) == "Explanation(3 groups: 3 price)"


def test_rows_with_both_sides_and_minima() -> None:
    problem = knapsack().replace(budgets=(Budget("bytes", min=10500),), minimize={"loss": -1.0})
    explained = explain(problem, allocator.solve(problem))
    assert all(m <= 0 for m in explained.multipliers)
    _, high = explained.interval(0)
    assert (high[~np.isnan(high)] <= 0).all()
    assert "less would save" in explained.budgets()[0]["says"]
