"""The rows that `python -m benchmarks.profilers` can measure, each a function in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from benchmarks.profilers.allocated import allocated
from benchmarks.profilers.bench import Bench
from benchmarks.profilers.cost import cost, making
from benchmarks.profilers.goals import CNN, LANGUAGE, TRANSFORMER
from benchmarks.profilers.prefix import prefix
from benchmarks.profilers.single import single
from benchmarks.profilers.smollm2 import smollm2
from benchmarks.profilers.untouched import untouched
from benchmarks.profilers.whole import whole

Row = Callable[[Bench], Mapping[str, float]]

ROWS: Mapping[str, Row] = {
    "cost": cost,
    "single": single,
    "whole ggn": partial(whole, "ggn"),
    "whole refined": partial(whole, "refined"),
    "refine cost": partial(making, "refined"),
    "allocated ggn": partial(allocated, "ggn"),
    "allocated refined": partial(allocated, "refined"),
    "prefix": prefix,
    "untouched": untouched,
    "smollm2": smollm2,
}
"""A row about a predictor that `predictors.MAKERS` lacks is told as not measured."""

NETWORKS: Mapping[str, tuple[str, ...]] = {
    network: tuple(row for row in ROWS if (row == "smollm2") == (network == LANGUAGE))
    for network in (CNN, TRANSFORMER, LANGUAGE)
}
"""Network to its rows."""
