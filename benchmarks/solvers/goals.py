"""What the exact engine is meant to reach, as data; the report states what was measured, and the distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Quantity = Literal["call", "whole", "check", "overhead", "imports", "frontier", "memory"]

SUBJECT = "exact"
"""The backend that the goals are about; `--subject` judges another by them."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One row per matching case, or one for all seeds of a name.

    cases: shell pattern of names. quantity: a time of the record in seconds ("call" = the backend alone,
    "whole" = `allocator.solve`), or "memory" = extra bytes of the call per byte of input. most: at most that.
    ratio: the best correct MIP library takes at least so many times as long. proved: optimality must be proved
    by the core. gap: without proof, the relative gap that will do. engine: "numpy" for the engine without C.
    """

    cases: str
    quantity: Quantity
    most: float | None = None
    ratio: float | None = None
    proved: bool = False
    gap: float | None = None
    engine: Literal["", "numpy"] = ""


def _realistic(name: str, most: float, ratio: float, whole: float) -> list[Goal]:
    variants = (name, f"{name}-noise", f"{name}-nodivisor")
    return [
        *(Goal(cases=v, quantity="call", most=most, ratio=ratio, proved=True) for v in variants),
        *(Goal(cases=v, quantity="whole", ratio=whole, proved=True) for v in variants),
    ]


def _large(name: str, most: float) -> list[Goal]:
    variants = (name, f"{name}-noise", f"{name}-nodivisor")
    return [
        *(Goal(cases=v, quantity="call", most=most, proved=True) for v in variants),
        *(Goal(cases=v, quantity="memory", most=0.5) for v in variants),
        *(Goal(cases=v, quantity="call", most=0.6, engine="numpy") for v in variants),
    ]


GOALS: tuple[Goal, ...] = (
    *_realistic("resnet50", 0.05e-3, 30, 15),
    *_realistic("llama8b", 0.1e-3, 100, 50),
    *_realistic("mixtral", 0.5e-3, 500, 400),
    *_large("moe61k", 30e-3),
    *_large("slices1m", 0.15),
    Goal(cases="hard-float", quantity="call", most=0.25, proved=True),
    Goal(cases="WC-k10-n10000-R*", quantity="call", most=3e-3, proved=True),
    Goal(cases="SS-k10-n10000-R*", quantity="call", most=1e-3, proved=True),
    Goal(cases="ZZ-k10-n10000-R*", quantity="call", most=3e-3, proved=True),
    Goal(cases="SC-k10-n1000-R*", quantity="call", most=0.05, proved=True),
    Goal(cases="SC-k10-n10000-R*", quantity="call", most=30.0, proved=True, gap=1e-7),
    *(Goal(cases=f"{n}-{b}", quantity="call", ratio=10, proved=True) for n in ("resnet50", "llama8b") for b in (2, 3)),
    *(Goal(cases=f"mixtral-{b}", quantity="call", ratio=5, proved=True) for b in (2, 3)),
    Goal(cases="slices1m", quantity="frontier", most=0.5),
    Goal(cases="moe61k", quantity="check", most=0.1, proved=True),
    Goal(cases="slices1m", quantity="check", most=0.3, proved=True),
    Goal(cases="SC-k10-n1000-R*", quantity="check", most=0.5, proved=True),
    Goal(cases="hard-float", quantity="check", most=3.0, proved=True),
    Goal(cases="imports", quantity="imports", most=0.15),
    Goal(cases="slices1k", quantity="overhead", most=1e-3),
)
