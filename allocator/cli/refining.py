"""`allocator refine MODEL`."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.choices import Bits, Fast, Kinds, Model, Multiple, Ranks, SpaceFile, choices_of
from allocator.cli.console import number, print_json, progress, say, table

if TYPE_CHECKING:
    from allocator.refining.refinement import Refined


def refine_command(
    model: Model,
    out: Annotated[str, typer.Option(help="Where to write solution.json.")],
    problem: Annotated[str | None, typer.Option(help="problem.json to begin from; default: profile now.")] = None,
    profiler: Annotated[str, typer.Option(help="a,b[k=v] to profile with.")] = "ggn",
    space: SpaceFile = None,
    bits: Bits = None,
    ranks: Ranks = None,
    kinds: Kinds = None,
    multiple: Multiple = None,
    fast: Fast = False,
    budget: Annotated[list[str] | None, typer.Option(help="r=V; replaces that of the problem.")] = None,
    passes: Annotated[float, typer.Option(help="Forward and backward passes that measuring may take, about.")] = 10.0,
    signed: Annotated[bool, typer.Option("--signed", help="Count negative curvature of interactions too.")] = False,
    seed: Annotated[int, typer.Option(help="Of solvers and search.")] = 0,
    jobs: Annotated[int | None, typer.Option(help="Processes that share the measurements; -1: one per core.")] = None,
    problem_out: Annotated[str | None, typer.Option(help="Where to write the problem with measured losses.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from what a killed run left beside --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Solve, measure what the solution rests on, solve again; never worse than uniform on validation data."""
    from allocator.cli.models import load_workload
    from allocator.cli.profiling import profilers
    from allocator.errors import UsageError
    from allocator.formats.files import require_writable
    from allocator.formats.problems import load_problem, save_problem
    from allocator.profiling import profile
    from allocator.refining.refinement import NO_BUDGET, refine, require_passes

    require_passes(passes)
    if problem is None and not budget:
        raise UsageError(NO_BUDGET)
    if out == "-":
        raise UsageError("--out -: give a file; what is finished is kept beside it")
    if problem is not None and (fast or any(one is not None for one in (space, bits, ranks, kinds, multiple))):
        raise UsageError("--problem stands beside --space, --bits, --ranks or --kinds: it brings its own choices")
    for path in (out, problem_out):
        if path is not None:
            require_writable(path)
    parts = Path(f"{out}.parts")
    if parts.exists() and not resume:
        shutil.rmtree(parts)
    given = None if problem is None else load_problem(problem)
    workload = load_workload(model)
    with progress(not json) as tick:
        if given is None:
            choices = choices_of(model, space, bits, ranks, kinds, multiple, fast)
            given = profile(workload, choices, profilers(profiler), progress=tick, resume=parts / "profile", jobs=jobs)
        found = refine(
            workload, given, budgets=budget, passes=passes, signed=signed, seed=seed, jobs=jobs, resume=parts,
            progress=tick,
        )  # fmt: skip
    found.solution.save(out)
    if problem_out is not None:
        save_problem(found.problem, problem_out)
    shutil.rmtree(parts, ignore_errors=True)
    if json:
        print_json(found.to_json())
    else:
        _describe(found, out, signed)


def _describe(found: Refined, out: str, signed: bool) -> None:
    rows = [
        [one.name, number(float(f"{loss.value:.4g}")), f"± {loss.stderr:.2g}", number(float(f"{predicted:.4g}"))]
        for one, loss, predicted in zip(found.candidates, found.losses, found.predicted, strict=True)
    ]
    table(["allocation", "validation KL", "stderr", "predicted"], rows)
    if found.beliefs:
        _interactions(found, signed)
    print(found.reason)
    say(f"{out}: measured with about {found.passes:.0f} passes")


def _interactions(found: Refined, signed: bool) -> None:
    """What interactions rest on, and what they are worth by each model and in truth."""
    rows: list[list[str]] = []
    for belief in found.beliefs:
        gains = [_percent(belief.in_model), _percent(belief.cross_fit), f"± {_percent(belief.stderr)}"]
        for one in belief.curvature:
            negative = f"{_percent(one.negative)} {'counted' if signed else 'left out'}" if one.negative else "–"
            name = f"{belief.origin}: {one.score}"
            rows.append([name, str(one.rows), str(one.choices), f"{one.ratio:.2g}", negative, *gains])
        if not belief.curvature:
            rows.append([f"{belief.origin}: pairs", *["–"] * 4, *gains])
    table(["interactions", "rows r", "choices J", "r/J", "negative", "gain by model", "validated", "stderr"], rows)
    for belief in found.beliefs:
        for one in belief.curvature:
            if one.few:
                say(f"warning: {one.few}")
        if belief.seen:
            say(
                f"{belief.seen} of the validation samples are among those of the profile: what is validated of its own "
                "interactions is too good"
            )


def _percent(share: float) -> str:
    if math.isnan(share):
        return "–"
    return f"{100 * share:.0f} %" if abs(share) >= 0.1 else f"{100 * share:.2g} %"
