"""`allocator profile MODEL`."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.choices import Bits, Fast, Kinds, Model, Multiple, Ranks, SpaceFile, choices_of
from allocator.cli.console import progress, say

if TYPE_CHECKING:
    pass


def profile_command(
    model: Model,
    out: Annotated[str, typer.Option(help="Where to write problem.json; - is stdout.")],
    profiler: Annotated[str, typer.Option(help="a,b[k=v]: each adds its scores; the first one's is the loss.")] = "ggn",
    space: SpaceFile = None,
    bits: Bits = None,
    ranks: Ranks = None,
    kinds: Kinds = None,
    multiple: Multiple = None,
    fast: Fast = False,
    couple: Annotated[str, typer.Option(help="fused,residual: layers that must take one format, found for you.")] = "",
    budget: Annotated[list[str] | None, typer.Option(help="Written into the problem; r=V.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the parts that a killed run left.")] = False,
    jobs: Annotated[
        int | None, typer.Option(help="Processes that share the work, with a copy of the model each; -1: one per core.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="torch threads of each process; the same number gives the same bytes.")
    ] = None,
    latency: Annotated[
        str | None, typer.Option(help="CSV or JSON of module, choice, ms: the resource latency_ms, read.")
    ] = None,
) -> None:
    """Measure every choice of every layer and write the problem."""
    from allocator.budgets import apply_budgets
    from allocator.cli.models import load_workload
    from allocator.formats.files import require_writable
    from allocator.formats.problems import save_problem
    from allocator.profiling import profile

    choices = choices_of(model, space, bits, ranks, kinds, multiple, fast)
    statistics = profilers(profiler)
    if latency is not None:
        from allocator import registry

        statistics.append(registry.make("profilers", "latency", {"table": latency}))
    coupled = [one.strip() for one in couple.split(",") if one.strip()]
    require_writable(out)
    workload = load_workload(model)
    parts = None if out == "-" else Path(f"{out}.parts")
    if parts is not None and parts.exists() and not resume:
        shutil.rmtree(parts)
    with progress() as tick:
        problem = profile(
            workload, choices, statistics, progress=tick, resume=parts, jobs=jobs, threads=threads, couple=coupled
        )
    problem = apply_budgets(problem, budget)
    command = {**(problem.notes.provenance or {}), "command": _command(sys.argv[1:])}
    problem = problem.replace(notes=replace(problem.notes, provenance=command))
    save_problem(problem, out)
    if parts is not None:
        shutil.rmtree(parts, ignore_errors=True)
    if out != "-":
        scores = ", ".join(problem.scores)
        say(f"{out}: {problem.group_count} groups, {problem.choice_count} choices, scores {scores}")
        for one in (problem.notes.meta or {}).get("couplings", ()):
            say(f"  one format for {one['name']} ({one['kind']}): {', '.join(one['groups'])}")
        for one in (problem.notes.meta or {}).get("channels", ()):
            kept = " or ".join(map(str, one["kept"]))
            say(f"  {kept} of {one['channels']} {one['name']}: read by {', '.join(one['consumers'])}")


def _command(words: list[str]) -> str:
    """What was asked for; whether it took two runs or several processes to get there does not show in the result."""
    kept, left = [], iter(words)
    for word in left:
        if word == "--jobs":
            next(left, None)
        elif word != "--resume" and not word.startswith("--jobs="):
            kept.append(word)
    return shlex.join(["allocator", *kept])


def profilers(text: str) -> list[object]:
    """Instances for "a,b[option=value]"."""
    import re

    from allocator import registry
    from allocator.comparison import split_spec

    found = []
    for one in re.findall(r"[^,\[]+(?:\[[^\]]*\])?", text):
        name, options = split_spec(one)
        found.append(registry.make("profilers", name, options))
    return found
