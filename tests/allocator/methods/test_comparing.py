import json

import pytest

import allocator
from allocator.errors import UsageError
from allocator.methods import comparing
from allocator.methods.comparing import compare_methods
from allocator.methods.plotting import draw
from allocator.methods.running import run
from allocator.space import Space

METHODS = ["modelopt_kl", "relative_error", "radio", "llc"]
BUDGETS = ["weight_bytes=60%", "weight_bytes=45%"]


def test_all_rows_are_within_one_budget_and_judged_on_the_same_samples(workload, space):
    found = compare_methods(workload, METHODS, budgets=BUDGETS, space=space)
    assert next(row.method for row in found.rows if row.budget == BUDGETS[1]) == "uniform"
    assert len(found.rows) == 2 * (1 + len(METHODS))
    assert found.samples == 40
    for budget in BUDGETS:
        rows = {row.method: row for row in found.rows if row.budget == budget}
        (limit,) = {row.limits["weight_bytes"] for row in rows.values() if row.limits}
        alive = {name: row for name, row in rows.items() if row.judged is not None}
        assert all(row.used["weight_bytes"] <= limit for row in alive.values())
        assert all(row.failed for name, row in rows.items() if name not in alive)
        order = [row.judged.value("kl").value for row in found.rows if row.budget == budget and row.judged]
        assert order[1:] == sorted(order[1:])
        if budget in found.best:
            assert alive[found.best[budget]].judged.value("kl").value == order[1]
            assert not alive[found.best[budget]].less_best
        for name, row in alive.items():
            if name != "uniform" and "uniform" in alive:
                gap = row.judged.value("kl").value - alive["uniform"].judged.value("kl").value
                assert row.less_uniform["kl"].value == pytest.approx(gap)
                claimed = {"better": row.less_uniform["kl"].high < 0, "worse": row.less_uniform["kl"].low > 0}
                assert claimed.get(row.verdict, not row.less_uniform["kl"].separated)
    assert json.dumps(found.to_json())  # plain


def test_a_row_is_what_run_gives(workload, space):
    (row,) = [r for r in compare_methods(workload, ["llc"], budgets=BUDGETS[1:], space=space).rows if r.method == "llc"]
    alone = run(workload, "llc", budgets=BUDGETS[1], space=space)
    assert row.choices == dict(alone.chosen.solution.choices)
    assert row.predicted == alone.chosen.predicted
    assert row.lossless == alone.chosen.certified.lossless
    assert row.less_uniform["loss"] == alone.against_uniform("loss")


def test_a_finished_row_is_not_done_again(workload, space, tmp_path, monkeypatch):
    first = compare_methods(workload, METHODS[:2], budgets=BUDGETS[1:], space=space, resume=tmp_path)
    monkeypatch.setattr(comparing._Bench, "_made", lambda *_: pytest.fail("done again"))
    again = compare_methods(workload, METHODS[:2], budgets=BUDGETS[1:], space=space, resume=tmp_path)
    assert again.to_json() == first.to_json()  # what they took too
    with pytest.raises(pytest.fail.Exception):
        compare_methods(workload, ["relative_error"], budgets=BUDGETS[1:], space=space, resume=tmp_path, seed=1)


def test_statistics_are_measured_once_for_all_budgets_and_methods(workload, space, monkeypatch):
    asked = []
    real = comparing.profiled
    monkeypatch.setattr(comparing, "profiled", lambda recipe, *rest: asked.append(recipe.name) or real(recipe, *rest))
    found = compare_methods(workload, ["relative_error", "relative_error", "radio"], budgets=BUDGETS, space=space)
    assert asked == ["relative_error", "radio"]
    passes = [row.passes for row in found.rows if row.method == "relative_error"]
    assert len(passes) == 4
    assert min(passes) > 0


def test_a_method_that_cannot_work_has_a_row_that_says_why(workload, space):
    ranks = Space.simple(bits=(), ranks=(0.5,))
    rows = {
        r.method: r
        for r in compare_methods(workload, ["hawq_v2", "d_rank"], budgets=["weight_bytes=9"], space=ranks).rows
    }
    assert "has no bit-width" in rows["hawq_v2"].failed
    assert rows["d_rank"].failed.startswith("infeasible")
    assert rows["uniform"].failed == "no uniform allocation is within the budget"
    assert {row.verdict for row in rows.values()} == {"none"}


def test_a_drawing(workload, space, tmp_path):
    found = compare_methods(workload, METHODS[:2], budgets=BUDGETS[1:], space=space)
    draw(found, str(tmp_path / "f.png"))
    assert (tmp_path / "f.png").stat().st_size > 5000
    with pytest.raises(UsageError, match="--plot"):
        draw(found, str(tmp_path / "f.nothing"))


def test_the_names_are_exported():
    assert allocator.run is run
    assert allocator.compare_methods is compare_methods
    assert "house" in comparing.available()
