"""What a method says that it will cost, against what there is to measure."""

import pytest

from allocator import registry
from allocator.methods.comparing import compare_methods
from allocator.methods.forecasting import PASSES, Extent, extent_of, forecasts, passes_of
from allocator.methods.method import Spec
from allocator.methods.running import method_named
from allocator.space import Space
from profilers._groups import model_sha256

BUDGET = ["weight_bytes=45%"]


def test_the_extent_counts_what_changes_weights(workload, space):
    before = model_sha256(workload.model)
    found = extent_of(workload, method_named("clado").space(space))
    assert found == Extent(choices=(4,) * 6, samples=24)  # four widths; keep changes nothing
    assert found.pairs == 15 * 16
    assert model_sha256(workload.model) == before
    assert extent_of(workload, method_named("llc").space(space)).choices == (12,) * 6


def test_pairs_are_counted_as_they_are_measured(workload, space, monkeypatch):
    """Forward passes that CLADO really makes, over 8 of 24 samples, beside the forecast in thirds of a pass."""
    import profilers.measured_pairs as module

    made = []
    real = module.changed_losses
    monkeypatch.setattr(module, "changed_losses", lambda *rest: made.append(1) or real(*rest))
    method = method_named("clado[samples=8]")
    (expected,) = forecasts(workload, [method], space)
    compare_methods(workload, [method], budgets=BUDGET, space=space)
    idle = 6  # a layer alone is also measured as it is
    assert expected == pytest.approx((len(made) - idle) / 3 * 8 / 24)


def test_hundreds_of_choices_take_tens_of_thousands_of_passes():
    big = Extent(choices=(12,) * 38, samples=128)  # a small transformer with a dozen choices for each of its layers
    assert method_named("clado").forecast(big) == pytest.approx((38 * 37 / 2 * 144 + 456) / 3)
    assert method_named("house").forecast(big) == 13
    assert method_named("modelopt_kl").forecast(big) == pytest.approx(456 / 5)
    assert method_named("hawq_v2").forecast(big) == 17 * 38
    # 64 of 128 samples: the expansion once and a half, and half a forward pass for each choice
    assert method_named("llc").forecast(big) == pytest.approx(3 * 1.5 + 456 / 3 / 2)
    # 150 generations of 128 at 1/64, 16 at 1/8 and 4 on all, and 16 to begin with
    assert method_named("evopress[generations=150,offspring=128]").forecast(big) == pytest.approx((150 * 8 + 16) / 3)


def test_every_method_and_every_statistic_has_a_forecast(workload, space):
    names = sorted(registry.entries("methods"))
    found = dict(zip(names, forecasts(workload, [method_named(name) for name in names], space), strict=True))
    assert all(passes is not None and 0 <= passes < 1000 for passes in found.values()), found
    assert set(PASSES) | {"latency"} == set(registry.entries("profilers"))  # latency is no method's


def test_a_statistic_of_ones_own_can_say_what_it_takes(monkeypatch):
    class Mine:
        def passes(self, extent):
            return 2 * extent.layers

    monkeypatch.setattr("allocator.registry.make", lambda kind, name, options: Mine())
    assert passes_of(Spec("mine"), Extent(choices=(1, 1, 1), samples=4)) == 6


def test_a_space_that_a_method_cannot_take_has_none(workload):
    assert forecasts(workload, [method_named("hawq_v2")], Space.simple(bits=(), ranks=(0.5,))) == [None]


def test_what_would_take_too_long_is_not_begun(workload, space, tmp_path, monkeypatch):
    import profilers.measured_pairs as module

    said = []
    with monkeypatch.context() as patch:
        patch.setattr(module, "changed_losses", lambda *_: pytest.fail("begun"))
        found = compare_methods(
            workload, ["clado", "relative_error"], budgets=BUDGET, space=space, resume=tmp_path, most_passes=20,
            progress=lambda stage, done, total: said.append(stage),
        )  # fmt: skip
    rows = {row.method: row for row in found.rows}
    assert rows["clado"].failed == "left out: it would take about 88 passes, and at most 20 were asked for"
    assert rows["clado"].forecast == 88
    assert rows["clado"].to_json()["forecast"] == 88
    assert rows["relative_error"].judged is not None
    assert "methods: clado, about 88 passes" in said
    later = compare_methods(workload, ["clado"], budgets=BUDGET, space=space, resume=tmp_path)
    assert next(row for row in later.rows if row.method == "clado").judged is not None  # nothing was remembered
    kept = compare_methods(workload, ["clado"], budgets=BUDGET, space=space, resume=tmp_path, most_passes=20)
    assert next(row for row in kept.rows if row.method == "clado").judged is not None  # what is done stays
