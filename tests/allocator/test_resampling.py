"""Stability against the same draws made by hand and every allocation looked at."""

from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest

import allocator
from allocator.errors import UsageError
from allocator.problem import Problem
from allocator.resampling import stability
from allocator.statement import Budget
from allocator.testing.reference import Reference


def rows_with_errors(seed: int, **loss) -> dict:
    rng = Random(seed)
    groups = [
        {"name": f"l{g}", "choices": [
            {"name": f"{k}", "cost": {"bytes": k + 1}, "score": {"kl": 3.0 ** -k + rng.random() / 5},
             "stderr": {"kl": rng.random() / 2}} for k in range(3)]}
        for g in range(4)
    ]  # fmt: skip
    return {
        "format": "allocation-problem", "version": 1, "groups": groups, "loss": {"terms": {"kl": 1}, **loss},
        "budgets": [{"resource": "bytes", "max": 8}],
    }  # fmt: skip


@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("loss", [{}, {"stderr_weight": 1.5}, {"aggregate": "max"}])
def test_samples_are_those_drawn_by_hand(correlated: bool, loss: dict) -> None:
    rows = rows_with_errors(3, **loss)
    problem = Problem.from_rows(rows)
    found = stability(problem, samples=12, seed=5, correlated=correlated)
    stated = Reference(rows).best.places
    assert found.stated.tolist() == [3 * g + k for g, k in enumerate(stated)]
    counts = np.zeros(problem.choice_count, int)
    for i in range(12):
        z = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(i,))).standard_normal(4 if correlated else 12)
        redrawn = json.loads(json.dumps(rows))
        for g, group in enumerate(redrawn["groups"]):
            for k, choice in enumerate(group["choices"]):
                choice["score"]["kl"] += choice["stderr"]["kl"] * z[g if correlated else 3 * g + k]
        reference = Reference(redrawn)
        best = reference.best
        counts[[3 * g + k for g, k in enumerate(best.places)]] += 1
        assert found.best[i] == pytest.approx(best.objective, rel=1e-12)
        assert found.objective[i] == pytest.approx(reference.objective(stated), rel=1e-12)
        assert found.regret[i] == pytest.approx(reference.objective(stated) - best.objective, abs=1e-12)
    assert found.kept.tolist() == counts.tolist()
    assert (found.solved, found.proved, found.broken) == (12, 12, 0)
    assert found.stays == pytest.approx([counts[r] / 12 for r in found.stated])
    assert found.stays.min() < 1
    assert [f["stays"] for f in found.flips()] == sorted(f["stays"] for f in found.flips())


def test_first_samples_do_not_depend_on_how_many_there_are() -> None:
    problem = Problem.from_rows(rows_with_errors(1))
    few, many = stability(problem, samples=3), stability(problem, samples=6)
    assert few.best.tolist() == many.best[:3].tolist()
    assert few.to_json() == stability(problem, samples=3).to_json()
    assert few.best.tolist() != stability(problem, samples=3, seed=1).best.tolist()


def test_rows_that_limit_the_loss_may_break() -> None:
    problem = Problem.from_rows(rows_with_errors(2)).replace(minimize={"bytes": 1.0})
    problem = problem.replace(budgets=(Budget(loss=True, max=1.2),))
    found = stability(problem, samples=40)
    assert 0 < found.broken < 40
    assert int(np.isnan(found.regret).sum()) >= found.broken
    assert (found.regret[~np.isnan(found.regret)] >= 0).all()


def test_robust_allocation_is_kept_more_often_than_it_is_worth_less() -> None:
    """One choice with a slightly better score and a huge error: only the plain optimum takes it."""
    plain = Problem.from_arrays(
        {"kl": [[0.0, 1.0]]}, {"bytes": [[1, 1]]}, stderr={"kl": np.array([4.0, 0.0])},
    )  # fmt: skip
    robust = plain.with_loss("kl", stderr_weight=1.0)
    first, second = stability(plain, samples=200), stability(robust, samples=200)
    assert first.stated.tolist() == [0]
    assert second.stated.tolist() == [1]
    assert 0.5 < first.stays[0] < 0.7
    assert second.stays[0] > 0.7
    assert second.spread(second.objective)["sd"] == 0
    assert first.spread(first.objective)["sd"] == pytest.approx(4, rel=0.15)


def test_norm_sets_negative_draws_to_0_and_says_so() -> None:
    problem = Problem.from_rows(rows_with_errors(4, aggregate="pnorm", p=2))
    found = stability(problem.with_scores(problem.scores, stderr={"kl": np.full(12, 0.5)}), samples=5)
    assert 0 < found.clipped < 1
    assert found.proved == 5


def test_stated_allocation_may_be_given() -> None:
    problem = Problem.from_rows(rows_with_errors(1))
    worst = stability(problem, samples=5, solution=[0, 0, 0, 0])
    assert worst.stated.tolist() == [0, 3, 6, 9]
    assert (worst.regret > 0).all()


def test_document_is_plain_data() -> None:
    document = json.loads(json.dumps(stability(Problem.from_rows(rows_with_errors(1)), samples=4).to_json()))
    assert document["samples"] == 4
    assert set(document["regret"]) == {"mean", "sd", "q0.05", "q0.5", "q0.95"}
    assert allocator.stability is stability


def test_errors_name_the_thing() -> None:
    problem = Problem.from_rows(rows_with_errors(1))
    with pytest.raises(UsageError, match="give 1 or more"):
        stability(problem, samples=0)
    with pytest.raises(UsageError, match="nothing to redraw"):
        stability(problem.replace(stderr={}))
    with pytest.raises(UsageError, match="no allocation to start from"):
        stability(problem.with_budget("bytes", 1))


def test_interrupt_keeps_what_was_done(monkeypatch) -> None:
    problem = Problem.from_rows(rows_with_errors(1))
    calls = []

    def stop(what, done, total):
        calls.append(done)
        if done == 3:
            raise KeyboardInterrupt

    found = stability(problem, samples=10, progress=stop)
    assert (found.samples, found.limit, len(found.best)) == (3, "interrupt", 3)
    assert found.best.tolist() == stability(problem, samples=3).best.tolist()
