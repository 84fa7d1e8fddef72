"""`allocator fidelity MODEL`."""

from __future__ import annotations

import math
import shutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.choices import Bits, Model, Ranks, SpaceFile, choices_of
from allocator.cli.console import print_json, progress, say, table
from allocator.progress import Progress

if TYPE_CHECKING:
    from allocator.faithfulness.agreement import Agreement
    from allocator.faithfulness.report import Fidelity
    from allocator.problem import Problem
    from allocator.workload import Workload

PROFILERS = "kl,ggn,weight_error"


def fidelity_command(
    model: Model,
    problem: Annotated[str | None, typer.Option(help="problem.json to judge; default: profile now.")] = None,
    profiler: Annotated[str | None, typer.Option(help=f"a,b[k=v] to profile with; default {PROFILERS}.")] = None,
    space: SpaceFile = None,
    bits: Bits = None,
    ranks: Ranks = None,
    allocations: Annotated[int, typer.Option(help="Random whole allocations to measure.")] = 160,
    singles: Annotated[str, typer.Option(help="Single choices to measure: all, or so many.")] = "all",
    samples: Annotated[int | None, typer.Option(help="Evaluation samples to use; default all.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    out: Annotated[str | None, typer.Option(help="Where to write the report as JSON.")] = None,
    plot: Annotated[str | None, typer.Option(help="Where to draw it (.png, .svg, .pdf); needs matplotlib.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from what a killed run left beside --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The report as one JSON document on stdout.")] = False,
) -> None:
    """Predicted against measured losses on the evaluation data: which scores are to be trusted."""
    import msgspec

    from allocator.cli.models import load_workload
    from allocator.errors import UsageError
    from allocator.faithfulness.checking import fidelity
    from allocator.formats.files import require_writable, write_bytes

    if problem is not None and any(option is not None for option in (profiler, space, bits, ranks)):
        raise UsageError("--problem stands beside --profiler, --space, --bits or --ranks: it brings its own scores")
    if resume and (out is None or out == "-"):
        raise UsageError("--resume needs --out FILE: what is finished is kept beside it")
    for path in (out, plot):
        if path is not None:
            require_writable(path)
    if plot is not None:
        import_module("matplotlib")  # a missing one is named before the work, not after it
    wanted = _count(singles)
    parts = None if out is None or out == "-" else Path(f"{out}.parts")
    if parts is not None and parts.exists() and not resume:
        shutil.rmtree(parts)
    workload = load_workload(model)
    with progress(not json) as tick:
        stated: Any = problem
        if problem is None:
            stated = _profiled(model, workload, profiler or PROFILERS, space, bits, ranks, tick, parts)
        found = fidelity(
            workload, stated, allocations=allocations, singles=wanted, samples=samples, seed=seed, resume=parts,
            progress=tick,
        )  # fmt: skip
    document = found.to_json()
    if out is not None:
        write_bytes(out, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    if plot is not None:
        from allocator.faithfulness.plotting import draw

        draw(found, plot)
    if parts is not None:
        shutil.rmtree(parts, ignore_errors=True)
    if json:
        print_json(document)
    elif out != "-":
        describe(found)


def _count(text: str) -> int | None:
    from allocator.errors import UsageError

    if text == "all":
        return None
    if not text.isdecimal():
        raise UsageError(f"--singles {text}: say all, or how many")
    return int(text)


def _profiled(
    model: str,
    workload: Workload,
    profiler: str,
    space: str | None,
    bits: str | None,
    ranks: str | None,
    tick: Progress,
    parts: Path | None,
) -> Problem:
    from allocator.cli.profiling import profilers
    from allocator.profiling import profile

    return profile(workload, choices_of(model, space, bits, ranks), profilers(profiler), progress=tick, resume=parts)


def describe(found: Fidelity) -> None:
    """What was measured, a verdict for each predictor, and the numbers behind it."""
    for warning in found.warnings:
        say(f"warning: {warning}")
    kinds = [whole.kind for whole in found.wholes]
    drawn = sum(kind in {r.name for r in found.regions} for kind in kinds)
    print(
        f"{found.workload}: {len(found.singles)} single choices, {drawn} random, {kinds.count('uniform')} uniform and "
        f"{kinds.count('optimal')} optimal allocations, measured on {found.samples} evaluation samples"
    )
    for region in found.regions:
        print(f"  {region.name}: {region.about}")
    print(f"  a second measurement of this size would reach {_two(found.repeat)} within regions")
    names = [region.name for region in found.regions]
    rows, sizes = [], []
    for predictor in found.predictors:
        j = found.judgements[predictor.name]
        within = f"{_two(j.within)} ({_two(j.within_interval[0])} to {_two(j.within_interval[1])})"
        regions = [_two(j.regions[name].spearman) if name in j.regions else "–" for name in names]
        singles = "–" if j.singles is None else _two(j.singles.spearman)
        pooled = "–" if j.pooled is None else _two(j.pooled.spearman)
        tau = "–" if j.pooled is None else _two(j.pooled.kendall)
        rows.append([predictor.name, j.words, within, *regions, pooled, tau, singles, _two(j.within_label)])
        if predictor.in_nats:
            some = [j.regions.get(name) for name in (*names, "optimal by it")]
            sizes.append([predictor.name, *map(_ratio, (j.singles, j.pooled, *some))])
    table(
        ("predictor", "verdict", "within regions", *names, "pooled", "τ", "singles", "within label"), rows,
        title="Spearman's correlation of predicted and measured losses",
    )  # fmt: skip
    if sizes:
        table(
            ("predictor", "singles", "pooled", *names, "optimal by it"), sizes,
            title="predicted / measured: median (10 to 90 %)",
        )  # fmt: skip


def _two(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _ratio(found: Agreement | None) -> str:
    if found is None or found.ratio is None or not found.ratio.count:
        return "–"
    r = found.ratio
    return f"{r.median:.2g} ({r.q10:.2g} to {r.q90:.2g})"
