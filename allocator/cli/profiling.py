"""`allocator profile MODEL`."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.console import progress, say

if TYPE_CHECKING:
    from allocator.space import Space


def profile_command(
    model: Annotated[str, typer.Argument(help="Built-in name, or package.module:function returning a Workload.")],
    out: Annotated[str, typer.Option(help="Where to write problem.json; - is stdout.")],
    profiler: Annotated[str, typer.Option(help="a,b[k=v]: each adds its scores; the first one's is the loss.")] = "ggn",
    space: Annotated[str | None, typer.Option(help="JSON file of rules: pattern → actions.")] = None,
    bits: Annotated[str | None, typer.Option(help="2,3,4,8: widths to offer instead of a space.")] = None,
    ranks: Annotated[str | None, typer.Option(help="0.25,0.5: fractions of the full rank to offer.")] = None,
    kinds: Annotated[
        str | None,
        typer.Option(help="joint, or bits,formats,ranks,tensors,sparsity,blocks,channels: menus to offer instead."),
    ] = None,
    multiple: Annotated[int | None, typer.Option(help="With --kinds: ranks are multiples of it, such as 8.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="With --kinds: leave out what is slow on large layers.")] = False,
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


def choices_of(
    model: str,
    space: str | None,
    bits: str | None,
    ranks: str | None,
    kinds: str | None = None,
    multiple: int | None = None,
    fast: bool = False,
) -> Space:
    """The space that the options name: a file, widths and ranks, kinds of compression, or what suits the model."""
    from allocator.cli.models import default_space
    from allocator.errors import UsageError
    from allocator.space import Space

    if space is not None and (bits is not None or ranks is not None):
        raise UsageError("--space stands beside --bits or --ranks; give one of them")
    if kinds is not None and any(other is not None for other in (space, bits, ranks)):
        raise UsageError("--kinds stands beside --space, --bits or --ranks; give one of them")
    if kinds is None and (multiple is not None or fast):
        raise UsageError("--multiple and --fast are about the menus of --kinds: give that too, such as --kinds joint")
    if kinds is not None:
        names = [name.strip() for name in kinds.split(",") if name.strip()]
        rules = default_space(model).rules
        return Space.of_kinds(names, multiple=1 if multiple is None else multiple, fast=fast, rules=rules)
    if space is not None:
        return _read_space(space)
    if bits is not None or ranks is not None:
        return Space.simple(bits=numbers(bits or "", int, "--bits"), ranks=numbers(ranks or "", float, "--ranks"))
    return default_space(model)


def _read_space(path: str) -> Space:
    import msgspec

    from allocator.errors import UsageError
    from allocator.formats.files import read_bytes
    from allocator.space import Space

    try:
        return Space.from_json(msgspec.json.decode(read_bytes(path), type=dict))
    except msgspec.DecodeError as error:
        raise UsageError(f"--space {path}: is not a JSON object: {error}") from None


def numbers(text: str, kind: type, option: str) -> list:  # type: ignore[type-arg]  # int or float, as asked
    """The numbers of "1,2,3"; UsageError names the option."""
    from allocator.errors import UsageError

    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"{option} {text}: write numbers with commas between") from None
