"""Budgets as people write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from allocator.budgets import apply_budgets, resolve
from allocator.errors import UsageError
from allocator.problem import Problem
from allocator.statement import Budget

WEIGHTS = 1728 + 36864 + 36864 + 65536 + 65536 + 2560
KEEP = 6912 + 147456 + 147456 + 262144 + 262144 + 10240


@pytest.fixture
def problem(example: dict[str, Any]) -> Problem:
    """Bytes with an offset of 1216, milliseconds, a largest number of bytes; reference "keep"."""
    return Problem.from_rows(example)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("100000", 100000),
        ("1e5", 100000.0),
        ("-3", -3),
        ("+7", 7),
        (".5", 0.5),
        ("5.", 5.0),
        ("9007199254740993", 9007199254740993),
        ("12MB", 12_000_000),
        ("12 MB", 12_000_000),
        ("12mb", 12_000_000),
        ("12kB", 12_000),
        ("1.5GiB", 1.5 * 2**30),
        ("1TiB", 2**40),
        ("2TB", 2 * 10**12),
        ("3b", 3),
        ("7B", 7),
        ("4KiB", 4096),
        ("1.1B", 1.1),
        ("4bits", 4 * WEIGHTS / 8 + 1216),
        ("4.25bits", 4.25 * WEIGHTS / 8 + 1216),
        ("4.25 bit", 4.25 * WEIGHTS / 8 + 1216),
        ("25%", (KEEP + 1216) / 4),
        ("100%", KEEP + 1216),
        ("0%", 0),
    ],
)
def test_a_text_stands_for_a_number(text: str, number: float, problem: Problem) -> None:
    found = resolve(problem, "weight_bytes", text)
    assert found == number
    assert isinstance(found, int) or not number.is_integer() or text in ("1e5", "5.")  # whole sizes are integers


def test_bits_and_bytes(example: dict[str, Any]) -> None:
    example["resources"]["weight_bytes"]["unit"] = "bit"
    problem = Problem.from_rows(example)
    assert resolve(problem, "weight_bytes", "12MB") == 96_000_000
    assert resolve(problem, "weight_bytes", "4bits") == 4 * WEIGHTS + 1216


def test_without_a_reference_the_dearest_allowed_choices_are_the_whole(example: dict[str, Any]) -> None:
    del example["reference"]
    problem = Problem.from_rows(example)
    assert resolve(problem, "weight_bytes", "50%") == (KEEP + 1216) / 2
    example["groups"][0]["choices"][3]["allowed"] = False
    example["pins"] = {}
    assert resolve(Problem.from_rows(example), "weight_bytes", "100%") == KEEP + 1216 - 6912 + 1856
    assert resolve(problem, "peak_bytes", "50%") == 131072


def test_a_reference_may_name_each_choice(example: dict[str, Any]) -> None:
    example["reference"] = {group["name"]: "int2" for group in example["groups"]}
    total = sum(group["choices"][0]["cost"]["weight_bytes"] for group in example["groups"]) + 1216
    assert resolve(Problem.from_rows(example), "weight_bytes", "100%") == total


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("float", "no choice has the label 'float'"),
        ("rank16", "group 'conv1' lacks it"),
        ({"conv1": "keep"}, "does not name a choice for group 'layer1.0.conv1'"),
    ],
)
def test_a_reference_that_does_not_fit_is_named(reference: Any, message: str, example: dict[str, Any]) -> None:
    example["reference"] = reference
    with pytest.raises(UsageError, match=message):
        resolve(Problem.from_rows(example), "weight_bytes", "25%")


def test_a_label_that_a_group_has_twice_is_no_reference(example: dict[str, Any]) -> None:
    example["groups"][2]["choices"][0]["label"] = "keep"
    with pytest.raises(UsageError, match=r"group 'layer1.0.conv2' has it twice"):
        resolve(Problem.from_rows(example), "weight_bytes", "25%")


@pytest.mark.parametrize(
    ("resource", "text", "message"),
    [
        ("weight_bytes", "much", "cannot be read; write a number, 12MB"),
        ("weight_bytes", "", "cannot be read"),
        ("weight_bytes", "12XB", "cannot be read"),
        ("weight_bytes", "12ib", "cannot be read"),
        ("weight_bytes", "1,000", "cannot be read"),
        ("weight_bytes", "0x10", "cannot be read"),
        ("weight_bytes", "nan", "cannot be read"),
        ("weight_bytes", "inf", "cannot be read"),
        ("weight_bytes", "12 M B", "cannot be read"),
        ("weight_bytes", "١٢", "cannot be read"),
        ("weight_bytes", "1e999", "is not finite"),
        ("weight_bytes", "9" * 400, "is not finite"),
        ("latency_ms", "12MB", "counted in 'ms', not bytes or bits"),
        ("latency_ms", "4bits", "counted in 'ms', not bytes or bits"),
        ("peak_bytes", "4bits", "bits per weight need a resource that sums"),
        ("ram", "12", "there is no such resource; known: weight_bytes, latency_ms, peak_bytes"),
    ],
)
def test_what_cannot_be_meant_is_refused(resource: str, text: str, message: str, problem: Problem) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(problem, resource, text)


def test_bits_need_the_weights_of_every_group(example: dict[str, Any]) -> None:
    del example["groups"][3]["weights"]
    with pytest.raises(UsageError, match=r"need `weights` .*'attn.q_proj' has none"):
        resolve(Problem.from_rows(example), "weight_bytes", "4bits")
    for group in example["groups"]:
        group.pop("weights", None)
    with pytest.raises(UsageError, match="'conv1' has none"):
        resolve(Problem.from_rows(example), "weight_bytes", "4bits")


def test_enormous_weights_add_up(example: dict[str, Any]) -> None:
    for group in example["groups"]:
        group["weights"] = 2**63 - 1
    assert resolve(Problem.from_rows(example), "weight_bytes", "8bits") == 6.0 * (2**63 - 1) + 1216


def unscoped(problem: Problem) -> dict[str | None, tuple[Any, Any]]:
    return {b.resource: (b.max, b.min) for b in problem.budgets if b.tags is None}


@pytest.mark.parametrize(
    ("budgets", "weight_bytes"),
    [
        ({"weight_bytes": 5}, (5, None)),
        ({"weight_bytes": "12kB"}, (12000, None)),
        ({"weight_bytes": "min:12kB"}, (None, 12000)),
        ("weight_bytes=7", (7, None)),
        ("weight_bytes = 7", (7, None)),
        (["weight_bytes=7", "weight_bytes=min:3"], (7, 3)),
        (["weight_bytes=min:25%"], (None, (KEEP + 1216) / 4)),
        ({"weight_bytes": np.int64(9)}, (9, None)),
        ({"weight_bytes": np.float64(9.5)}, (9.5, None)),
        ([], (100000, None)),
        ({}, (100000, None)),
        (None, (100000, None)),
    ],
    ids=str,
)
def test_rows_are_replaced(budgets: Any, weight_bytes: Any, problem: Problem) -> None:
    changed = apply_budgets(problem, budgets)
    assert unscoped(changed)["weight_bytes"] == weight_bytes
    assert unscoped(changed)["peak_bytes"] == (140000, None)
    assert [b for b in changed.budgets if b.tags is not None] == [b for b in problem.budgets if b.tags is not None]
    assert len(changed.budgets) == 3


def test_a_row_that_was_not_there_is_added(problem: Problem) -> None:
    changed = apply_budgets(problem, "latency_ms=0.3")
    assert Budget(resource="latency_ms", max=0.3) in changed.budgets
    assert len(changed.budgets) == 4


@pytest.mark.parametrize("value", [5, 5.0, "5", np.int64(5), np.float32(5.0)], ids=lambda v: type(v).__name__)
def test_a_value_alone_means_the_only_budgeted_resource(value: Any, example: dict[str, Any]) -> None:
    problem = Problem.from_rows(example | {"budgets": [{"resource": "weight_bytes", "max": 1}]})
    assert unscoped(apply_budgets(problem, value)) == {"weight_bytes": (5, None)}
    assert unscoped(apply_budgets(problem, value, "latency_ms"))["latency_ms"] == (5, None)


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        (5, "say of which resource, as in weight_bytes=5"),
        ("ram=5", "'ram': there is no such resource"),
        (["weight_bytes=5", "weight_bytes=6"], "two values for its max; give one"),
        ("weight_bytes=", "cannot be read"),
        ("weight_bytes=min:", "cannot be read"),
        ({"weight_bytes": True}, "cannot be read"),
        ({"weight_bytes": None}, "cannot be read"),
        ({"weight_bytes": float("nan")}, "cannot be read"),
    ],
    ids=str,
)
def test_budgets_that_cannot_be_meant(budgets: Any, message: str, problem: Problem) -> None:
    with pytest.raises(UsageError, match=message):
        apply_budgets(problem, budgets)
