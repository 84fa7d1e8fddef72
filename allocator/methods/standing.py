"""The rows of a comparison of methods, and what may be said of their differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from allocator.methods.judging import Interval, Judged, interval
from allocator.methods.method import Method
from allocator.statement import Number

METRICS = ("kl", "loss", "accuracy")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method under one budget.

    Attributes:
        method: its name; ``uniform`` for the yardstick.
        options: the recipe with all its options.
        fidelity: how much of the paper it is.
        budget: as it was asked for.
        failed: why there is no allocation; None where there is one.
        used: of each budgeted resource.
        limits: of each, as enforced.
        predicted: in the unit of the method's own loss.
        unit: what that stands for: kl, ce, metric or proxy.
        said: by the method.
        lossless: whether it is certified; None for a method that does not claim to be.
        passes: forward and backward passes that its CPU time amounts to.
        forecast: passes that were expected before it began; None where it could not be laid out.
        seconds: on the clock.
        choices: taken.
        judged: on the evaluation data.
        less_uniform: metric → difference from uniform under the same budget.
        less_best: the same from the method of least measured KL.
    """

    method: str
    options: str
    fidelity: str
    budget: str
    failed: str | None = None
    used: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, Number | None] = field(default_factory=dict)
    predicted: float | None = None
    unit: str = "proxy"
    said: str = ""
    lossless: bool | None = None
    passes: float | None = None
    forecast: float | None = None
    seconds: float | None = None
    choices: Mapping[str, str] | None = None
    judged: Judged | None = field(default=None, repr=False)
    less_uniform: Mapping[str, Interval] = field(default_factory=dict)
    less_best: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Of the divergence on held-out data; a difference is claimed only where its interval excludes 0."""
        if self.failed is not None:
            return "none"
        if "kl" not in self.less_uniform:
            return ""
        found = self.less_uniform["kl"]
        if not found.separated:
            return "as uniform"
        return "better" if found.high < 0 else "worse"

    def kept(self) -> dict[str, Any]:
        """All but judgement and differences, as plain data."""
        names = ("failed", "used", "limits", "predicted", "unit", "said", "lossless", "passes", "forecast", "seconds",
                 "choices")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    @staticmethod
    def revived(
        recipe: Method,
        budget: str,
        kept: Mapping[str, Any],
        judged: Mapping[str, Any] | None,
        read: Callable[[Mapping[str, Any]], Judged],
    ) -> Row:
        """A row from `kept` and the tensors of its judgement."""
        return Row(
            method=recipe.name, options=repr(recipe), fidelity=recipe.fidelity, budget=budget,
            judged=None if judged is None else read(judged), **kept,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain data; null where nothing was measured."""
        measured = {}
        if self.judged is not None:
            for metric in METRICS:
                if metric in self.judged.sums:
                    found = self.judged.value(metric)
                    measured[metric] = {"value": found.value, "stderr": found.stderr}
        return {
            "method": self.method,
            "options": self.options,
            "fidelity": self.fidelity,
            "budget": self.budget,
            **self.kept(),
            "measured": measured,
            "less_uniform": {name: found.to_json() for name, found in self.less_uniform.items()},
            "less_best": {name: found.to_json() for name, found in self.less_best.items()},
            "verdict": self.verdict,
        }


@dataclass(frozen=True, kw_only=True)
class Contest:
    """All rows, those of one budget together, uniform first and then by measured divergence.

    Attributes:
        workload: name.
        rows: see `Row`.
        best: budget → the method of least measured KL; it is picked on the data that it is compared on, which favours
            it.
        original: the float network's metrics.
        samples: of evaluation data.
    """

    workload: str
    rows: tuple[Row, ...]
    best: Mapping[str, str]
    original: Mapping[str, float]
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "workload": self.workload,
            "samples": self.samples,
            "float": dict(self.original),
            "best": dict(self.best),
            "rows": [row.to_json() for row in self.rows],
        }


def contest(workload: str, rows: Sequence[Row], samples: int) -> Contest:
    """Rows with their differences, in order."""
    done: list[Row] = []
    best: dict[str, str] = {}
    original: dict[str, float] = {}
    for budget in dict.fromkeys(row.budget for row in rows):
        own = [row for row in rows if row.budget == budget]
        uniform = next((row.judged for row in own if row.method == "uniform"), None)
        rivals = sorted((row for row in own if row.method != "uniform"), key=_divergence)
        first = rivals[0] if rivals and rivals[0].judged is not None else None
        if first is not None:
            best[budget] = first.method
        for row in [*(row for row in own if row.method == "uniform"), *rivals]:
            judged = row.judged
            if judged is None:
                done.append(row)
                continue
            if judged.original is not None:
                original |= {
                    name: judged.original.value(name).value for name in METRICS if name in judged.original.sums
                }
            yardstick = None if row.method == "uniform" else uniform
            leader = None if first is None or row is first else first.judged
            done.append(
                replace(row, less_uniform=_differences(judged, yardstick), less_best=_differences(judged, leader))
            )
    return Contest(workload=workload, rows=tuple(done), best=best, original=original, samples=samples)


def _divergence(row: Row) -> float:
    return float("inf") if row.judged is None else row.judged.value("kl").value


def _differences(one: Judged, other: Judged | None) -> dict[str, Interval]:
    if other is None:
        return {}
    return {metric: interval(one, other, metric) for metric in METRICS if metric in one.sums}
