"""What this installation can do, and what is wrong with it; `allocator doctor`."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from allocator import registry
from allocator.engine import native, running
from allocator.listing import listed

SAMPLE = {
    "format": "allocation-problem",
    "version": 1,
    "groups": [
        {
            "name": f"layer{g}",
            "choices": [
                {"name": f"{b}bit", "cost": {"bytes": 10 * (g + 1) * b}, "score": {"s": (g + 1) / 4**b}}
                for b in (2, 4, 8)
            ],
        }
        for g in range(4)
    ],
    "budgets": [{"resource": "bytes", "max": 410}],
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at. state: "ok", "missing" (an extra, or a slower way), or "wrong"; cure: what helps."""

    name: str
    state: Literal["ok", "missing", "wrong"]
    detail: str
    cure: str = ""


def diagnose() -> list[Finding]:
    """Python and machine, packages against what this distribution asks for, engines, plug-ins, a small solve."""
    return [*_machine(), *_packages(), _engine(), *_plug_ins(), *_solves()]


def _machine() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} ({platform.python_implementation()})")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("machine", "ok", f"{platform.machine()}, {cores} cores, {platform.system()}")


def _packages() -> Iterator[Finding]:
    for text in metadata.requires(registry.DISTRIBUTION) or ():
        wanted, _, marker = text.partition(";")
        match = re.match(r"[A-Za-z0-9._-]+", wanted)
        name = match.group() if match else wanted
        extra = re.search(r"extra == ['\"]([^'\"]+)", marker)
        if name == registry.DISTRIBUTION or (extra and extra.group(1) not in ("torch", "report")):
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            cure = f"pip install '{registry.DISTRIBUTION}[{extra.group(1)}]'" if extra else f"pip install '{wanted}'"
            yield Finding(name, "missing" if extra else "wrong", "not installed", cure)
            continue
        broken = _outside(version, wanted[len(name) :])
        cure = f"pip install '{wanted.strip()}'" if broken else ""
        yield Finding(
            name, "wrong" if broken else "ok", version + (f", but {broken} is needed" if broken else ""), cure
        )


def _outside(version: str, ranges: str) -> str:
    """The part of a requirement such as ">=9.15,<9.16" that a version breaks; "" where it keeps all."""
    here = _numbers(version)
    for part in filter(None, (p.strip() for p in re.sub(r"\[.*?\]", "", ranges).split(","))):
        match = re.match(r"(>=|<=|==|<|>)\s*(.+)", part)
        if match is None:
            continue
        there = _numbers(match.group(2))
        kept = {
            ">=": here >= there,
            "<=": here <= there,
            "==": here[: len(there)] == there,
            "<": here < there,
            ">": here > there,
        }[match.group(1)]
        if not kept:
            return part
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.partition("+")[0]))


def _engine() -> Finding:
    state: Literal["ok", "missing"] = "ok" if native() is not None else "missing"
    return Finding("exact engine", state, running(), "" if state == "ok" else "slower, not less exact")


def _plug_ins() -> Iterator[Finding]:
    for group in ("solvers", "profilers", "actions"):
        found = listed(group)
        usable = [p.name for p in found if p.available]
        yield Finding(group, "ok", ", ".join(usable) or "none")
        for plug_in in found:
            if not plug_in.available:
                yield Finding(f"{group.removesuffix('s')} {plug_in.name}", "missing", plug_in.reason or "")


def _solves() -> Iterator[Finding]:
    """The same small problem by looking at everything and by each engine that is there."""
    from allocator.pipeline import solve

    best = solve(SAMPLE, "brute_force").objective
    for engine in ("c", "numpy") if native() is not None else ("numpy",):
        solution = solve(SAMPLE, "exact", engine=engine)
        right = solution.status == "optimal" and solution.objective == best
        detail = "a small problem is solved and proved" if right else f"gives {solution!r}, the optimum is {best}"
        cure = "" if right else "set ALLOCATOR_ENGINE=numpy and report this"
        yield Finding(f"engine {engine}", "ok" if right else "wrong", detail, cure)
